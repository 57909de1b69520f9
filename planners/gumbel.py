"""Gumbel root search: which first action is best, by sequential halving over few simulations."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from planners.categorical import draw_sticky, policy_plans, uniform_over
from planners.errors import PlannerError
from planners.protocol import Model
from planners.search import (
    Best,
    SearchConfig,
    SequencePlanner,
    check_actions,
    check_discrete,
    shift,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GumbelConfig(SearchConfig):
    """Simulations a phase (`num_samples`), phases (`num_iterations`), and what they are made of."""

    num_iterations: int = 3
    """Phases of a search without a budget; after each, half the first actions are dropped until
    two are left."""
    actions: tuple[int, ...] | None = None
    """Actions that plans are made of; None takes all of the model's."""
    num_considered: int = 16
    """First actions that are looked at, at most; drawn by the policy's chances where there are
    more."""
    repeat_prob: float = 0.7
    """Chance that a step after the first repeats the action before it."""
    visit_offset: float = 50.0
    """Weight of values against chances before the first visit (`c_visit` in the paper)."""
    value_scale: float = 0.1
    """Weight of values against chances (`c_scale` in the paper)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        SearchConfig.__post_init__(self)
        if self.num_considered < 1:
            raise PlannerError(f"num_considered must be at least 1, got {self.num_considered}")
        if not 0 <= self.repeat_prob <= 1:
            raise PlannerError(f"repeat_prob must lie in [0, 1], got {self.repeat_prob}")
        if not (0 <= self.visit_offset < math.inf and 0 <= self.value_scale < math.inf):
            raise PlannerError(
                "visit_offset and value_scale must be finite numbers of at least 0, got "
                f"{self.visit_offset} and {self.value_scale}"
            )


@dataclass(frozen=True, slots=True)
class Arms:
    """What is known of each first action."""

    prior: Float[Tensor, " actions"]
    """Chances of drawn steps: uniform over the actions that may be used."""
    logits: Float[Tensor, "B actions"]
    """Gumbel noise and the log of the policy's chances; minus infinity where it may not be used."""
    considered: Int[Tensor, "B open"]
    """First actions that are still in the race, the leading one first."""
    openings: Int[Tensor, "B actions T"]
    """Plan of each one's first simulation."""
    num_visits: Int[Tensor, "B actions"]
    value: Float[Tensor, "B actions"]
    """Score of the best simulation so far; minus infinity before the first."""
    plan: Int[Tensor, "B actions T"]
    """That simulation."""
    remainder: Int[Tensor, "B T"]
    """What is left of the plan that was followed, the winner's of the search before."""
    has_remainder: Bool[Tensor, " B"]

    def advance(self, is_first: Bool[Tensor, " B"], num_steps: int = 1) -> "Arms":
        """Return it so many steps later: what is left of the winner's plan is all that is known."""
        followed = self.plan[torch.arange(len(self.plan)), self.considered[:, 0]]
        remainder = shift(followed, num_steps, dim=1)
        return replace(self, remainder=remainder, has_remainder=~is_first)


class GumbelSearch(SequencePlanner[GumbelConfig, Arms]):
    """Finds the best first action; what follows it is drawn.

    Source:
        Danihelka et al. 2022, "Policy improvement by planning with Gumbel", sections 3.2 to 3.4.
        Ours: there is no tree. A simulation is a whole plan, whose later steps stick, or for the
        first simulation of each action come from the model's policy or from the plan before; and
        an action is worth its best simulation, not the mean, which would say how badly drawn play
        goes on from there.
    """

    def _check(self, model: Model) -> None:
        check_actions(self.config.actions, check_discrete(model, "GumbelSearch"))

    def _begin(self, model: Model, state: Any, warm_start: Arms | None) -> Arms:
        config, num_actions = self.config, check_discrete(model, "GumbelSearch")
        prior = uniform_over(config.actions, num_actions)
        shape = (model.num_roots, num_actions)
        chances = torch.ones(shape) if model.policy is None else model.policy(state).float().cpu()
        # The same noise serves every root.
        uniform = torch.rand(num_actions, generator=self.generator)
        logits = chances.log() - (-uniform.log()).log()
        logits = logits.masked_fill(prior == 0, -torch.inf)
        num_considered = min(config.num_considered, int((prior > 0).sum()))

        first = torch.arange(num_actions)
        if model.policy is None:
            openings = self._draw_plans(first.expand(shape), prior)
        else:
            openings = policy_plans(
                model, state, num_actions, config.horizon, self.generator, first
            )
        remainder = torch.zeros_like(openings[:, 0])
        has_remainder = torch.zeros(model.num_roots, dtype=torch.bool)
        if warm_start is not None:
            remainder, has_remainder = warm_start.remainder, warm_start.has_remainder
        is_opening = has_remainder[:, None] & (first == remainder[:, :1])
        return Arms(
            prior=prior,
            logits=logits,
            considered=logits.topk(num_considered, dim=1).indices,
            openings=torch.where(is_opening[..., None], remainder[:, None], openings),
            num_visits=torch.zeros(shape, dtype=torch.int64),
            value=torch.full(shape, -torch.inf),
            plan=openings,
            remainder=remainder,
            has_remainder=has_remainder,
        )

    def _num_frames_to_begin(self, model: Model) -> int:
        if model.policy is None:
            return 0
        return check_discrete(model, "GumbelSearch") * (self.config.horizon - 1)

    def _draw(self, arms: Arms, iteration: int) -> Int[Tensor, "B N T"]:
        num_open = arms.considered.shape[1]
        turns = torch.arange(self.config.num_samples) % num_open
        plans = self._draw_plans(arms.considered[:, turns], arms.prior)
        if iteration == 0:
            openings = arms.openings[torch.arange(len(plans))[:, None], arms.considered]
            num_openings = min(num_open, plans.shape[1])
            plans[:, :num_openings] = openings[:, :num_openings]
        return plans

    def _draw_plans(
        self, first: Int[Tensor, "B N"], prior: Float[Tensor, " actions"]
    ) -> Int[Tensor, "B N T"]:
        probs = repeat(prior, "a -> B T a", B=len(first), T=self.config.horizon)
        plans = draw_sticky(probs, first.shape[1], self.config.repeat_prob, self.generator, first)
        return plans

    def _refit(
        self, arms: Arms, candidates: Int[Tensor, "B N T"], scores: Float[Tensor, "B N"]
    ) -> Arms:
        num_actions = arms.value.shape[1]
        is_taken = F.one_hot(candidates[..., 0], num_actions).bool().mT
        per_action = torch.where(is_taken, scores[:, None], -torch.inf)
        value, place = per_action.max(-1)
        plan = candidates.take_along_dim(place[..., None], dim=1)
        is_better = value > arms.value
        arms = replace(
            arms,
            num_visits=arms.num_visits + is_taken.sum(-1),
            value=torch.where(is_better, value, arms.value),
            plan=torch.where(is_better[..., None], plan, arms.plan),
        )
        num_open = arms.considered.shape[1]
        num_left = max(min(2, num_open), num_open // 2)
        order = self._ranking(arms).topk(num_left, dim=1).indices
        return replace(arms, considered=arms.considered.gather(1, order))

    def _ranking(self, arms: Arms) -> Float[Tensor, "B open"]:
        """Return noise, log-chance and transformed value of the actions still in the race.

        Source:
            Danihelka et al. 2022, equation 8; values are rescaled to [0, 1] over the actions that
            have one, as in their code.
        """
        is_known = arms.value.isfinite()
        low = arms.value.masked_fill(~is_known, torch.inf).amin(1, keepdim=True)
        high = arms.value.masked_fill(~is_known, -torch.inf).amax(1, keepdim=True)
        scaled = (arms.value - low) / (high - low).clamp(min=1e-8)
        num_visits = arms.num_visits.amax(1, keepdim=True)
        weight = (self.config.visit_offset + num_visits) * self.config.value_scale
        ranking = torch.where(is_known, arms.logits + weight * scaled, -torch.inf)
        return ranking.gather(1, arms.considered)

    def _choose(self, arms: Arms, best: Best) -> Best:
        """Take the best plan of the winner, which need not be the best of all."""
        rows, winner = torch.arange(len(arms.value)), arms.considered[:, 0]
        return replace(best, actions=arms.plan[rows, winner], score=arms.value[rows, winner])
