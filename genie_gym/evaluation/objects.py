"""Where ball and paddles are in the frames of a game, real or imagined, by colour and place."""

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from genie_gym.errors import DataError
from genie_gym.evaluation.blobs import SIZE, Objects
from genie_gym.evaluation.objects_breakout import find_in_breakout
from genie_gym.evaluation.objects_pong import find_in_pong
from genie_gym.models.world import World

FINDERS: dict[str, Callable[[UInt8[np.ndarray, "N H W C"]], Objects]] = {
    "Breakout": find_in_breakout,
    "Pong": find_in_pong,
}
"""What finds the objects of each game in a chunk of frames."""

_CHUNK = 512
"""Frames looked at together: 20 MB as float32."""


def find_objects(frames: UInt8[np.ndarray, "N H W C"], game: str) -> Objects:
    """Find ball and paddles, each frame for itself.

    Args:
        frames: 64 x 64 RGB as `RealEnv(game)` or a world of it gives them.
        game: one of `FINDERS`.

    Raises:
        DataError: the objects of the game are not known, or the frames are not uint8 of
            64 x 64 x 3.

    Example:
        >>> find_objects(np.full((2, 64, 64, 3), (144, 72, 17), np.uint8), "Pong").num_balls
        array([0, 0])
    """
    if game not in FINDERS:
        raise DataError(f"objects are found in {sorted(FINDERS)} alone, not in {game!r}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise DataError(
            f"find_objects reads uint8 {game} frames (N, {SIZE}, {SIZE}, 3), "
            f"got {frames.dtype} {frames.shape}. RealEnv({game!r}) makes such frames"
        )
    starts = range(0, max(len(frames), 1), _CHUNK)  # no frames: one empty chunk
    parts = [FINDERS[game](frames[start : start + _CHUNK]) for start in starts]
    return Objects(
        ball_yx=np.concatenate([part.ball_yx for part in parts]),
        num_balls=np.concatenate([part.num_balls for part in parts]),
        paddles={
            name: np.concatenate([part.paddles[name] for part in parts])
            for name in parts[0].paddles
        },
    )


def why_no_objects(world: World) -> str | None:
    """Return why no objects can be found in a world's frames; None if they can."""
    config = world.config
    if config.game in FINDERS and (config.height, config.width) == (SIZE, SIZE):
        return None
    return (
        f"objects are found in {' and '.join(FINDERS)} at {SIZE} x {SIZE} only; this is "
        f"{config.game} at {config.height} x {config.width}"
    )
