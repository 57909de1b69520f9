"""Games of a world on tokens alone: what an agent learns from that needs no pixels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genie_gym.agents.checkpoint import refilled, tensors_of
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.models.world import World
from genie_gym.nn.draws import uniform
from genie_gym.nn.masking import draw_codes

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
    """B games side by side; one that is over is replaced by a new one at once.

    Games begin at the world's start contexts, end where the world is more sure than not that they
    did, and are cut after `env.max_episode_steps`.

    Args:
        world: a trained world with a reward model.
        env: how it is played.
        num_games: games side by side.
        num_frames: frames whose tokens are remembered.
        generator: draws starts, frames and rewards.
    """

    def __init__(
        self,
        world: World,
        env: WorldEnvConfig,
        *,
        num_games: int,
        num_frames: int,
        generator: torch.Generator,
    ) -> None:
        self.world = world
        self._env = env
        self._generator = generator
        length = world.starts.tokens.shape[1]
        # A context of fewer frames has its first one repeated.
        self._places = torch.arange(length - num_frames, length).clamp(min=0).to(world.device)
        starts = self._draw_starts(num_games)
        self._state = world.start(starts)
        self.tokens: Tokens = self._remembered(starts)
        self._num_steps = torch.zeros_like(starts)

    def step(self, actions: Int[Tensor, " B"]) -> Step:
        """Play one action in every game; leaves `tokens` at the newest frames."""
        imagined = self.world.imagine(
            self._state,
            actions,
            self._generator,
            num_maskgit_steps=self._env.num_maskgit_steps,
            temperature=self._env.temperature,
        )
        self._state = imagined.state
        probs = imagined.prediction.reward_probs.float()
        if self._env.reward_mode == "sampled":
            draws = uniform((), len(probs), self._generator, probs.device)
            rewards = self.world.reward_classes[draw_codes(probs.log(), draws, 1.0)]
        else:
            rewards = probs @ self.world.reward_classes
        reached = torch.cat([self.tokens[:, 1:], imagined.state.tokens[:, None]], dim=1)
        continuation = 1 - imagined.prediction.terminated_prob.float()
        self._num_steps = self._num_steps + 1
        is_over = continuation < 0.5
        if (limit := self._env.max_episode_steps) is not None:
            is_over = is_over | (self._num_steps >= limit)
        self.tokens = reached
        if is_over.any():
            self._begin(is_over)
        return Step(rewards, continuation, is_over, reached)

    def get_state(self) -> dict[str, Any]:
        """Return all that decides how the games go on, but for the generator."""
        return {
            "world": list(tensors_of(self._state)),
            "tokens": self.tokens,
            "ages": self._num_steps,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go back to games that `get_state` gave."""
        device = self.world.device
        self._state = refilled(self._state, iter([x.to(device) for x in state["world"]]))
        self.tokens, self._num_steps = state["tokens"].to(device), state["ages"].to(device)

    def _begin(self, is_over: Bool[Tensor, " B"]) -> None:
        starts = self._draw_starts(int(is_over.sum()))
        places = (is_over.cumsum(0) - 1).clamp(min=0)
        self._state = self._state.where(is_over, self.world.start(starts).gather(places))
        is_new = is_over[:, None, None]
        self.tokens = torch.where(is_new, self._remembered(starts)[places], self.tokens)
        self._num_steps = torch.where(is_over, 0, self._num_steps)

    def _draw_starts(self, count: int) -> Int[Tensor, " games"]:
        high, device = len(self.world.starts), self._generator.device
        starts = torch.randint(high, (count,), generator=self._generator, device=device)
        return starts.to(self.world.device)

    def _remembered(self, starts: Int[Tensor, " games"]) -> Int[Tensor, "games K S"]:
        return self.world.starts.tokens[starts][:, self._places]
