"""What the hand-written players share: the console's screen, and where a thing is on it."""

import numpy as np
from jaxtyping import Float32

# The console's own pixels: players measure everything in them, at any frame size.
SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160
LEAST_LIGHT = 30
"""Sum of weights below which there is nothing to see."""


def crop(start: int, end: int, size: int, console_size: int) -> tuple[int, int]:
    """Return the pixels of a shrunk axis that lie wholly inside [start, end) of the console."""
    return -(-start * size // console_size), end * size // console_size


def centre(
    weight: Float32[np.ndarray, "rows columns"], top: int, left: int, height: int, width: int
) -> tuple[float, float] | None:
    """Return the weighted centre (x, y) in console pixels; None if nothing is there.

    Args:
        weight: how much of the thing each pixel of a part of the frame shows.
        top: row of the frame where the part begins.
        left: column of the frame where the part begins.
        height: rows of the whole frame.
        width: columns of the whole frame.
    """
    total = weight.sum()
    if total < LEAST_LIGHT:
        return None
    rows, columns = top + np.arange(weight.shape[0]), left + np.arange(weight.shape[1])
    y = (weight.sum(1) @ rows / total + 0.5) * SCREEN_HEIGHT / height
    x = (weight.sum(0) @ columns / total + 0.5) * SCREEN_WIDTH / width
    return float(x), float(y)


def fold(place: float, low: int | float, high: int | float) -> float:
    """Fold a straight path back into [low, high], as walls would."""
    span = high - low
    return low + span - abs((place - low) % (2 * span) - span)
