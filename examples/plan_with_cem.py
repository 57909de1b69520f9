"""Let a planner play 20 steps of real Pong, with a learned world as its model.

python examples/plan_with_cem.py [world]
"""

import sys

import torch

import genie_gym
from genie_gym.envs.planning import WorldFollower
from genie_gym.envs.real import RealEnv
from planners import CEM, CEMConfig, MPCAgent


def main() -> None:
    """Play, and print what was earned and what a decision took."""
    world = genie_gym.load_world(sys.argv[1] if len(sys.argv) > 1 else "pong")
    env = RealEnv("Pong")
    config = CEMConfig(horizon=12, num_samples=16, num_iterations=1, actions=(0, 2, 3))
    agent = MPCAgent(
        CEM(config, generator=torch.Generator().manual_seed(0)),
        WorldFollower(world, num_maskgit_steps=1),
        obs_shape=(64, 64, 3),
    )

    obs, _ = env.reset(seed=0)
    memory, total, seconds = None, 0.0, 0.0
    for _ in range(20):
        action, memory = agent.predict(obs, memory)
        obs, reward, _, _, _ = env.step(action)
        total += reward
        seconds += memory.plan.milliseconds / 1000
    print(f"total reward: {total:g}")
    print(f"seconds per decision: {seconds / 20:.3f}")


if __name__ == "__main__":
    main()
