"""A hand-drawn Pong, dark strokes on light paper, becomes a frame of the world.

Strokes are told from the paper around them, so shadows on a photographed sheet do not matter. A
tall stroke at each side is a paddle and what is left is the ball; lines across the sheet are walls,
which say where the court lies. The three are drawn as the game draws them into the empty court, and
the world's tokenizer takes the nearest of its patches: the frame holds what the world knows.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from genie_gym.data.batch import to_float, to_uint8
from genie_gym.envs.pong_court import (
    FIELD,
    OPPONENT_COLUMNS,
    OWN_COLUMNS,
    SCREEN_HEIGHT,
    draw_pong,
)
from genie_gym.errors import PromptError
from genie_gym.models.world import World

SKETCHED_GAMES = ("Pong",)
"""Games whose drawings can be read."""

SIDE = 256
"""Longer side of the picture that strokes are looked for in."""
INK, PAPER = 0.7, 0.88
"""What is darker than this share of the paper around it is ink; what is brighter is bare paper."""
MIN_BARE, MAX_INK, MIN_INK = 0.8, 0.2, 0.0003
"""Shares of a sketch: at least so much bare paper, and ink between these."""
MIN_BRIGHTNESS, MAX_COLOUR = 110, 30
"""Of bare paper, and of a sketch's pixels (how far apart their channels lie, on average)."""
JOINED = 0.015
"""Strokes nearer than this share of `SIDE` are one: pencils leave gaps."""
WIDE, TALL = 0.5, 0.6
"""Shares of the sheet from which on a stroke is a wall, or a line that means nothing (a net)."""
SIDES = 0.35
"""A paddle's middle lies within this share of the sheet from its edge."""
SLENDER = 1.2
"""A paddle is at least so many times as high as wide."""
NUDGES = tuple(itertools.product((0, -1, 1, -2, 2), (0, -1, 1)))
"""Places of the ball, rows and columns of the screen from where it was drawn, that are tried."""
NET = 4
"""So many strokes in one column are a dashed net."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """The box around a stroke, in shares of the sheet."""

    y: float
    """Its middle, from the top."""
    x: float
    """Its middle, from the left."""
    height: float
    width: float

    @property
    def size(self) -> float:
        """The longer side."""
        return max(self.height, self.width)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a sketch of Pong shows, in shares of the sheet."""

    ball: Stroke
    own: Stroke
    opponent: Stroke
    top: float | None
    """Row of the upper wall, if one is drawn."""
    bottom: float | None
    """Row of the lower wall, if one is drawn."""


def is_sketch(picture: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Return whether a picture shows dark strokes, without colour, on light and bare paper."""
    grey = _shrunk(picture)
    brightness = _beside_paper(grey)
    is_bare = (brightness > PAPER) & (grey >= MIN_BRIGHTNESS)
    step = math.ceil(max(picture.shape) / SIDE)
    sample = picture[::step, ::step]
    colour = (sample.max(axis=2) - sample.min(axis=2)).mean()
    ink = (brightness < INK).mean()
    return bool(is_bare.mean() >= MIN_BARE and MIN_INK <= ink <= MAX_INK and colour <= MAX_COLOUR)


@torch.inference_mode()
def sketch_frame(
    picture: UInt8[np.ndarray, "H W 3"], world: World
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the frame of the world that a hand-drawn Pong shows, in patches of its tokenizer.

    The sheet is the screen: what is drawn halfway down is halfway down. Where walls are drawn they
    are the game's walls, and what is drawn beyond the field of the screen is moved into it. The
    ball lies between the paddles as it was drawn between them.

    Raises:
        PromptError: a paddle or the ball is missing, several things may be the ball, or the world
            is of a game whose drawings cannot be read.
    """
    if world.config.game not in SKETCHED_GAMES:
        raise PromptError(
            f"sketches can be read for {', '.join(SKETCHED_GAMES)} alone, not for "
            f"{world.config.game}. Hand over a picture of the game, and no --sketch"
        )
    (y, x), own, opponent = _on_screen(read_pong(picture))
    court = _empty_court(world)
    drawn = np.stack([draw_pong(court, (y + dy, x + dx), own, opponent) for dy, dx in NUDGES])
    tokenizer = world.stack.tokenizer
    frames = to_float(torch.from_numpy(drawn).to(world.device))[:, None]
    shown = tokenizer.decode(tokenizer.encode(frames))
    # A ball between two that the vocabulary knows may come out faint, or not at all.
    best = (shown - frames).square().sum(dim=(1, 2, 3, 4)).argmin()
    frame: np.ndarray = to_uint8(shown[best, 0]).cpu().numpy()
    return frame


def read_pong(picture: UInt8[np.ndarray, "H W 3"]) -> Drawing:
    """Return where a hand-drawn Pong has its ball, its paddles and its walls.

    Raises:
        PromptError: a paddle or the ball is missing, or several things may be the ball.
    """
    strokes = _strokes(_beside_paper(_shrunk(picture)) < INK)
    top = bottom = None
    for wall in (stroke for stroke in strokes if stroke.width >= WIDE):
        if wall.height >= WIDE:  # a frame around the court
            top, bottom = wall.y - wall.height / 2, wall.y + wall.height / 2
        elif wall.y < 0.5:
            top = wall.y
        else:
            bottom = wall.y
    things = [
        stroke
        for stroke in strokes
        if stroke.width < WIDE
        and stroke.height < TALL
        and (top or 0) < stroke.y < (bottom or 1)  # beyond the walls stands the score
    ]
    paddles = [thing for thing in things if thing.height >= SLENDER * thing.width]
    opponent = max((one for one in paddles if one.x < SIDES), key=_height, default=None)
    own = max((one for one in paddles if one.x > 1 - SIDES), key=_height, default=None)
    if opponent is None or own is None:
        side = "left" if opponent is None else "right"
        raise _unread(f"shows no paddle at its {side}, a stroke that is higher than wide")
    left = [one for one in things if one not in (own, opponent)]
    left = [one for one in left if sum(abs(one.x - other.x) < 0.03 for other in left) < NET]
    ball = max(left, key=lambda one: one.size, default=None)
    if ball is None:
        raise _unread("shows no ball beside the two paddles")
    balls = [one for one in left if one.size >= ball.size / 2]
    if len(balls) > 1:
        raise _unread(f"shows {len(balls)} things that may be the ball")
    return Drawing(ball, own, opponent, top, bottom)


def _unread(what: str) -> PromptError:
    return PromptError(
        f"the sketch {what}. Draw a paddle at each side and one ball, none touching another; or "
        "take the picture as it is, with sketch=False (--no-sketch)"
    )


def _height(stroke: Stroke) -> float:
    return stroke.height


def _shrunk(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "rows columns"]:
    """Return a picture in grey, small enough to look for strokes in."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    step = math.ceil(max(grey.shape) / SIDE)
    # The darkest pixel of each block: an average would lose thin strokes.
    for axis in (0, 1):
        grey = np.minimum.reduceat(grey, np.arange(0, grey.shape[axis], step), axis=axis)
    return np.asarray(grey, np.uint8)


def _beside_paper(grey: UInt8[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Return how bright each pixel is beside the paper around it, in [0, 1]."""
    reach = max(3, max(grey.shape) // 5)
    paper = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    return grey / np.maximum(paper, 1).astype(np.float64)


def _strokes(ink: Bool[np.ndarray, "rows columns"]) -> list[Stroke]:
    rows, columns = ink.shape
    reach = 1 + 2 * round(JOINED * max(rows, columns) / 2)
    joined: Any = cv2.dilate(ink.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    strokes = []
    for left, top, width, height, _ in boxes[1:].tolist():
        # The joining widened it, though not beyond the sheet.
        right, bottom = min(left + width, columns), min(top + height, rows)
        strokes.append(
            Stroke(
                y=(top + bottom) / 2 / rows,
                x=(left + right) / 2 / columns,
                height=max(1, height - reach + 1) / rows,
                width=max(1, width - reach + 1) / columns,
            )
        )
    return strokes


def _on_screen(drawing: Drawing) -> tuple[tuple[float, float], float, float]:
    """Return where ball and paddles lie on the console's screen."""
    rows = [one.y for one in (drawing.ball, drawing.own, drawing.opponent)]
    first, last = (row / SCREEN_HEIGHT for row in FIELD)
    top = min(first, *rows) if drawing.top is None else drawing.top
    bottom = max(last, *rows) if drawing.bottom is None else drawing.bottom
    own, opponent = (
        float(np.interp(one.y, (top, bottom), FIELD)) for one in (drawing.own, drawing.opponent)
    )
    middles = [sum(columns) / 2 for columns in (OPPONENT_COLUMNS, OWN_COLUMNS)]
    drawn = drawing.opponent.x, drawing.own.x
    # Far enough from walls and paddles that a nudge hides nothing of the ball.
    x = np.clip(np.interp(drawing.ball.x, drawn, middles), middles[0] + 4, middles[1] - 4)
    y = np.clip(np.interp(drawing.ball.y, (top, bottom), FIELD), FIELD[0] + 4, FIELD[1] - 4)
    return (float(y), float(x)), own, opponent


def _empty_court(world: World) -> UInt8[np.ndarray, "H W 3"]:
    """Return the court without ball and paddles, below the score of the first start."""
    frames = to_uint8(world.stack.tokenizer.decode(world.starts.tokens[:, -1:]))[:, 0].cpu()
    court: np.ndarray = frames.median(dim=0).values.numpy()
    above = FIELD[0] * len(court) // SCREEN_HEIGHT
    court[:above] = frames[0, :above].numpy()
    return court
