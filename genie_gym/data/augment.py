"""Random changes to training clips: shifts, mirrors, colours, and every k-th frame.

All frames of a clip are changed alike, so that nothing flickers, and clips of one batch differ.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from einops import rearrange
from jaxtyping import Int, Int64, UInt8

from genie_gym.data.windows import Clip
from genie_gym.errors import ConfigError
from genie_gym.games import swapped_words

COLOURS = ("brightness", "contrast", "saturation")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the grey of a pixel (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What may be changed in a training clip; by default nothing. Validation clips never change."""

    max_shift: int = 0
    """Pictures move by up to so many pixels on each axis; the edge is repeated behind them."""
    horizontal_flip: bool = False
    """Every second clip, by chance, is mirrored left to right, its actions too."""
    vertical_flip: bool = False
    """Every second clip, by chance, is mirrored top to bottom, its actions too."""
    brightness: float = 0.0
    """Colours are multiplied by a factor from 1 - brightness to 1 + brightness."""
    contrast: float = 0.0
    """Distance to the clip's mean grey is multiplied by 1 - contrast to 1 + contrast."""
    saturation: float = 0.0
    """Distance to the pixel's own grey is multiplied by 1 - saturation to 1 + saturation."""
    max_stride: int = 1
    """Every k-th frame is kept, k from 1 to this; such clips have no actions and rewards."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_shift < 0:
            raise ConfigError(f"augment.max_shift must be 0 or more, got {self.max_shift}")
        for name in COLOURS:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.max_stride < 1:
            raise ConfigError(f"augment.max_stride must be at least 1, got {self.max_stride}")

    @property
    def changed_keys(self) -> list[str]:
        """Names of the values that are not their defaults: empty if nothing is augmented."""
        return [one.name for one in fields(self) if getattr(self, one.name) != one.default]

    @property
    def flips(self) -> list[str]:
        """Names of the mirrors that are switched on, as `swapped_words` knows them."""
        return [flip for flip in ("horizontal", "vertical") if getattr(self, f"{flip}_flip")]


class Augmentation:
    """Changes clips as a config says.

    Args:
        config: what may be changed.
        game: name of the ALE game; it says which mirrors are allowed.
        action_meanings: name of each action.

    Raises:
        ConfigError: the game does not allow a mirror.
    """

    def __init__(self, config: AugmentConfig, *, game: str, action_meanings: list[str]) -> None:
        self.config = config
        self._mirrored = {
            flip: mirrored_actions(action_meanings, swapped_words(game, flip))
            for flip in config.flips
        }

    def span(self, num_frames: int) -> int:
        """Return how many rows a clip must be cut from to come out with `num_frames` frames."""
        return (num_frames - 1) * self.config.max_stride + 1

    def __call__(self, clip: Clip, num_frames: int, generator: np.random.Generator) -> Clip:
        """Return the changed clip, `num_frames` long.

        Args:
            clip: windows of `span(num_frames)` uint8 frames.
            num_frames: frames to keep.
            generator: draws the changes; the same state gives the same clip.
        """
        config = self.config
        if config.max_stride > 1:
            clip = _subsample(clip, num_frames, config.max_stride, generator)
        for flip, mirrored in self._mirrored.items():
            clip = _flip(clip, flip, mirrored, generator)
        frames = clip.frames
        if config.max_shift:
            frames = _shift(frames, config.max_shift, generator)
        if config.brightness or config.contrast or config.saturation:
            frames = _recolour(frames, config, generator)
        return replace(clip, frames=frames)


def mirrored_actions(
    action_meanings: list[str], words: tuple[str, str]
) -> Int64[np.ndarray, " actions"]:
    """Return the number of each action's mirror image, whose name has the two words swapped.

    Raises:
        ConfigError: an action's mirror image is not among them.

    Example:
        >>> mirrored_actions(["NOOP", "RIGHT", "LEFT", "UPRIGHT", "UPLEFT"], ("LEFT", "RIGHT"))
        array([0, 2, 1, 4, 3])
    """
    first, second = words
    # No name holds a dot: it marks the places of the first word while the second moves there.
    names = [
        name.replace(first, ".").replace(second, first).replace(".", second)
        for name in action_meanings
    ]
    if missing := sorted(set(names) - set(action_meanings)):
        raise ConfigError(
            f"actions {action_meanings} have no mirror image {missing}, so clips of them cannot be "
            "flipped. Switch the flips off"
        )
    return np.array([action_meanings.index(name) for name in names], np.int64)


def _subsample(
    clip: Clip, num_frames: int, max_stride: int, generator: np.random.Generator
) -> Clip:
    """Keep every k-th frame; what happens between two of them is no longer one action."""
    strides = generator.integers(1, max_stride, size=len(clip.frames), endpoint=True)
    kept = strides[:, None] * np.arange(num_frames)
    frames = clip.frames[np.arange(len(kept))[:, None], kept]
    return Clip(frames=frames, actions=None, rewards=None, terminations=None)


def _flip(
    clip: Clip, flip: str, mirrored: Int[np.ndarray, " actions"], generator: np.random.Generator
) -> Clip:
    is_flipped = generator.random(len(clip.frames)) < 0.5
    frames, actions = clip.frames.copy(), clip.actions
    chosen = frames[is_flipped]
    frames[is_flipped] = chosen[:, :, :, ::-1] if flip == "horizontal" else chosen[:, :, ::-1]
    if actions is not None:
        actions = np.where(is_flipped[:, None], mirrored[actions], actions)
    return replace(clip, frames=frames, actions=actions)


def _shift(
    frames: UInt8[np.ndarray, "B T H W C"], max_shift: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "B T H W C"]:
    """Crop each clip out of itself, padded by its edges, at a random place."""
    height, width = frames.shape[2:4]
    moves = generator.integers(-max_shift, max_shift, size=(len(frames), 2), endpoint=True)
    shifted = np.empty_like(frames)
    for index, (down, right) in enumerate(moves):
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        columns = np.clip(np.arange(width) - right, 0, width - 1)
        shifted[index] = frames[index][:, rows[:, None], columns]
    return shifted


def _recolour(
    frames: UInt8[np.ndarray, "B T H W C"], config: AugmentConfig, generator: np.random.Generator
) -> UInt8[np.ndarray, "B T H W C"]:
    """Change saturation, then contrast, then brightness: together one sum for every pixel."""
    ranges = np.array([getattr(config, name) for name in COLOURS])
    factors = generator.uniform(1 - ranges, 1 + ranges, size=(len(frames), len(COLOURS)))
    recoloured = np.empty_like(frames)
    for index, (brightness, contrast, saturation) in enumerate(factors.astype(np.float32)):
        grey = frames[index] @ LUMA
        offset = contrast * (1 - saturation) * grey + (1 - contrast) * grey.mean()
        pixels = contrast * saturation * frames[index] + rearrange(offset, "T H W -> T H W 1")
        recoloured[index] = np.clip(np.rint(brightness * pixels), 0, 255)
    return recoloured
