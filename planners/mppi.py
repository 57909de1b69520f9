"""MPPI: every candidate counts, by how well it scored; for vectors and for discrete actions."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from planners.errors import PlannerError
from planners.fitted import FittedConfig, FittedPlanner
from planners.gaussian import GaussianConfig, GaussianPlanner
from planners.scoring import softmax_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class MPPIConfig(GaussianConfig):
    """How choosy it is."""

    temperature: float = 0.1
    """Difference of score that makes a candidate count e times as much."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        GaussianConfig.__post_init__(self)
        _check_temperature(self.temperature)


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoricalMPPIConfig(FittedConfig):
    """How choosy it is."""

    temperature: float = 0.1
    """Difference of score that makes a candidate count e times as much."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        FittedConfig.__post_init__(self)
        _check_temperature(self.temperature)


class MPPI(GaussianPlanner[MPPIConfig]):
    """Fits mean and spread of every step to all candidates, weighted by score.

    Source:
        Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning",
        whose spread is fixed; it is fitted as in TD-MPC (Hansen et al. 2022, section 3).
    """

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        return softmax_weights(scores, self.config.temperature)


class CategoricalMPPI(FittedPlanner[CategoricalMPPIConfig]):
    """Fits the chances of every step to all candidates, weighted by score.

    Source:
        As `MPPI`; the categorical steps are ours.
    """

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        return softmax_weights(scores, self.config.temperature)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise PlannerError(f"temperature must be above 0, got {temperature}")
