"""Train Stable-Baselines3's own PPO inside a learned world.

python examples/train_ppo_in_world.py [world] [steps]
"""

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor

from genie_gym.envs.sb3_vec_env import GenieWorldSB3VecEnv


def main() -> None:
    """Train, and print what the policy earns in imagined games of 50 steps."""
    world = sys.argv[1] if len(sys.argv) > 1 else "pong"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 2048
    games = GenieWorldSB3VecEnv(16, world=world, max_episode_steps=50)
    envs = VecFrameStack(VecMonitor(games), n_stack=4)
    model = PPO("CnnPolicy", envs, n_steps=32, batch_size=256, n_epochs=1, seed=0)
    model.learn(steps)

    mean, std = evaluate_policy(model, envs, n_eval_episodes=16, deterministic=False)
    print(f"imagined steps: {model.num_timesteps}")
    print(f"mean imagined return: {mean:.2f}, standard deviation {std:.2f}")


if __name__ == "__main__":
    main()
