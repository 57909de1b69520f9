"""What Pong's screen looks like: colours and places, and drawing its ball and paddles anew."""

import numpy as np
from jaxtyping import Float, UInt8

BACKGROUND = (144, 72, 17)
WHITE = (236, 236, 236)
GREEN = (92, 186, 92)
ORANGE = (213, 130, 74)

SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160
"""Of the console's screen; all places below are on it."""
FIELD = (34, 194)
"""First row of the field between the walls, and the row after its last."""
OPPONENT_COLUMNS, OWN_COLUMNS = (16, 20), (140, 144)
"""First column of each paddle, and the column after its last."""
PADDLE_HEIGHT = 16
BALL_SIZE = (4, 2)
"""Height and width."""


def draw_pong(
    court: UInt8[np.ndarray, "H W 3"],
    ball_yx: tuple[float, float],
    own: float,
    opponent: float,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a frame of the game, shrunk by area as recordings are.

    Args:
        court: a frame without ball and paddles, of any size.
        ball_yx: centre of the ball, on the screen; this and the paddles show in the field alone.
        own: row of the right paddle's centre.
        opponent: row of the left paddle's centre.
    """
    frame = court.astype(np.float64)
    half = PADDLE_HEIGHT / 2
    (y, x), (height, width) = ball_yx, BALL_SIZE
    things = (
        (opponent - half, opponent + half, *OPPONENT_COLUMNS, ORANGE),
        (own - half, own + half, *OWN_COLUMNS, GREEN),
        (y - height / 2, y + height / 2, x - width / 2, x + width / 2, WHITE),
    )
    for top, bottom, left, right, colour in things:
        # The console draws whole pixels, and its walls cover what reaches into them.
        first, last = (min(max(round(row), FIELD[0]), FIELD[1]) for row in (top, bottom))
        rows = share_covered(first, last, SCREEN_HEIGHT, court.shape[0])
        columns = share_covered(round(left), round(right), SCREEN_WIDTH, court.shape[1])
        share = (rows[:, None] * columns)[..., None]
        frame += share * (np.asarray(colour) - frame)
    return frame.round().astype(np.uint8)


def share_covered(begin: int, end: int, screen: int, size: int) -> Float[np.ndarray, " pixels"]:
    """Return how much of each pixel lies between two places, on a screen shrunk to a size."""
    edges = np.arange(size + 1) * screen / size
    return np.asarray(np.diff(np.clip(edges, begin, end)) * size / screen)
