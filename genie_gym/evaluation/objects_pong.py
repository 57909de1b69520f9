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

import numpy as np
from jaxtyping import Float32, UInt8

from genie_gym.envs.pong_court import (
    BACKGROUND,
    FIELD,
    GREEN,
    ORANGE,
    SCREEN_HEIGHT,
    WHITE,
    share_covered,
)
from genie_gym.evaluation.blobs import (
    MIN_PADDLE_PIXEL,
    SIZE,
    Objects,
    centroid,
    find_balls,
    unmix,
)

_TOP, _BOTTOM = 10, 60
"""Rows of the field; row 10 is 36 % wall and row 59 is 88 % wall, the rest is free."""

_OWN_COLUMNS = slice(56, 58)
_OPPONENT_COLUMNS = slice(6, 8)
"""Raw columns 140-143 and 16-19: one small column whole, its neighbour to 60 %."""

_FREE_COLUMNS = slice(8, 56)
"""Columns between the paddles."""

_MIN_PADDLE = 1.0
"""Pixels of paddle that make one; a whole one has 7.8, one half off the field down to 1.6."""


def find_in_pong(frames: UInt8[np.ndarray, "N H W C"]) -> Objects:
    """Find the ball, and the rows of the paddles `own` (right, green) and `opponent` (orange)."""
    excess = frames[:, _TOP:_BOTTOM].astype(np.float32) - _EMPTY_FIELD
    own, opponent = excess[:, :, _OWN_COLUMNS], excess[:, :, _OPPONENT_COLUMNS]
    ball = excess @ _FROM_FIELD[0]
    ball[:, :, _OWN_COLUMNS] = own @ _FROM_OWN[0]
    ball[:, :, _OPPONENT_COLUMNS] = opponent @ _FROM_OPPONENT[0]
    # A world may blur a wall into the field or shift the background: alike along the row, unlike a
    # ball. In real frames the median is 0.
    ball -= np.median(ball[:, :, _FREE_COLUMNS], axis=2, keepdims=True)
    ball_yx, num_balls = find_balls(ball, _TOP)
    paddles = {"own": own @ _FROM_OWN[1], "opponent": opponent @ _FROM_OPPONENT[1]}
    return Objects(ball_yx, num_balls, {name: _row(share) for name, share in paddles.items()})


def _row(share: Float32[np.ndarray, "N rows columns"]) -> Float32[np.ndarray, " N"]:
    per_row = np.where(share > MIN_PADDLE_PIXEL, share, 0).sum(axis=2)
    return centroid(per_row, _TOP, _MIN_PADDLE)


def _empty_field() -> Float32[np.ndarray, "rows 1 C"]:
    wall = 1 - share_covered(*FIELD, SCREEN_HEIGHT, SIZE)[_TOP:_BOTTOM, None, None]
    background = np.asarray(BACKGROUND, np.float32)
    return (background + wall * (np.asarray(WHITE) - background)).astype(np.float32)


_EMPTY_FIELD = _empty_field()
_FROM_FIELD = unmix(BACKGROUND, [WHITE], channels=(0, 1, 2))
_FROM_OPPONENT = unmix(BACKGROUND, [WHITE, ORANGE], channels=(0, 1, 2))
# The maximum of two raw frames lifts the red of a moving green paddle to the background's 144.
_FROM_OWN = unmix(BACKGROUND, [WHITE, GREEN], channels=(1, 2))
