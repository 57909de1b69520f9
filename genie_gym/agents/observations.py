"""What a policy sees: the last few frames in grey, stacked on the channels, oldest first."""

from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Bool, Float32, Shaped, UInt8
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

Stack = Shaped[np.ndarray, "B K ..."]


def grey(frames: UInt8[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "B H W"]:
    """Return the frames' luminance."""
    # One tall picture: OpenCV takes one at a time.
    tall = cv2.cvtColor(rearrange(frames, "B H W C -> (B H) W C"), cv2.COLOR_RGB2GRAY)
    return rearrange(np.asarray(tall, np.uint8), "(B H) W -> B H W", B=len(frames))


def begin_stack(frames: Shaped[np.ndarray, "B ..."], num_frames: int) -> Stack:
    """Return the stacks of games that have just begun: their first frame, repeated."""
    return repeat(frames, "B ... -> B K ...", K=num_frames)


def push(stack: Stack, frames: Shaped[np.ndarray, "B ..."]) -> Stack:
    """Return the stacks with a new frame in and the oldest out; the old ones stay as they are."""
    return np.concatenate([stack[:, 1:], frames[:, None]], axis=1)


class GreyFrameStack(VecEnvWrapper):
    """SB3's environments, seen as stacks of grey frames, uint8 (num_envs, K, H, W).

    Like `VecFrameStack`, but grey, channels first (so that SB3 transposes nothing), and with the
    first frame repeated where it shows black: real and imagined games begin at different moments,
    and black frames would tell them apart.

    Args:
        venv: environments that show RGB frames.
        num_frames: frames of a stack.
    """

    def __init__(self, venv: VecEnv, num_frames: int) -> None:
        assert venv.observation_space.shape is not None
        height, width, _ = venv.observation_space.shape
        space = gym.spaces.Box(0, 255, (num_frames, height, width), np.uint8)
        super().__init__(venv, observation_space=space)
        self.num_frames = num_frames
        self.stack = np.zeros((self.num_envs, *space.shape), np.uint8)

    def reset(self) -> Stack:
        """Begin new games."""
        frames: Any = self.venv.reset()
        self.stack = begin_stack(grey(frames), self.num_frames)
        return self.stack

    def step_wait(
        self,
    ) -> tuple[Stack, Float32[np.ndarray, " B"], Bool[np.ndarray, " B"], list[dict[str, Any]]]:
        """Return a step's outcome; `terminal_observation` is a stack too."""
        frames: Any
        frames, rewards, dones, infos = self.venv.step_wait()
        newest = grey(frames)
        stack = push(self.stack, newest)
        rows = dones.nonzero()[0]
        for row in rows:
            last = grey(infos[row]["terminal_observation"][None])
            infos[row]["terminal_observation"] = push(self.stack[row : row + 1], last)[0]
        stack[rows] = begin_stack(newest[rows], self.num_frames)
        self.stack = stack
        return stack, rewards, dones, infos
