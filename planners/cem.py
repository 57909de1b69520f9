"""The cross-entropy method for discrete actions."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.fitted import FittedConfig, FittedPlanner
from planners.scoring import elite_weights
from planners.search import check_num_elites


@dataclass(frozen=True, kw_only=True, slots=True)
class CEMConfig(FittedConfig):
    """How choosy it is."""

    num_elites: int = 8
    """Best candidates that the chances are fitted to."""
    tie_width: float = 0.0
    """Difference of scores up to which a candidate ties with the last elite, and is one too. A
    learned reward is never quite 0: without it, chances follow the reward model's noise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        FittedConfig.__post_init__(self)
        if not 0 <= self.tie_width < math.inf:
            raise PlannerError(f"tie_width must be 0 or more, and finite, got {self.tie_width}")
        check_num_elites(self.num_elites, self.num_samples)


class CEM(FittedPlanner[CEMConfig]):
    """Fits the chances of every step to the best candidates, over and over.

    Source:
        Rubinstein 1999, "The Cross-Entropy Method for Combinatorial and Continuous Optimization".
        Ours: sticky plans, a floor under the chances, and ties that count alike.
    """

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        return elite_weights(scores, self.config.num_elites, self.config.tie_width)
