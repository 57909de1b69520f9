"""What a session keeps and tells of every step."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from genie_gym.envs.slots import WorldEnvConfig

Frame = UInt8[np.ndarray, "H W C"]
PlayerName = Literal["person", "policy", "planner"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a player can change while playing."""

    player: PlayerName = "person"
    """Who chooses the actions."""
    action_mode: Literal["ale", "latent"] = "ale"
    """Which set the actions index."""
    temperature: float
    """Sampling temperature of the frames."""
    num_maskgit_steps: int
    """Refinement steps a frame."""
    show_uncertainty: bool = False
    """Whether steps tell how unsure each token was."""
    show_value: bool = False
    """Whether steps tell what the policy's critic expects."""


@dataclass(frozen=True, slots=True)
class RealStep:
    """What the real game gave beside an imagined step."""

    picture: bytes
    reward: float
    score: float
    is_over: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is told of one step; the first one of a game is its start."""

    index: int
    picture: bytes
    """The frame, RGB, deflated: a tenth of its size or less."""
    config: WorldEnvConfig
    """What it was imagined with."""
    action: int | None = None
    reward: float | None = None
    score: float = 0.0
    expected_reward: float | None = None
    terminated_prob: float | None = None
    terminated: bool = False
    truncated: bool = False
    value: float | None = None
    uncertainty: Float32[np.ndarray, " S"] | None = None
    real: RealStep | None = None

    @property
    def is_over(self) -> bool:
        """Whether the game ends here."""
        return self.terminated or self.truncated


def pack(frame: Frame) -> bytes:
    """Return a frame's values, deflated."""
    return zlib.compress(np.ascontiguousarray(frame).tobytes(), level=1)


def unpack(picture: bytes, shape: tuple[int, int, int]) -> Frame:
    """Return the frame that `pack` took."""
    return np.frombuffer(zlib.decompress(picture), np.uint8).reshape(shape)
