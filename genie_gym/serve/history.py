"""The newest states of a game, each kept as what its step added."""

from collections import deque
from dataclasses import replace
from typing import Any

import torch

from genie_gym.envs.slots import SlotsState
from genie_gym.models.state import WorldState
from genie_gym.nn.attention import TemporalCache

CACHES = ("dynamics", "reward", "decoder")


class History:
    """States of one game that can be gone back to, bit for bit.

    A step moves each cache on by one frame, so a state is the oldest one kept and the frames since:
    a window's length less memory than whole states.

    Args:
        first: where the game begins.
        max_steps: steps that can be taken back; 0 or more.
    """

    def __init__(self, first: SlotsState, max_steps: int) -> None:
        self._oldest = first
        self._added: deque[SlotsState] = deque()
        self._max_steps = max_steps

    def __len__(self) -> int:
        """Return how many steps can be taken back."""
        return len(self._added)

    def append(self, state: SlotsState) -> None:
        """Remember the state that the next step led to."""
        newest = {
            name: _map_slots(getattr(state.world, name), lambda slots: slots[..., -1:, :].clone())
            for name in CACHES
        }
        self._added.append(replace(state, world=replace(state.world, **newest)))
        if len(self._added) > self._max_steps:
            self._oldest = self._at(1)
            self._added.popleft()

    def rewind(self, num_steps: int) -> SlotsState:
        """Forget the newest steps, at most all there are; return the state before them."""
        state = self._at(len(self._added) - num_steps)
        for _ in range(num_steps):
            self._added.pop()
        return state

    def _at(self, index: int) -> SlotsState:
        """Return the state after so many of the steps."""
        if index == 0:
            return self._oldest
        added = [self._added[i] for i in range(index)]
        caches = {name: _roll(self._oldest.world, added, name) for name in CACHES}
        return replace(added[-1], world=replace(added[-1].world, **caches))


def _roll(oldest: WorldState, added: list[SlotsState], name: str) -> TemporalCache:
    """Return a cache moved on by the frames of the added states."""
    old: TemporalCache = getattr(oldest, name)
    if not old.keys:
        return old
    num_slots = old.keys[0].shape[-2]
    newest: list[TemporalCache] = [getattr(one.world, name) for one in added[-num_slots:]]

    def roll(kind: str) -> tuple[torch.Tensor, ...]:
        layers = zip(*(getattr(cache, kind) for cache in (old, *newest)), strict=True)
        return tuple(torch.cat(layer, dim=-2)[..., len(newest) :, :].clone() for layer in layers)

    return TemporalCache(roll("keys"), roll("values"), newest[-1].num_frames)


def _map_slots(cache: TemporalCache, function: Any) -> TemporalCache:
    return TemporalCache(
        tuple(function(keys) for keys in cache.keys),
        tuple(function(values) for values in cache.values),
        cache.num_frames.clone(),
    )
