"""The loop that all planners over whole plans share: propose, roll out, keep the best."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from planners.errors import PlannerError
from planners.protocol import Actions, Model
from planners.scoring import score


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """How far a planner looks, and how much it may try."""

    horizon: int = 12
    """Steps of a plan."""
    num_samples: int = 64
    """Plans a root that are scored side by side in one iteration."""
    num_iterations: int = 1
    """Iterations of a search that has no budget."""
    discount: float = 0.99
    """Weight of a reward one step later."""
    budget_frames: int | None = None
    """Model frames a root that may be imagined; iterations go on until they are used up."""
    budget_ms: float | None = None
    """Milliseconds after which no further iteration is begun; one is always made."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("horizon", "num_samples", "num_iterations"):
            if getattr(self, name) < 1:
                raise PlannerError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.discount <= 1:
            raise PlannerError(f"discount must lie in (0, 1], got {self.discount}")
        if self.budget_frames is not None and self.budget_frames < self.horizon:
            raise PlannerError(
                f"budget_frames must hold at least one plan of horizon={self.horizon} steps, got "
                f"{self.budget_frames}. Raise it to {self.horizon} or more, or plan less far"
            )
        if self.budget_ms is not None and not 0 < self.budget_ms < math.inf:
            raise PlannerError(
                f"budget_ms must be a finite number above 0, got {self.budget_ms}. For no limit "
                "leave it out"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """The best plan that was seen for each root, and what finding it took."""

    actions: Int[Tensor, "B T"] | Float[Tensor, "B T dims"]
    score: Float[Tensor, " B"]
    num_rejected: Int[Tensor, " B"]
    """Candidates whose score was not finite; they lose."""
    num_iterations: int
    num_frames: int
    """Model frames a root that were asked for."""
    milliseconds: float
    proposal: Any
    """Where the search stood at its end; `advance` makes it the warm start of the next one."""


class Meter:
    """Counts what a search uses, and says how many candidates its next iteration may have."""

    def __init__(self, config: SearchConfig) -> None:
        """Start the clock."""
        self._config = config
        self._begin = self._last = time.perf_counter()
        self._longest = 0.0
        self.num_iterations = 0
        self.num_frames = 0

    @property
    def milliseconds(self) -> float:
        """Time since the search began."""
        return 1000 * (time.perf_counter() - self._begin)

    def count(self, num_frames: int) -> None:
        """Note an iteration."""
        self.num_iterations += 1
        self.num_frames += num_frames
        now = time.perf_counter()
        self._longest, self._last = max(self._longest, 1000 * (now - self._last)), now

    def num_affordable(self) -> int:
        """Return how many candidates the next iteration may have; 0 ends the search."""
        config, limit = self._config, self._config.num_samples
        if config.budget_frames is not None:
            num_left = max(config.budget_frames - self.num_frames, 0)
            limit = min(limit, num_left // config.horizon)
        elif config.budget_ms is None and self.num_iterations == config.num_iterations:
            return 0
        # An iteration that would end too late is not begun.
        budget_ms, is_begun = config.budget_ms, self.num_iterations > 0
        if budget_ms is not None and is_begun and self.milliseconds + self._longest > budget_ms:
            return 0
        return limit


@dataclass(frozen=True, slots=True)
class Best:
    """The best candidate of each root so far."""

    actions: Int[Tensor, "B T"] | Float[Tensor, "B T dims"]
    score: Float[Tensor, " B"]
    num_rejected: Int[Tensor, " B"]

    @staticmethod
    def of(
        candidates: Actions, scores: Float[Tensor, "B N"], num_rejected: Int[Tensor, " B"]
    ) -> "Best":
        """Take the best of some candidates; of equals the first."""
        best, place = scores.max(dim=1)
        return Best(candidates[torch.arange(len(place)), place], best, num_rejected)

    def or_better(self, other: "Best") -> "Best":
        """Return, for each root, the better of the two; of equals the older."""
        is_better = other.score > self.score
        mask = is_better.view(-1, *[1] * (self.actions.dim() - 1))
        return Best(
            torch.where(mask, other.actions, self.actions),
            torch.where(is_better, other.score, self.score),
            self.num_rejected + other.num_rejected,
        )


def shift(plans: Shaped[Tensor, "..."], num_steps: int, *, dim: int) -> Shaped[Tensor, "..."]:
    """Return plans without their first steps; the last one is repeated instead."""
    length = plans.shape[dim]
    return plans.index_select(dim, (torch.arange(length) + num_steps).clamp(max=length - 1))


@runtime_checkable
class Proposal(Protocol):
    """What a search knows about where good plans lie."""

    def advance(self, is_first: Bool[Tensor, " B"], num_steps: int = 1) -> Any:
        """Return it so many steps later; rows whose game is new begin anew."""


ConfigT = TypeVar("ConfigT", bound=SearchConfig)
ProposalT = TypeVar("ProposalT", bound=Proposal)


class SequencePlanner(ABC, Generic[ConfigT, ProposalT]):
    """Plans by scoring whole plans in a model; what is executed is the best plan ever seen.

    All roots share their random numbers. They are problems apart, so nothing is lost, and a batch
    of roots is planned for exactly as each of them alone.
    """

    def __init__(self, config: ConfigT, *, generator: torch.Generator) -> None:
        """Take the settings and the generator that draws candidates."""
        self.config = config
        self.generator = generator

    def plan(self, model: Model, warm_start: ProposalT | None = None) -> Plan:
        """Return the best plan that was found for each root; the model's game is not moved.

        Args:
            model: what to plan in.
            warm_start: the proposal of an earlier plan, advanced by the steps taken since.

        Raises:
            PlannerError: the model lacks what the planner needs.
        """
        self._check(model)
        meter, state = Meter(self.config), model.snapshot()
        proposal = self._begin(model, state, warm_start)
        meter.num_frames += self._num_frames_to_begin(model)
        best: Best | None = None
        while limit := meter.num_affordable():
            candidates = self._draw(proposal, meter.num_iterations)
            if candidates is None:
                break
            candidates = candidates[:, :limit]
            rollout = model.rollout(state, candidates)
            scores = score(rollout, self.config.discount, model.value)
            is_finite = scores.isfinite()
            scores = scores.masked_fill(~is_finite, -torch.inf)
            found = Best.of(candidates, scores, (~is_finite).sum(dim=1))
            best = found if best is None else best.or_better(found)
            proposal = self._refit(proposal, candidates, scores)
            meter.count(candidates.shape[1] * candidates.shape[2])

        if best is None:
            raise PlannerError(
                f"the policy's {self._num_frames_to_begin(model)} frames leave nothing of "
                f"budget_frames={self.config.budget_frames} to score a plan with: raise it, or let "
                "the policy propose less"
            )
        best = self._choose(proposal, best)
        return Plan(
            best.actions,
            best.score,
            best.num_rejected,
            num_iterations=meter.num_iterations,
            num_frames=meter.num_frames,
            milliseconds=meter.milliseconds,
            proposal=proposal,
        )

    @abstractmethod
    def _check(self, model: Model) -> None:
        """Refuse a model that lacks what the planner needs."""

    @abstractmethod
    def _begin(self, model: Model, state: Any, warm_start: ProposalT | None) -> ProposalT:
        """Return where the search begins."""

    @abstractmethod
    def _draw(self, proposal: ProposalT, iteration: int) -> Actions | None:
        """Return the candidates of an iteration; None if there are no more."""

    @abstractmethod
    def _refit(
        self, proposal: ProposalT, candidates: Actions, scores: Float[Tensor, "B N"]
    ) -> ProposalT:
        """Return what has been learned; broken candidates have a score of minus infinity."""

    def _num_frames_to_begin(self, model: Model) -> int:
        return 0

    def _choose(self, proposal: ProposalT, best: Best) -> Best:
        return best


def check_discrete(model: Model, name: str) -> int:
    """Return the number of actions of a discrete model.

    Raises:
        PlannerError: its actions are vectors.
    """
    if model.num_actions is None:
        raise PlannerError(
            f"{name} plans discrete actions, and this model's are vectors (num_actions is None). "
            "Plan with ICEM or MPPI, or give the model a discrete action set"
        )
    return model.num_actions


def check_box(model: Model, name: str) -> Float[Tensor, "two dims"]:
    """Return the bounds of a model whose actions are vectors.

    Raises:
        PlannerError: its actions are discrete, or a bound is infinite or no lower than the other.
    """
    if model.action_bounds is None:
        raise PlannerError(
            f"{name} plans action vectors, and this model's actions are discrete (action_bounds "
            "is None). Plan with CEM or CategoricalMPPI, or give the model bounds"
        )
    low, high = model.action_bounds
    if not (model.action_bounds.isfinite().all() and (low < high).all()):
        raise PlannerError(
            f"action_bounds must be finite, and each lower bound below its upper one, got "
            f"{low.tolist()} and {high.tolist()}. Give the model the range to draw actions from"
        )
    return model.action_bounds


def check_actions(actions: tuple[int, ...] | None, num_actions: int) -> None:
    """Check that the actions to plan with are some of the model's.

    Raises:
        PlannerError: there is none, or one of them is not.
    """
    if actions is not None and not (actions and all(0 <= a < num_actions for a in actions)):
        raise PlannerError(
            f"actions must name some of the model's {num_actions}, in [0, {num_actions}), got "
            f"{list(actions)}. None takes all"
        )


def check_num_elites(num_elites: int, num_samples: int) -> None:
    """Check that there are elites, and no more than candidates.

    Raises:
        PlannerError: it is not so.
    """
    if not 1 <= num_elites <= num_samples:
        raise PlannerError(
            f"num_elites must lie in [1, num_samples={num_samples}], got {num_elites}"
        )
