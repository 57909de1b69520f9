"""Play 100 random steps in a learned world.

python examples/play_in_the_world.py [world]
"""

import sys
import time

import gymnasium as gym

import genie_gym  # noqa: F401  (registers the ids)


def main() -> None:
    """Play, and print what was earned and how fast."""
    options = {"world": sys.argv[1]} if len(sys.argv) > 1 else {}
    env = gym.make("GenieWorld-Pong-v0", **options)
    env.action_space.seed(0)
    env.reset(seed=0)

    total, begin = 0.0, time.perf_counter()
    for _ in range(100):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        if terminated or truncated:
            env.reset()
    print(f"total reward: {total:g}")
    print(f"steps per second: {100 / (time.perf_counter() - begin):.1f}")


if __name__ == "__main__":
    main()
