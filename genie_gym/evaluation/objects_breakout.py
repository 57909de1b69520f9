"""Breakout's ball and paddle in 64 x 64 frames, real or imagined, by colour and place.

How it works. The field is black, so what a pixel shows beyond the walls is bricks, paddle and ball.
- Bricks: each row of them has its colour, each brick is there or not, and pixels are area averages:
  linear equations for 6 x 18 shares, solved once for all. What is more than 40 % there is a brick
  and subtracted; a ball fills at most a third of one.
- Paddle: the widest thing in row 58, which lies in the paddle to 82 %. Row 57 shows 40 % of it.
- What is left is ball. It is red, but among the bricks it takes on the colour of their row; in
  front of a brick or of the paddle it cannot be seen. Below raw row 195 the game draws none.

Measured on 18,000 steps of the real game (6,000 of random and 12,000 of scripted play, four seeds
each, skip 4, maximum of the last two raw frames) against the emulator's RAM (ball x at 99, ball y
at 101, paddle x at 72: the table of Anand et al. 2019, each the best correlated address with what
is drawn), averaged over both raw frames:
- of 15,257 frames with a ball beside the bricks, 71 show too little of it beside the paddle; of 591
  with a ball among the bricks, 49; of 2,112 without a ball none shows one, and none shows two;
- above the paddle the ball is off by at most 0.30 pixels in x and 0.67 in y (in 98 % of frames 0.16
  and 0.18), beside it by 0.60 and 0.77, among the bricks by 0.90 and 0.66;
- the paddle is off by at most 0.12 pixels in 98 % of frames; where a ball touches it, by 1.8;
- noise of +-8 levels on every value moves ball and paddle by at most 0.33; it makes no ball where
  none is drawn, and hides 2 in 1,000, half balls beside the paddle;
- a Gaussian blur with sigma 0.4 pixels adds none either; one of 0.6 makes balls of the edges of
  broken walls in half of all frames: the frames of a world must be sharper than that;
- 7,600 frames per second of one CPU core.

Source:
    Anand et al. 2019, "Unsupervised state representation learning in Atari", annotated RAM of
    Breakout.
"""

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8

from genie_gym.evaluation.blobs import (
    MIN_PADDLE_PIXEL,
    SIZE,
    Objects,
    centroid,
    find_balls,
)

_RED = (200, 72, 72)
_GREY = (142, 142, 142)
_TEAL = (66, 158, 130)
_BRICK_COLOURS = (
    _RED, (198, 108, 58), (180, 122, 48), (162, 162, 42), (72, 160, 72), (66, 72, 200)
)  # fmt: skip
_RAW_HEIGHT, _RAW_WIDTH = 210, 160
_FIELD_LEFT, _FIELD_RIGHT = 8, 152
"""Raw columns between the walls."""
_BRICKS_TOP, _BRICKS_BOTTOM, _BRICK_HEIGHT, _BRICK_WIDTH = 57, 93, 6, 8
_PADDLE_TOP = 189

_TOP, _BOTTOM = 10, 60
"""Rows of the field, from the upper wall to the last row in which a ball is drawn."""
_BRICK_ROWS = slice(17 - _TOP, 29 - _TOP)
_PADDLE_ROW, _PADDLE_ROWS = 58 - _TOP, slice(56 - _TOP, 60 - _TOP)
"""All counted from `_TOP`."""

_MIN_BRICK = 0.4
"""Smallest share of a brick that is subtracted."""
_MIN_PADDLE = 2.0
"""Pixels of paddle in its row that make one: a whole one has 5.2, of which the wall hides half."""
_REACH = 5
"""Columns from the paddle's middle that may hold it: it moves by up to 5.5 raw pixels a frame."""


def find_in_breakout(frames: UInt8[np.ndarray, "N H W C"]) -> Objects:
    """Find the ball, and the column of the paddle `own`."""
    excess = frames[:, _TOP:_BOTTOM].astype(np.float32) - _EMPTY_FIELD
    excess[:, _BRICK_ROWS] -= _bricks(excess[:, _BRICK_ROWS])
    ball = np.einsum("nywc,yc->nyw", excess, _FROM_COLOUR)
    # A world may blur the walls into the field: alike along a row or column, unlike a ball. In real
    # frames the medians are 0.
    ball -= np.median(ball, axis=2, keepdims=True)
    ball -= np.median(ball, axis=1, keepdims=True)
    paddle = _paddle(ball[:, _PADDLE_ROW])
    ball[:, _PADDLE_ROWS] -= _spread(ball[:, _PADDLE_ROWS], paddle)
    ball_yx, num_balls = find_balls(ball, _TOP)
    own = np.where(paddle > MIN_PADDLE_PIXEL, paddle, np.float32(0))
    return Objects(ball_yx, num_balls, {"own": centroid(own, 0, _MIN_PADDLE)})


def _bricks(excess: Float32[np.ndarray, "N rows W C"]) -> Float32[np.ndarray, "N rows W C"]:
    """Return what the bricks that are there show."""
    seen = rearrange(excess, "N rows W C -> N (rows C) W")
    shares = _ROWS_OF_BRICKS_INVERSE @ seen @ _COLUMNS_OF_BRICKS_INVERSE.T
    there = np.where(shares > _MIN_BRICK, shares, np.float32(0))
    shown = _ROWS_OF_BRICKS @ there @ _COLUMNS_OF_BRICKS.T
    return np.asarray(rearrange(shown, "N (rows C) W -> N rows W C", C=3))


def _paddle(lit: Float32[np.ndarray, "N W"]) -> Float32[np.ndarray, "N W"]:
    """Return how much of each pixel of the paddle's row is paddle, given what is lit there."""
    near = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
    middle = (lit @ (near <= 3).astype(np.float32)).argmax(axis=1)
    return np.where(near[middle] <= _REACH, lit, np.float32(0))


def _spread(
    lit: Float32[np.ndarray, "N rows W"], paddle: Float32[np.ndarray, "N W"]
) -> Float32[np.ndarray, "N rows W"]:
    """Return what the paddle shows in the rows around its own, however sharp it is.

    The median of a row over the paddle's five fullest columns is paddle, for a ball is narrower.
    """
    fullest = np.argsort(paddle, axis=1)[:, -5:]
    heights = np.median(np.take_along_axis(lit, fullest[:, None], axis=2), axis=2)
    own = np.median(np.take_along_axis(paddle, fullest, axis=1), axis=1, keepdims=True)
    shape = paddle / np.maximum(own, MIN_PADDLE_PIXEL)
    return np.asarray(heights[:, :, None] * shape[:, None])


def _overlap(
    size: int, raw_size: int, first: int, last: int, step: int
) -> Float32[np.ndarray, "pixels pieces"]:
    """Return how much of each of an axis' pixels every piece of [first, last) fills."""
    edges = np.arange(size + 1)[:, None] * raw_size / size
    starts = np.arange(first, last, step)
    filled = np.minimum(edges[1:], starts + step) - np.maximum(edges[:-1], starts)
    return (filled.clip(0) * size / raw_size).astype(np.float32)


def _empty_field() -> Float32[np.ndarray, "rows W C"]:
    raw = np.zeros((_RAW_HEIGHT, _RAW_WIDTH, 3), np.float32)
    raw[17:_PADDLE_TOP] = _GREY
    raw[32:, _FIELD_LEFT:_FIELD_RIGHT] = 0
    raw[_PADDLE_TOP : _PADDLE_TOP + 7, :_FIELD_LEFT] = _TEAL
    raw[_PADDLE_TOP : _PADDLE_TOP + 6, _FIELD_RIGHT:] = _RED
    small = cv2.resize(raw, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return np.asarray(small[_TOP:_BOTTOM], np.float32)


def _ball_weights() -> Float32[np.ndarray, "rows C"]:
    """Return what turns a pixel of each row into its share of ball."""
    colour = np.tile(np.asarray(_RED, np.float32), (_BOTTOM - _TOP, 1))
    filled = _BRICK_SHARE.sum(axis=1, keepdims=True)
    colour = colour * (1 - filled) + _BRICK_SHARE @ np.asarray(_BRICK_COLOURS, np.float32)
    return np.asarray(colour / np.square(colour).sum(axis=1, keepdims=True))


_EMPTY_FIELD = _empty_field()
_BRICK_SHARE = _overlap(SIZE, _RAW_HEIGHT, _BRICKS_TOP, _BRICKS_BOTTOM, _BRICK_HEIGHT)[_TOP:_BOTTOM]
_FROM_COLOUR = _ball_weights()
_ROWS_OF_BRICKS = rearrange(
    _BRICK_SHARE[_BRICK_ROWS, :, None] * np.asarray(_BRICK_COLOURS, np.float32),
    "rows bricks C -> (rows C) bricks",
)
_COLUMNS_OF_BRICKS = _overlap(SIZE, _RAW_WIDTH, _FIELD_LEFT, _FIELD_RIGHT, _BRICK_WIDTH)
_ROWS_OF_BRICKS_INVERSE = np.linalg.pinv(_ROWS_OF_BRICKS)
_COLUMNS_OF_BRICKS_INVERSE = np.linalg.pinv(_COLUMNS_OF_BRICKS)
