"""iCEM: the cross-entropy method for action vectors, with few samples."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from planners.gaussian import GaussianConfig, GaussianPlanner
from planners.scoring import elite_weights
from planners.search import check_num_elites


@dataclass(frozen=True, kw_only=True, slots=True)
class ICEMConfig(GaussianConfig):
    """How choosy it is."""

    num_elites: int = 8
    """Best candidates that mean and spread are fitted to."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        GaussianConfig.__post_init__(self)
        check_num_elites(self.num_elites, self.num_samples)


class ICEM(GaussianPlanner[ICEMConfig]):
    """Fits mean and spread of every step to the best candidates, over and over.

    Source:
        Pinneri et al. 2020, "Sample-efficient Cross-Entropy Method for Real-time Planning". Ours:
        the number of samples stays the same in all iterations, and the mean is tried in all of
        them. Its categorical counterpart is `CEM`.
    """

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        return elite_weights(scores, self.config.num_elites)
