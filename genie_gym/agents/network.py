"""A policy network that costs little beside the world it plays in."""

import torch
from gymnasium.spaces import Box
from jaxtyping import Float, UInt8
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from genie_gym.errors import ConfigError

MIN_SIZE = 20
"""Least side of a frame, in pixels, that both convolutions fit into."""


class SmallCnn(BaseFeaturesExtractor):
    """Two strided convolutions and a linear layer, from stacked grey frames to features.

    It sees how a frame differs from the mean one (`measure`): a ball is a few pixels, and on the
    raw picture the background drowns them.

    Args:
        observation_space: stacks of frames, (K, H, W).
        channels: channels of the two convolutions.
        feature_dim: features that come out.

    Raises:
        ConfigError: the frames are smaller than `MIN_SIZE`.

    Source:
        The network of Mnih et al. 2013, "Playing Atari with Deep Reinforcement Learning", section
        4.1, on 64x64 pixels. The mean frame is ours.
    """

    background: Float[Tensor, "H W"]
    contrast: Float[Tensor, ""]

    def __init__(self, observation_space: Box, channels: tuple[int, ...], feature_dim: int) -> None:
        super().__init__(observation_space, feature_dim)
        num_frames, height, width = observation_space.shape
        if min(height, width) < MIN_SIZE:
            raise ConfigError(
                f"an agent's frames must be at least {MIN_SIZE} pixels high and wide, got {height} "
                f"x {width}. Take a world of larger frames"
            )
        first, second = channels
        self.register_buffer("background", torch.zeros(height, width))
        self.register_buffer("contrast", torch.tensor(255.0))
        self.convolutions = nn.Sequential(
            nn.Conv2d(num_frames, first, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.convolutions(torch.zeros(1, num_frames, height, width)).shape[1]
        self.to_features = nn.Sequential(nn.Linear(size, feature_dim), nn.ReLU())

    def measure(self, frames: UInt8[Tensor, "N H W"]) -> None:
        """Take mean and contrast from frames of play: the root mean square of the difference."""
        self.background.copy_(frames.float().mean(0))
        # A grey level at least: all frames may be the same.
        self.contrast.copy_((frames - self.background).square().mean().sqrt().clamp(min=1.0))

    def forward(self, frames: Float[Tensor, "B K H W"]) -> Float[Tensor, "B D"]:
        """Return the features of frames in [0, 255]."""
        frames = (frames - self.background) / self.contrast
        # 1.6 times as fast on a CPU.
        frames = frames.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.to_features(self.convolutions(frames))
        return features
