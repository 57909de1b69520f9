"""Pong's ball and paddles in 64 x 64 frames, real or imagined, by colour and place.

How it works. A pixel of the small frame is the area average of 2.5 x 3.28 pixels of the big one, so
its colour is a mixture of few known colours, and the share of each follows from linear equations:
- between the paddles: background and ball; one unknown, three channels, least squares;
- in a paddle's two columns: background, ball and that paddle; the ball shows in front of a paddle.
Walls are subtracted from rows 10 to 59, the field; what is left of the ball is grouped into blobs.

Measured on 6,000 random steps of the real game (four seeds, skip 4, maximum of the last two raw
frames) against the emulator's RAM, averaged over both raw frames:
- a frame with a ball holds between 0.36 and 1.96 pixels of it in all (a whole one is 0.98, the
  maximum of two raw frames shows up to two), a frame without one 0.00; in 4 of the 6,000 frames
  less than half a ball showed at an edge of the field and was not counted;
- the ball is off by at most 0.30 pixels in x and 0.74 in y (where a wall cuts it; in 98 % of frames
  at most 0.30), the own paddle by 0.50, the opponent's by 0.32;
- noise of +-8 levels on every value adds at most 0.34 to the ball's error, and no ball;
- a Gaussian blur with sigma 0.4 pixels loses no ball, 0.6 loses 0.3 %, 1.0 all; none adds one;
- 12,000 to 18,000 frames per second of one CPU core.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from genie_gym.errors import DataError

_SIZE = 64
_BACKGROUND = (144, 72, 17)
_WHITE = (236, 236, 236)
_GREEN = (92, 186, 92)
_ORANGE = (213, 130, 74)

_TOP, _BOTTOM = 10, 60
"""Rows of the field; row 10 is 36 % wall and row 59 is 88 % wall, the rest is free."""

_OWN_COLUMNS = slice(56, 58)
_OPPONENT_COLUMNS = slice(6, 8)
"""Raw columns 140-143 and 16-19: one small column whole, its neighbour to 60 %."""

_FREE_COLUMNS = slice(8, 56)
"""Columns between the paddles."""

_MIN_BALL_PIXEL = 0.15
"""Smallest share of ball that counts; noise of 8 levels moves a share by at most 0.12."""

_MIN_BALL = 0.5
"""Pixels of ball that make one: half a ball."""

_MIN_PADDLE_PIXEL = 0.3
"""Smallest share of paddle that counts; noise of 8 levels moves a share by at most 0.27."""

_MIN_PADDLE = 1.0
"""Pixels of paddle that make one; a whole one has 7.8, one half off the field down to 1.6."""

_CHUNK = 512
"""Frames looked at together: 20 MB as float32."""


@dataclass(frozen=True, slots=True)
class PongObjects:
    """Where things are in N frames; pixel centres lie at whole numbers, row 0 at the top."""

    ball_yx: Float32[np.ndarray, "N 2"]
    """Row and column of the largest ball's centroid; NaN where there is none."""

    ball_seen: Bool[np.ndarray, " N"]
    """Whether there is at least one ball."""

    num_balls: Int[np.ndarray, " N"]
    """Balls in the frame; two closer than three pixels count as one."""

    own_paddle_y: Float32[np.ndarray, " N"]
    """Row of the right, green paddle's centroid; NaN where there is none."""

    opponent_paddle_y: Float32[np.ndarray, " N"]
    """Row of the left, orange paddle's centroid; NaN where there is none."""


def find_objects(frames: UInt8[np.ndarray, "N H W C"]) -> PongObjects:
    """Find ball and paddles in Pong frames, each frame for itself.

    Args:
        frames: 64 x 64 RGB as `RealEnv("Pong")` or a world of it gives them.

    Raises:
        DataError: the frames are not uint8 of 64 x 64 x 3.

    Example:
        >>> find_objects(np.full((2, 64, 64, 3), (144, 72, 17), np.uint8)).num_balls
        array([0, 0])
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (_SIZE, _SIZE, 3):
        raise DataError(
            f"find_objects reads uint8 Pong frames (N, {_SIZE}, {_SIZE}, 3), "
            f"got {frames.dtype} {frames.shape}. RealEnv('Pong') makes such frames"
        )
    starts = range(0, max(len(frames), 1), _CHUNK)  # no frames: one empty chunk
    parts = [_find(frames[start : start + _CHUNK]) for start in starts]
    return PongObjects(
        ball_yx=np.concatenate([part.ball_yx for part in parts]),
        ball_seen=np.concatenate([part.ball_seen for part in parts]),
        num_balls=np.concatenate([part.num_balls for part in parts]),
        own_paddle_y=np.concatenate([part.own_paddle_y for part in parts]),
        opponent_paddle_y=np.concatenate([part.opponent_paddle_y for part in parts]),
    )


def _find(frames: UInt8[np.ndarray, "N H W C"]) -> PongObjects:
    excess = frames[:, _TOP:_BOTTOM].astype(np.float32) - _EMPTY_FIELD
    own, opponent = excess[:, :, _OWN_COLUMNS], excess[:, :, _OPPONENT_COLUMNS]
    ball = excess @ _FROM_FIELD[0]
    ball[:, :, _OWN_COLUMNS] = own @ _FROM_OWN[0]
    ball[:, :, _OPPONENT_COLUMNS] = opponent @ _FROM_OPPONENT[0]
    # A world may blur a wall into the field or shift the background: alike along the row, unlike a
    # ball. In real frames the median is 0.
    ball -= np.median(ball[:, :, _FREE_COLUMNS], axis=2, keepdims=True)
    ball_yx, num_balls = _balls(ball)
    return PongObjects(
        ball_yx=ball_yx,
        ball_seen=num_balls > 0,
        num_balls=num_balls,
        own_paddle_y=_paddle_row(own @ _FROM_OWN[1]),
        opponent_paddle_y=_paddle_row(opponent @ _FROM_OPPONENT[1]),
    )


def _balls(
    share: Float32[np.ndarray, "N rows W"],
) -> tuple[Float32[np.ndarray, "N 2"], Int[np.ndarray, " N"]]:
    """Return the largest ball's centroid and the number of balls, from each pixel's ball share."""
    num_frames = len(share)
    frame, row, column = np.nonzero(share > _MIN_BALL_PIXEL)
    label = _label(share > _MIN_BALL_PIXEL)[frame, row, column]
    weight = share[frame, row, column]
    mass = np.bincount(label, weight)
    frame_of = np.zeros(len(mass), np.int64)
    frame_of[label] = frame

    by_mass = np.argsort(mass, kind="stable")
    by_mass = by_mass[mass[by_mass] >= _MIN_BALL]
    centroids = np.full((num_frames, 2), np.nan, np.float32)
    # A frame named twice keeps what is written last: its largest ball.
    for axis, position in enumerate((row + _TOP, column)):
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


def _paddle_row(share: Float32[np.ndarray, "N rows columns"]) -> Float32[np.ndarray, " N"]:
    per_row = np.where(share > _MIN_PADDLE_PIXEL, share, 0).sum(axis=2)
    total = per_row.sum(axis=1)
    moment = per_row @ np.arange(_TOP, _BOTTOM, dtype=np.float32)
    row = moment / np.maximum(total, _MIN_PADDLE)
    return np.where(total >= _MIN_PADDLE, row, np.float32("nan"))


def _unmix(
    colours: Sequence[tuple[int, int, int]], channels: Sequence[int]
) -> Float32[np.ndarray, "colours C"]:
    """Return the weights that turn a pixel's difference from the background into colour shares."""
    differences = np.asarray(colours, np.float64) - _BACKGROUND
    weights = np.zeros((len(colours), 3), np.float32)
    weights[:, channels] = np.linalg.pinv(differences[:, channels].T)
    return weights


def _empty_field() -> Float32[np.ndarray, "rows 1 C"]:
    edges = np.arange(_SIZE + 1) * 210 / _SIZE
    in_play = np.clip(edges[1:], 34, 194) - np.clip(edges[:-1], 34, 194)
    wall = 1 - in_play[_TOP:_BOTTOM, None, None] * _SIZE / 210
    background = np.asarray(_BACKGROUND, np.float32)
    return (background + wall * (np.asarray(_WHITE) - background)).astype(np.float32)


_EMPTY_FIELD = _empty_field()
_FROM_FIELD = _unmix([_WHITE], channels=(0, 1, 2))
_FROM_OPPONENT = _unmix([_WHITE, _ORANGE], channels=(0, 1, 2))
# The maximum of two raw frames lifts the red of a moving green paddle to the background's 144.
_FROM_OWN = _unmix([_WHITE, _GREEN], channels=(1, 2))
