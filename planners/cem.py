"""The cross-entropy method for discrete actions."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from planners.fitted import FittedConfig, FittedPlanner
from planners.scoring import elite_weights
from planners.search import check_num_elites


@dataclass(frozen=True, kw_only=True, slots=True)
class CEMConfig(FittedConfig):
    """How choosy it is."""

    num_elites: int = 8
    """Best candidates that the chances are fitted to."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        FittedConfig.__post_init__(self)
        check_num_elites(self.num_elites, self.num_samples)


class CEM(FittedPlanner[CEMConfig]):
    """Fits the chances of every step to the best candidates, over and over.

    Source:
        Rubinstein 1999, "The Cross-Entropy Method for Combinatorial and Continuous Optimization".
        Ours: sticky plans, a floor under the chances, and ties that count alike.
    """

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        return elite_weights(scores, self.config.num_elites)
