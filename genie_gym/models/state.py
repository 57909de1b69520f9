"""Where imagined games begin, and where they stand."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from genie_gym.nn.attention import TemporalCache


@dataclass(frozen=True, slots=True)
class Starts:
    """Contexts that episodes begin from: tokens of real frames and the actions between them."""

    tokens: Int[Tensor, "starts T S"]
    actions: Int[Tensor, "starts T-1"]

    def __len__(self) -> int:
        """Return the number of contexts."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class WorldState:
    """Where B imagined games stand; opaque but for `tokens`. States are never changed in place."""

    tokens: Int[Tensor, "B S"]
    """Tokens of the newest frame."""
    led_by: Int[Tensor, " B"]
    """Row of the dynamics' action table that led to the newest frame."""
    dynamics: TemporalCache
    """Past of the dynamics, the newest frame left out: it is appended with the next step."""
    reward: TemporalCache
    """Past of the reward model, the newest frame included."""
    decoder: TemporalCache
    """Past of the decoder, the newest frame left out: it is decoded on demand."""
    encoder: tuple[TemporalCache, ...]
    """Past of the encoder, real frames alone; none where it looks at each frame by itself."""

    def expand(self, num_copies: int) -> "WorldState":
        """Return every row `num_copies` times, copies side by side: (B * num_copies)."""
        return self._map(lambda x: x.repeat_interleave(num_copies, dim=0))

    def gather(self, rows: Int[Tensor, " rows"]) -> "WorldState":
        """Return the named rows, in that order."""
        rows = rows.to(self.tokens.device)
        # Faster than x[rows] on a CPU, in bfloat16 twice; planning copies caches at every step.
        return self._map(lambda x: x.index_select(0, rows))

    def row(self, index: int) -> "WorldState":
        """Return one row, in the same memory."""
        return self._map(lambda x: x[index : index + 1])

    def clone(self) -> "WorldState":
        """Return a copy that shares no memory."""
        return self._map(torch.clone)

    def where(self, is_other: Bool[Tensor, " B"], other: "WorldState") -> "WorldState":
        """Return this state with the marked rows taken from another one of the same size."""

        def choose(mine: Tensor, others: Tensor) -> Tensor:
            mask = is_other.view(-1, *[1] * (mine.dim() - 1))
            return torch.where(mask, others, mine)

        return self._map(choose, other)

    @staticmethod
    def join(states: Sequence["WorldState"]) -> "WorldState":
        """Return the rows of one or more states, in order."""
        return states[0]._map(lambda *rows: torch.cat(rows), *states[1:])

    def _map(self, function: Callable[..., Tensor], *others: "WorldState") -> "WorldState":
        result: WorldState = _map_tensors(function, self, *others)
        return result


def _map_tensors(function: Callable[..., Tensor], *nodes: Any) -> Any:
    first = nodes[0]
    if isinstance(first, Tensor):
        return function(*nodes)
    if isinstance(first, tuple):
        return tuple(_map_tensors(function, *leaves) for leaves in zip(*nodes, strict=True))
    names = [field.name for field in dataclasses.fields(first)]
    mapped = {name: _map_tensors(function, *(getattr(n, name) for n in nodes)) for name in names}
    return type(first)(**mapped)
