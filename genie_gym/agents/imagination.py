"""Games of a world on tokens alone: an agent that reads tokens needs no pixels to learn."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genie_gym.agents.checkpoint import slots_content, slots_state
from genie_gym.envs.slots import Slots, WorldEnvConfig, to_starts

Tokens = Int[Tensor, "B K S"]
"""Tokens of the newest K frames of every game, oldest first."""


class Step(NamedTuple):
    """What one step gave to every game."""

    rewards: Float[Tensor, " B"]
    continuation: Float[Tensor, " B"]
    """Chance that the game goes on."""
    is_over: Bool[Tensor, " B"]
    """Whether the step ended the game, or the limit of steps cut it."""
    reached: Tokens
    """What the step led to, in games that are over too."""


class Imagination:
    """The games that the learned environments play; one that is over is replaced at once.

    A new game remembers the last frames of its start context; a context of fewer frames than are
    remembered has its first one repeated.

    Args:
        env: the world, and how it is played.
        num_games: games side by side.
        num_frames: frames whose tokens are remembered.
        seed: fixes starts, frames and rewards.
    """

    def __init__(self, env: WorldEnvConfig, *, num_games: int, num_frames: int, seed: int) -> None:
        self.slots = Slots(env, num_games)
        self.slots.np_randoms = [np.random.default_rng((seed, game)) for game in range(num_games)]
        self._contexts = self.slots.world.starts.tokens
        length = self._contexts.shape[1]
        self._remembered = torch.arange(length - num_frames, length).clamp(min=0)
        self.tokens: Tokens = self._contexts[:1, self._remembered]
        self._begin(np.ones(num_games, np.bool_))

    def step(self, actions: Int[Tensor, " B"]) -> Step:
        """Play one action in every game; leaves `tokens` at the newest frames."""
        outcome = self.slots.step(actions.cpu().numpy())
        is_over = self.slots.is_over.copy()
        newest = self.slots.state.tokens[:, None]
        self.tokens = reached = torch.cat([self.tokens[:, 1:], newest], dim=1)
        if is_over.any():
            self._begin(is_over)
        values = (outcome.rewards, 1 - outcome.terminated_probs)
        rewards, continuation = (torch.from_numpy(x).float().to(reached.device) for x in values)
        return Step(rewards, continuation, torch.from_numpy(is_over).to(reached.device), reached)

    def get_state(self) -> dict[str, Any]:
        """Return all that decides how the games go on."""
        return {"tokens": self.tokens, **slots_content(self.slots.get_state())}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to games that `get_state` gave."""
        self.slots.set_state(slots_state(state, self.slots.state))
        self.tokens = state["tokens"].to(self.tokens.device)

    def _begin(self, is_new: Bool[np.ndarray, " B"]) -> None:
        starts = self.slots.reset(is_new, to_starts(None, len(is_new)))
        begun = self._contexts[torch.from_numpy(starts)][:, self._remembered]
        is_begun = torch.from_numpy(is_new).to(begun.device)[:, None, None]
        self.tokens = torch.where(is_begun, begun, self.tokens)
