"""The newest states of a game, each kept as what its step added."""

from collections import deque
from dataclasses import replace

import torch

from genie_gym.envs.slots import SlotsState
from genie_gym.models.state import WorldState
from genie_gym.nn.attention import TemporalCache


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
        newest = _with_caches(state, [_newest(cache) for cache in _caches(state.world)])
        self._added.append(newest)
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
        stored = [_caches(self._oldest.world), *(_caches(one.world) for one in added)]
        return _with_caches(added[-1], [_roll(*caches) for caches in zip(*stored, strict=True)])


def _caches(world: WorldState) -> list[TemporalCache]:
    return [world.dynamics, world.reward, world.decoder]


def _with_caches(state: SlotsState, caches: list[TemporalCache]) -> SlotsState:
    dynamics, reward, decoder = caches
    world = replace(state.world, dynamics=dynamics, reward=reward, decoder=decoder)
    return replace(state, world=world)


def _newest(cache: TemporalCache) -> TemporalCache:
    """Return what the newest frame added to a cache."""
    keys, values = (tuple(x[..., -1:, :].clone() for x in kind) for kind in _layers(cache))
    return TemporalCache(keys, values, cache.num_frames.clone())


def _roll(old: TemporalCache, *added: TemporalCache) -> TemporalCache:
    """Return a cache moved on by frames that were added, oldest first."""
    if not old.keys:
        return old
    added = added[-old.keys[0].shape[-2] :]

    def roll(kind: int) -> tuple[torch.Tensor, ...]:
        layers = zip(*(_layers(cache)[kind] for cache in (old, *added)), strict=True)
        return tuple(torch.cat(layer, dim=-2)[..., len(added) :, :].clone() for layer in layers)

    return TemporalCache(roll(0), roll(1), added[-1].num_frames)


def _layers(cache: TemporalCache) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return cache.keys, cache.values
