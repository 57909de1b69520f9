"""Train an agent in a learned world, then let it play the real game.

python examples/transfer_to_real.py [world] [KEY=VALUE ...]
"""

import sys
import tempfile
from pathlib import Path

import genie_gym
from genie_gym.cli import main as run
from genie_gym.envs.real import RealEnv


def main() -> None:
    """Train, play 300 real steps, and print what they earned."""
    world = sys.argv[1] if len(sys.argv) > 1 else "pong"
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        short = ["steps=4096", "real_check.episodes=0", *sys.argv[2:]]
        if status := run(["agent", "train", "--world", world, "--out", out, *short]):
            sys.exit(status)
        policy = genie_gym.load_policy(out)

    env = RealEnv(policy.card.game)
    obs, _ = env.reset(seed=0)
    state, total = None, 0.0
    for _ in range(300):
        action, state = policy.predict(obs, state)
        obs, reward, terminated, truncated, _ = env.step(action)
        total += reward
        if terminated or truncated:
            break
    print(f"imagined steps: {policy.card.imagined_steps}")
    print(f"points in 300 real steps: {total:g}")


if __name__ == "__main__":
    main()
