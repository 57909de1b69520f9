"""A planner that acts: it plans anew every few steps, from where the last plan left off."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Shaped

from planners.errors import PlannerError
from planners.protocol import Model
from planners.search import Plan, SequencePlanner

Observer = Callable[
    [
        Shaped[np.ndarray, "B ..."],
        Shaped[np.ndarray, "B ..."] | None,
        Bool[np.ndarray, " B"],
    ],
    Model,
]
"""Turns the newest observations, the actions that led to them (None in the first step of all
games) and which games have just begun into a model whose roots are the games as they stand."""


class Memory(NamedTuple):
    """What an agent hands from one step to the next."""

    actions: Shaped[np.ndarray, "B ..."]
    plan: Plan
    num_played: int
    """Steps of the plan that have been played."""


class MPCAgent:
    """Model-predictive control with the interface of a Stable-Baselines3 policy.

    Args:
        planner: any planner of this package.
        observe: gives the model of the present; it may follow the games itself.
        obs_shape: shape of one game's observation; `predict` takes one game or a batch of them.
        replan_every: steps of a plan that are played before the next is made; a game that begins
            has all replanned.

    Raises:
        PlannerError: `replan_every` is not a number of steps of the planner's plans.
    """

    def __init__(
        self,
        planner: SequencePlanner[Any, Any],
        observe: Observer,
        *,
        obs_shape: tuple[int, ...],
        replan_every: int = 1,
    ) -> None:
        if not 1 <= replan_every <= planner.config.horizon:
            raise PlannerError(
                f"replan_every must lie in [1, {planner.config.horizon}], the steps of a plan, got "
                f"{replan_every}"
            )
        self.planner = planner
        self.observe = observe
        self.obs_shape = obs_shape
        self.replan_every = replan_every

    def predict(
        self,
        obs: Shaped[np.ndarray, "..."],
        state: Memory | None = None,
        episode_start: Bool[np.ndarray, " B"] | None = None,
        deterministic: bool = True,
    ) -> tuple[Shaped[np.ndarray, "..."], Memory]:
        """Return the next action of the best plan, made now if it is due, and the memory.

        Args:
            obs: one observation, or a batch of them.
            state: what the call before returned; None begins anew.
            episode_start: which games have just begun; none by default, but for a new `state`.
            deterministic: taken for Stable-Baselines3's sake; the best plan is followed always.

        Raises:
            PlannerError: a game has no plan with a finite score, or the model lacks what the
                planner needs.
        """
        is_single = obs.shape == self.obs_shape
        batch = obs[None] if is_single else obs
        if state is None:
            is_first = np.ones(len(batch), np.bool_)
        elif episode_start is None:
            is_first = np.zeros(len(batch), np.bool_)
        else:
            is_first = np.array(episode_start, np.bool_)  # a copy: callers change theirs in place
        model = self.observe(batch, None if state is None else state.actions, is_first)
        if state is None or is_first.any() or state.num_played == self.replan_every:
            plan, num_played = self._plan(model, state, is_first), 0
        else:
            plan, num_played = state.plan, state.num_played
        actions = plan.actions[:, num_played].numpy()
        memory = Memory(actions, plan, num_played + 1)
        return np.array(actions[0]) if is_single else actions, memory

    def _plan(self, model: Model, state: Memory | None, is_first: Bool[np.ndarray, " B"]) -> Plan:
        is_new = torch.from_numpy(is_first)
        warm_start = state and state.plan.proposal.advance(is_new, state.num_played)
        plan = self.planner.plan(model, warm_start)
        if not plan.score.isfinite().all():
            broken = (~plan.score.isfinite()).nonzero()[:, 0]
            raise PlannerError(
                f"no plan of games {broken.tolist()} has a finite score (candidates rejected: "
                f"{plan.num_rejected[broken].tolist()}): the model's rewards, continuations or "
                "values are NaN or infinite. Check its weights and its value function"
            )
        return plan
