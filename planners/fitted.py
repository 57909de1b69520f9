"""What CEM and MPPI for discrete actions share: chances that are fitted to weighted candidates."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from planners.categorical import Categorical, CategoricalConfig, CategoricalPlanner
from planners.errors import PlannerError
from planners.protocol import Model
from planners.search import check_discrete


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedConfig(CategoricalConfig):
    """How fast chances follow the candidates, and how far they may go."""

    num_iterations: int = 4
    """Iterations of a search that has no budget."""
    min_prob: float = 0.02
    """Least chance of each action at each step: one of 0 would never come back."""
    momentum: float = 0.1
    """Share of the old chances in the new ones."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        CategoricalConfig.__post_init__(self)
        if not 0 <= self.momentum <= 1:
            raise PlannerError(f"momentum must lie in [0, 1], got {self.momentum}")
        if not 0 <= self.min_prob <= 1:
            raise PlannerError(f"min_prob must lie in [0, 1], got {self.min_prob}")


FittedConfigT = TypeVar("FittedConfigT", bound=FittedConfig)


class FittedPlanner(CategoricalPlanner[FittedConfigT]):
    """Fits the chances of every step to what scored well.

    One candidate of each iteration is the likeliest plan: what has been learned is also tried.
    """

    @abstractmethod
    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """Return how much each candidate counts, in sum 1."""

    def _check(self, model: Model) -> None:
        super()._check(model)
        num_actions = check_discrete(model, type(self).__name__)
        chosen = num_actions if self.config.actions is None else len(set(self.config.actions))
        if self.config.min_prob * chosen > 1:
            raise PlannerError(
                f"min_prob times the number of actions must be at most 1, got "
                f"{self.config.min_prob} times {chosen}"
            )

    def _draw(self, proposal: Categorical, iteration: int) -> Int[Tensor, "B N T"]:
        plans = super()._draw(proposal, iteration)
        plans[:, -1] = proposal.probs.argmax(-1)
        return plans

    def _refit(
        self, proposal: Categorical, candidates: Int[Tensor, "B N T"], scores: Float[Tensor, "B N"]
    ) -> Categorical:
        config, prior = self.config, proposal.prior
        taken = F.one_hot(candidates, len(prior)).float()
        fitted = torch.einsum("bn, bnta -> bta", self._weights(scores), taken)
        probs = (1 - config.momentum) * fitted + config.momentum * proposal.probs
        floor = config.min_prob * (prior > 0).sum()
        probs = (1 - floor) * probs + floor * prior
        return replace(super()._refit(proposal, candidates, scores), probs=probs)
