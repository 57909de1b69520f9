"""How much a clip of video is worth: cheap scores, one number in [0, 1].

Four defects are measured, each in [0, 1] and 0 when there is nothing to complain of; a trained
filter may add a fifth. A clip is as good as its worst defect leaves it: `score` is 1 minus the
largest. The thresholds are set by hand, above the noise of video codecs and below a game's smallest
moving thing.
"""

from dataclasses import asdict, dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8, UInt64

from genie_gym.errors import ConfigError

CHANGE = 32
"""Levels of 255 by which a pixel must change to count as movement; codecs stay below."""
STILL = 8
"""Largest change of any value, in levels, between two frames that count as the same."""
DARK = 32
"""Level up to which a pixel is dark."""
DARK_SHARE = 0.999
"""Share of dark pixels from which a frame is black; a score display alone is more than the rest."""
CUT = 0.1
"""Distance of two frames' histograms from which a scene has changed."""
NEAR = 3
"""Bits, of 256, by which the hashes of near-identical clips may differ."""
GRID = 8
"""Cells of a hash along each side of a frame; no frame may be smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Defects of one clip, each in [0, 1]."""

    frozen: float
    """Share of neighbouring frames that are the same."""
    black: float
    """Share of frames in which nearly every pixel is dark."""
    cuts: float
    """Share of frames outside of the longest stretch without a scene cut."""
    duplicate: float
    """1 if an earlier clip is nearly identical, else 0."""
    filter: float = 0.0
    """Probability that the clip is bad, as a trained filter sees it; 0 without one."""

    @property
    def score(self) -> float:
        """What the worst defect leaves: 1 is best, 0 is worthless."""
        return 1.0 - float(max(asdict(self).values()))

    @property
    def worst(self) -> str:
        """Name of the largest defect; of equal ones the first."""
        return max(asdict(self).items(), key=lambda defect: defect[1])[0]


class QualityMeter:
    """Measures clips one after the other, and remembers a hash of each to find duplicates.

    A clip costs 32 bytes of memory, and a glance at all earlier hashes: 15 ms at a million.

    Example:
        >>> meter = QualityMeter()
        >>> meter.measure(np.zeros((4, 8, 8, 3), np.uint8))
        Quality(frozen=1.0, black=1.0, cuts=0.0, duplicate=0.0, filter=0.0)
        >>> meter.measure(np.zeros((4, 8, 8, 3), np.uint8)).duplicate
        1.0
    """

    def __init__(self) -> None:
        self._hashes = np.empty((1024, 4), np.uint64)
        self._num_hashes = 0

    def measure(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Quality:
        """Return the defects of a clip of at least one frame, each side 8 pixels or more.

        Raises:
            ConfigError: the frames are smaller.
        """
        if min(frames.shape[1:3]) < GRID:
            raise ConfigError(
                f"frames must be at least {GRID} pixels high and wide to be judged, got "
                f"{frames.shape[1]} x {frames.shape[2]}"
            )
        changes = np.abs(np.diff(frames.astype(np.int16), axis=0)).astype(np.uint8).max(axis=-1)
        return Quality(
            frozen=_share(changes.max(axis=(1, 2)) <= STILL),
            black=_share((frames.max(axis=-1) <= DARK).mean(axis=(1, 2)) >= DARK_SHARE),
            cuts=_share_outside_longest_scene(frames),
            duplicate=float(self._is_known(clip_hash(frames, changes))),
        )

    def _is_known(self, code: UInt64[np.ndarray, " 4"]) -> bool:
        known = self._hashes[: self._num_hashes]
        if (np.bitwise_count(known ^ code).sum(axis=1) <= NEAR).any():
            return True
        if self._num_hashes == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._num_hashes] = code
        self._num_hashes += 1
        return False


def histogram_distances(frames: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, " T-1"]:
    """Return how far every two neighbouring frames' histograms lie apart, in [0, 1].

    It is the earth mover's distance, averaged over the channels: a picture that brightens by d
    levels moves d / 255, and one that turns from black to white moves 1. Where things are in the
    picture does not matter.
    """
    values = frames.reshape(len(frames), -1, 3)
    ranks = np.sort(values, axis=1).astype(np.int16)
    distances: Float[np.ndarray, " T-1"] = np.abs(np.diff(ranks, axis=0)).mean(axis=(1, 2)) / 255
    return distances


def clip_hash(
    frames: UInt8[np.ndarray, "T H W 3"], changes: UInt8[np.ndarray, "T-1 H W"]
) -> UInt64[np.ndarray, " 4"]:
    """Return 256 bits that survive rescaling and another codec: the look, then the movement.

    The first 64 say where the first frame brightens from left to right. Three times 64 say in
    which cells something moved in each third of the clip: without them all the clips of a game
    whose background stands still would be the same.

    Args:
        frames: the clip.
        changes: largest change of each pixel from one frame to the next.
    """
    grey = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (GRID + 1, GRID), interpolation=cv2.INTER_AREA).astype(np.int16)
    # A margin: in flat places the sign of a difference is noise.
    bits = [np.diff(small, axis=1) > STILL // 2]
    for third in np.array_split(changes, 3):
        largest = third.max(axis=0, initial=0)
        rows, columns = (np.arange(GRID) * side // GRID for side in largest.shape)
        cells = np.maximum.reduceat(np.maximum.reduceat(largest, rows, axis=0), columns, axis=1)
        bits.append(cells > CHANGE)
    return np.packbits(np.stack(bits)).view(np.uint64)


def _share_outside_longest_scene(frames: UInt8[np.ndarray, "T H W 3"]) -> float:
    starts = 1 + np.flatnonzero(histogram_distances(frames) > CUT)
    scenes = np.diff(starts, prepend=0, append=len(frames))
    return float(1 - scenes.max() / len(frames))


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
