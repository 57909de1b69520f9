"""A hand-written Freeway player: it crosses the road and looks at nothing."""

import numpy as np
from jaxtyping import UInt8

UP = 1


class FreewayPlayer:
    """Goes up all the time; a car that hits the chicken only pushes it back.

    Mean real return of the 2 whole games in 4,100 steps: 21.50, measured by
    `genie-gym collect Freeway --out out/scripted --policy scripted --steps 4100 --seed 0`.
    """

    description = "scripted"

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; nothing is drawn."""

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return UP."""
        return UP
