"""Record imagined play with Gymnasium's own wrappers.

python examples/record_video.py [folder] [world]
"""

import sys

import gymnasium as gym
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics, RecordVideo

import genie_gym  # noqa: F401  (registers the ids)


def main() -> None:
    """Play one episode of 100 random steps, and print where its film is."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "out/videos"
    world = sys.argv[2] if len(sys.argv) > 2 else "pong"
    env = gym.make(
        "GenieWorld-Pong-v0", world=world, render_mode="rgb_array", max_episode_steps=100
    )
    env = RecordVideo(RecordEpisodeStatistics(env), folder)
    env = FrameStackObservation(env, stack_size=4)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    is_over = False
    while not is_over:
        obs, _, terminated, truncated, info = env.step(env.action_space.sample())
        is_over = terminated or truncated
    env.close()
    print(f"observation: {obs.shape}")
    print(f"steps: {info['episode']['l']}")
    print(f"wrote {folder}/rl-video-episode-0.mp4")


if __name__ == "__main__":
    main()
