"""The imagined world as a model that a planner can roll out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from genie_gym.models.state import WorldState
from genie_gym.models.world import World


class WorldRollout(NamedTuple):
    """What N candidate plans of T steps lead to, from B roots."""

    expected_reward: Float[Tensor, "B N T"]
    continuation: Float[Tensor, "B N T"]
    state: WorldState
    """States at the ends, candidates of one root side by side."""


class WorldModel:
    """A world from some states on; rolling out decodes no pixels and moves nothing.

    Frames take their likeliest tokens: nothing is drawn, so each root is rolled out as if alone.

    Args:
        world: a trained world with a reward model.
        state: the roots.
        num_maskgit_steps: refinement steps a frame; planning gets by with few.
        policy: chances of the actions in each state, which planners may draw candidates from.
        value: what is still to be earned in each state, which planners add to the end of a plan.
    """

    action_bounds = None

    def __init__(
        self,
        world: World,
        state: WorldState,
        *,
        num_maskgit_steps: int | None = None,
        policy: Callable[[WorldState], Float[Tensor, "rows actions"]] | None = None,
        value: Callable[[WorldState], Float[Tensor, " rows"]] | None = None,
    ) -> None:
        self.num_roots = len(state.tokens)
        self.num_actions = world.num_actions
        self.policy = policy
        self.value = value
        self._world = world
        self._state = state
        self._num_maskgit_steps = num_maskgit_steps

    def snapshot(self) -> WorldState:
        """Return the roots."""
        return self._state

    def rollout(self, state: WorldState, actions: Int[Tensor, "B N T"]) -> WorldRollout:
        """Return what each plan earns, in expectation, and whether the game goes on.

        Plans that begin alike share these frames, which are imagined once.
        """
        num_roots, num_plans, _ = actions.shape
        place = torch.arange(num_roots).repeat_interleave(num_plans)
        rewards, continuations = [], []
        for step_actions in rearrange(actions, "B N T -> T (B N)"):
            branches, place = (place * self.num_actions + step_actions).unique(return_inverse=True)
            parents = branches // self.num_actions
            # Copying the caches costs a fifth of a step: not where every branch goes its own way.
            if not torch.equal(parents, torch.arange(len(state.tokens))):
                state = state.gather(parents)
            state, reward, continuation = self.step(state, branches % self.num_actions)
            rewards.append(reward[place])
            continuations.append(continuation[place])
        per_plan = "T (B N) -> B N T"
        return WorldRollout(
            rearrange(torch.stack(rewards), per_plan, N=num_plans),
            rearrange(torch.stack(continuations), per_plan, N=num_plans),
            state.gather(place),
        )

    def step(
        self, state: WorldState, actions: Int[Tensor, " rows"]
    ) -> tuple[WorldState, Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Return the next states, the expected rewards, and the chances that the games go on."""
        state, reward, terminated_prob = self._world.step(
            state, actions, num_maskgit_steps=self._num_maskgit_steps
        )
        return state, reward, 1 - terminated_prob


class WorldFollower:
    """Follows games that are played elsewhere: gives the world's model of where they stand.

    Args:
        world: a trained world with a reward model.
        options: those of `WorldModel`.
    """

    def __init__(self, world: World, **options: Any) -> None:
        self._world = world
        self._options = options
        self._state: WorldState | None = None

    def __call__(
        self,
        obs: UInt8[np.ndarray, "B H W C"],
        actions: Int64[np.ndarray, " B"] | None,
        is_first: Bool[np.ndarray, " B"],
    ) -> WorldModel:
        """Take the newest frames, and return the model of the games as they stand.

        Args:
            obs: newest frame of every game, of the world's size.
            actions: what led to it; None in the first step of all games.
            is_first: which games have just begun.

        Raises:
            WorldError: the frames are not of the world's size.
        """
        frames = torch.tensor(obs)
        if self._state is None or actions is None:
            state = self._begin(frames)
        else:
            state = self._world.observe(self._state, torch.tensor(actions), frames)
            if is_first.any():
                is_new = torch.tensor(is_first, device=self._world.device)
                state = state.where(is_new, self._begin(frames))
        self._state = state
        return WorldModel(self._world, state, **self._options)

    def _begin(self, frames: UInt8[Tensor, "B H W C"]) -> WorldState:
        no_actions = torch.zeros(len(frames), 0, dtype=torch.int64)
        return self._world.encode(frames[:, None], no_actions)
