"""Exhaustive search over macro-actions: every plan there is, in order."""

from dataclasses import dataclass
from typing import Any

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from planners.errors import PlannerError
from planners.protocol import Model
from planners.search import SearchConfig, SequencePlanner, check_actions, check_discrete

MAX_PLANS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ExhaustiveConfig(SearchConfig):
    """What plans are made of; all of them are tried, `num_samples` at a time."""

    num_iterations: int = MAX_PLANS
    """Iterations of a search that has no budget; by default enough for every plan."""

    actions: tuple[int, ...] | None = None
    """Actions that plans are made of; None takes all of the model's."""
    macro_length: int = 4
    """Steps that each action is held; the last one of a plan may be cut short."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        SearchConfig.__post_init__(self)
        if self.macro_length < 1:
            raise PlannerError(f"macro_length must be at least 1, got {self.macro_length}")


@dataclass(frozen=True, slots=True)
class Enumeration:
    """Every plan."""

    plans: Int[Tensor, "B plans T"]

    def advance(self, is_first: Bool[Tensor, " B"], num_steps: int = 1) -> "Enumeration":
        """Return the same plans: nothing is learned."""
        return self


class Exhaustive(SequencePlanner[ExhaustiveConfig, Enumeration]):
    """Plans by scoring every plan of held actions: the optimum of small problems."""

    def _check(self, model: Model) -> None:
        check_actions(self.config.actions, check_discrete(model, "Exhaustive"))

    def _begin(self, model: Model, state: Any, warm_start: Enumeration | None) -> Enumeration:
        if warm_start is not None:
            return warm_start
        config = self.config
        choices = config.actions or tuple(range(check_discrete(model, "Exhaustive")))
        num_macros = -(-config.horizon // config.macro_length)
        if len(choices) ** num_macros > MAX_PLANS:
            raise PlannerError(
                f"exhaustive search would try {len(choices)}^{num_macros} plans, more than "
                f"{MAX_PLANS:,}: lower horizon, raise macro_length, name fewer actions, or take CEM"
            )
        macros = torch.cartesian_prod(*[torch.tensor(choices)] * num_macros)
        plans = macros.view(-1, num_macros).repeat_interleave(config.macro_length, dim=1)[
            :, : config.horizon
        ]
        return Enumeration(repeat(plans, "plans T -> B plans T", B=model.num_roots))

    def _draw(self, proposal: Enumeration, iteration: int) -> Int[Tensor, "B N T"] | None:
        size = self.config.num_samples
        chunk = proposal.plans[:, iteration * size : (iteration + 1) * size]
        return chunk if chunk.shape[1] else None

    def _refit(
        self, proposal: Enumeration, candidates: Int[Tensor, "B N T"], scores: Float[Tensor, "B N"]
    ) -> Enumeration:
        return proposal
