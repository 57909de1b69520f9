"""The imagined world as a model that a planner can roll out."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
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

    Args:
        world: a trained world with a reward model.
        state: the roots.
        generator: draws tokens; without one the likeliest are taken.
        num_maskgit_steps: refinement steps a frame; planning gets by with few.
    """

    def __init__(
        self,
        world: World,
        state: WorldState,
        *,
        generator: torch.Generator | None = None,
        num_maskgit_steps: int | None = None,
    ) -> None:
        self.num_actions = world.num_actions
        self._world = world
        self._state = state
        self._generator = generator
        self._num_maskgit_steps = num_maskgit_steps

    def snapshot(self) -> WorldState:
        """Return the roots."""
        return self._state

    def rollout(self, state: WorldState, actions: Int[Tensor, "B N T"]) -> WorldRollout:
        """Return what each plan earns, in expectation, and whether the game goes on."""
        num_plans = actions.shape[1]
        state = state.expand(num_plans)
        rewards, continuations = [], []
        for step_actions in rearrange(actions, "B N T -> T (B N)"):
            state, reward, terminated_prob = self._world.step(
                state,
                step_actions,
                self._generator,
                num_maskgit_steps=self._num_maskgit_steps,
            )
            rewards.append(reward)
            continuations.append(1 - terminated_prob)
        per_plan = "T (B N) -> B N T"
        return WorldRollout(
            rearrange(torch.stack(rewards), per_plan, N=num_plans),
            rearrange(torch.stack(continuations), per_plan, N=num_plans),
            state,
        )
