"""What the finders of all games share: from shares of colour in pixels to balls and paddles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

SIZE = 64
"""Side of the frames that are looked at."""

MIN_BALL_PIXEL = 0.15
"""Smallest share of ball that counts; noise of 8 levels moves a share by at most 0.12 in Pong."""

MIN_BALL = 0.5
"""Pixels of ball that make one: half a ball."""

MIN_PADDLE_PIXEL = 0.3
"""Smallest share of paddle that counts; noise of 8 levels moves a share by at most 0.27 in Pong."""

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Objects:
    """Where things are in N frames; pixel centres lie at whole numbers, row 0 at the top."""

    ball_yx: Float32[np.ndarray, "N 2"]
    """Row and column of the largest ball's centroid; NaN where there is none."""

    num_balls: Int[np.ndarray, " N"]
    """Balls in the frame; two closer than three pixels count as one."""

    paddles: Mapping[str, Float32[np.ndarray, " N"]]
    """Each paddle's centroid along the way it moves, in pixels; NaN where there is none."""

    @property
    def ball_seen(self) -> Bool[np.ndarray, " N"]:
        """Whether there is at least one ball."""
        return np.asarray(self.num_balls > 0)


def find_balls(
    share: Float32[np.ndarray, "N rows W"], top: int
) -> tuple[Float32[np.ndarray, "N 2"], Int[np.ndarray, " N"]]:
    """Return the largest ball's centroid and the number of balls.

    Args:
        share: how much of each pixel is ball.
        top: row of the frame where these rows begin.
    """
    num_frames = len(share)
    frame, row, column = np.nonzero(share > MIN_BALL_PIXEL)
    label = _label(share > MIN_BALL_PIXEL)[frame, row, column]
    weight = share[frame, row, column]
    mass = np.bincount(label, weight)
    frame_of = np.zeros(len(mass), np.int64)
    frame_of[label] = frame

    by_mass = np.argsort(mass, kind="stable")
    by_mass = by_mass[mass[by_mass] >= MIN_BALL]
    centroids = np.full((num_frames, 2), np.nan, np.float32)
    # A frame named twice keeps what is written last: its largest ball.
    for axis, position in enumerate((row + top, column)):
        moment = np.bincount(label, weight * position)
        centroids[frame_of[by_mass], axis] = moment[by_mass] / mass[by_mass]
    return centroids, np.bincount(frame_of[by_mass], minlength=num_frames)


def _label(mask: Bool[np.ndarray, "N rows W"]) -> Int[np.ndarray, "N rows W"]:
    """Number the blobs of all frames through; pixels at most two apart are in one blob."""
    # One call for all frames, stacked with gaps that the widening below cannot bridge.
    gap = 3
    stacked = np.pad(mask.astype(np.uint8), ((0, 0), (0, gap), (0, 0)))
    num_frames, height, width = stacked.shape
    if num_frames == 0:
        return np.zeros(mask.shape, np.int32)
    widened = cv2.dilate(stacked.reshape(-1, width), np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(widened, connectivity=8)
    return np.asarray(labels).reshape(num_frames, height, width)[:, :-gap]


def centroid(
    share: Float32[np.ndarray, "N places"], first: int, least: float
) -> Float32[np.ndarray, " N"]:
    """Return the weighted place of what lies along a line; NaN where there is less than `least`.

    Args:
        share: how much of the thing there is at each place; summed across the line.
        first: the first of these places.
        least: pixels that make one.
    """
    total = share.sum(axis=1)
    places = np.arange(first, first + share.shape[1], dtype=np.float32)
    place = share @ places / np.maximum(total, least)
    return np.where(total >= least, place, np.float32("nan"))


def unmix(
    background: Colour, colours: Sequence[Colour], channels: Sequence[int]
) -> Float32[np.ndarray, "colours C"]:
    """Return the weights that turn a pixel's difference from the background into colour shares."""
    differences = np.asarray(colours, np.float64) - background
    weights = np.zeros((len(colours), 3), np.float32)
    weights[:, channels] = np.linalg.pinv(differences[:, channels].T)
    return weights
