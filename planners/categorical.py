"""Plans of discrete actions: one categorical distribution a step, and actions that stick."""

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from planners.errors import PlannerError
from planners.protocol import Model, StateLike
from planners.scoring import best_plans
from planners.search import (
    SearchConfig,
    SequencePlanner,
    check_actions,
    check_discrete,
    shift,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoricalConfig(SearchConfig):
    """How plans of discrete actions are drawn, and what of a search is kept."""

    actions: tuple[int, ...] | None = None
    """Actions that plans are made of; None takes all of the model's."""
    repeat_prob: float = 0.7
    """Chance that a step repeats the action before it: plans that jitter go nowhere."""
    num_kept: int = 4
    """Best plans that go on into the next iteration, and into the next search."""
    num_policy_samples: int = 0
    """Candidates of a search's first iteration that the model's policy acts out."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        SearchConfig.__post_init__(self)
        if not 0 <= self.repeat_prob <= 1:
            raise PlannerError(f"repeat_prob must lie in [0, 1], got {self.repeat_prob}")
        if self.num_kept < 0 or self.num_policy_samples < 0:
            raise PlannerError(
                "num_kept and num_policy_samples must be at least 0, got "
                f"{self.num_kept} and {self.num_policy_samples}"
            )
        if self.num_kept + self.num_policy_samples >= self.num_samples:
            raise PlannerError(
                f"num_samples must exceed num_kept + num_policy_samples, got {self.num_samples}, "
                f"{self.num_kept} and {self.num_policy_samples}"
            )


@dataclass(frozen=True, slots=True)
class Categorical:
    """Chances of every action at every step, and the best plans so far."""

    prior: Float[Tensor, " actions"]
    """Chances before anything is known: uniform over the actions that may be used."""
    probs: Float[Tensor, "B T actions"]
    kept: Int[Tensor, "B kept T"]
    has_kept: Bool[Tensor, " B"]
    """Whether the root has kept plans; if not, `kept` means nothing there."""
    seeds: Int[Tensor, "B seeds T"]
    """Plans of the policy, for the next iteration alone."""

    def advance(self, is_first: Bool[Tensor, " B"], num_steps: int = 1) -> "Categorical":
        """Return it so many steps later: what was to come now comes first.

        The new last steps are as likely as before anything was known; kept plans hold on to their
        last action.
        """
        is_new, has_kept = is_first[:, None, None], self.has_kept & ~is_first
        later = shift(self.probs, num_steps, dim=1)
        later[:, -num_steps:] = self.prior
        probs = torch.where(is_new, self.prior, later)
        kept = shift(self.kept, num_steps, dim=2)
        return replace(self, probs=probs, kept=kept, has_kept=has_kept)


CategoricalConfigT = TypeVar("CategoricalConfigT", bound=CategoricalConfig)


class CategoricalPlanner(
    SequencePlanner[CategoricalConfigT, Categorical], Generic[CategoricalConfigT]
):
    """Draws sticky plans from step-wise chances, and remembers the best of them.

    Source:
        Sticky actions are the categorical counterpart of coloured noise, and kept plans that of
        kept elites, in iCEM (Pinneri et al. 2020, "Sample-efficient Cross-Entropy Method for
        Real-time Planning", sections 3.1 and 3.2). Policy plans are TD-MPC's (Hansen et al. 2022).
    """

    def _check(self, model: Model) -> None:
        config = self.config
        check_actions(config.actions, check_discrete(model, type(self).__name__))
        if config.num_policy_samples and model.policy is None:
            raise PlannerError(
                f"num_policy_samples is {config.num_policy_samples}, but the model has no policy. "
                "Give it one, or set num_policy_samples to 0"
            )

    def _begin(self, model: Model, state: Any, warm_start: Categorical | None) -> Categorical:
        proposal = self._prior(model) if warm_start is None else warm_start
        if self.config.num_policy_samples:
            seeds = policy_plans(
                model, state, self.config.num_policy_samples, self.config.horizon, self.generator
            )
            proposal = replace(proposal, seeds=seeds)
        return proposal

    def _num_frames_to_begin(self, model: Model) -> int:
        return self.config.num_policy_samples * (self.config.horizon - 1)

    def _prior(self, model: Model) -> Categorical:
        num_roots, horizon = model.num_roots, self.config.horizon
        prior = uniform_over(self.config.actions, check_discrete(model, type(self).__name__))
        return Categorical(
            prior=prior,
            probs=repeat(prior, "actions -> B T actions", B=num_roots, T=horizon),
            kept=torch.zeros(num_roots, self.config.num_kept, horizon, dtype=torch.int64),
            has_kept=torch.zeros(num_roots, dtype=torch.bool),
            seeds=torch.zeros(num_roots, 0, horizon, dtype=torch.int64),
        )

    def _draw(self, proposal: Categorical, iteration: int) -> Int[Tensor, "B N T"]:
        config = self.config
        plans = draw_sticky(proposal.probs, config.num_samples, config.repeat_prob, self.generator)
        has_kept = proposal.has_kept[:, None, None]
        num_kept, num_seeds = config.num_kept, proposal.seeds.shape[1]
        plans[:, :num_kept] = torch.where(has_kept, proposal.kept, plans[:, :num_kept])
        plans[:, num_kept : num_kept + num_seeds] = proposal.seeds
        return plans

    def _refit(
        self, proposal: Categorical, candidates: Int[Tensor, "B N T"], scores: Float[Tensor, "B N"]
    ) -> Categorical:
        proposal, num_kept = replace(proposal, seeds=proposal.seeds[:, :0]), self.config.num_kept
        if candidates.shape[1] < num_kept:
            return proposal
        kept = best_plans(candidates, scores, num_kept)
        return replace(proposal, kept=kept, has_kept=torch.ones_like(proposal.has_kept))


def uniform_over(actions: tuple[int, ...] | None, num_actions: int) -> Float[Tensor, " actions"]:
    """Return equal chances of the named actions, or of all."""
    allowed = torch.zeros(num_actions)
    allowed[list(actions or range(num_actions))] = 1
    return allowed / allowed.sum()


def draw_sticky(
    probs: Float[Tensor, "B T actions"],
    num_plans: int,
    repeat_prob: float,
    generator: torch.Generator,
    first: Int[Tensor, "B N"] | None = None,
) -> Int[Tensor, "B N T"]:
    """Return plans whose steps are drawn from `probs`, or repeat the step before.

    The same random numbers serve every root. `first` gives the first steps, where they are known.
    """
    shape = (num_plans, probs.shape[1])
    fresh = draw_actions(
        rearrange(probs, "B T a -> B 1 T a"), torch.rand(shape, generator=generator)
    )
    if first is not None:
        fresh[..., 0] = first
    is_repeat = torch.rand(shape, generator=generator) < repeat_prob
    is_repeat[:, 0] = False
    # The index of the last fresh draw at or before each step.
    steps = torch.arange(shape[1]).expand(shape).masked_fill(is_repeat, 0).cummax(-1).values
    return fresh.gather(-1, steps.expand_as(fresh))


def draw_actions(
    probs: Float[Tensor, "*places actions"], draws: Float[Tensor, "..."]
) -> Int[Tensor, "..."]:
    """Return the action in whose share of [0, 1) each number falls."""
    shares = probs.cumsum(-1)
    # Rounding must not leave a gap below 1, where the first action of no chance would lie.
    return (draws[..., None] >= shares / shares[..., -1:]).sum(-1)


def policy_plans(
    model: Model,
    state: StateLike,
    num_plans: int,
    horizon: int,
    generator: torch.Generator,
    first: Int[Tensor, " N"] | None = None,
) -> Int[Tensor, "B N T"]:
    """Return plans in which the model's policy acts, each step drawn from its chances.

    `first` gives the first steps, where they are known.
    """
    assert model.policy is not None
    state = state.expand(num_plans)
    actions: list[Int[Tensor, " rows"]] = []
    for step, draws in enumerate(torch.rand(horizon, num_plans, generator=generator)):
        if step > 0:  # where the last action leads is not asked
            state, _, _ = model.step(state, actions[-1])
        if step == 0 and first is not None:
            actions.append(first.repeat(model.num_roots))
        else:
            chances = model.policy(state).float().cpu()
            actions.append(draw_actions(chances, draws.repeat(model.num_roots)))
    return rearrange(torch.stack(actions), "T (B N) -> B N T", N=num_plans)
