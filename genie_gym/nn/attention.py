"""Attention inside a frame, and attention along time with rotary positions and a cache."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

ROTARY_BASE = 100.0
"""Longest wavelength over shortest; windows are tens of frames, not thousands of words."""
FEW_QUERIES = 2
"""Queries up to which plain products beat the fused kernel on a CPU: in bfloat16 five times."""


@dataclass(frozen=True, slots=True)
class TemporalCache:
    """Keys and values of the newest `window - 1` frames, oldest first, for every layer.

    Every row of the batch counts its own frames, so sequences of different ages share one batch. A
    young row has its frames in the last slots, and nothing in the first.
    """

    keys: tuple[Float[Tensor, "B S heads slots head_dim"], ...]
    values: tuple[Float[Tensor, "B S heads slots head_dim"], ...]
    num_frames: Int[Tensor, " B"]
    """Frames seen so far, per row."""

    def gather(self, rows: Shaped[Tensor, " rows"]) -> "TemporalCache":
        """Return the caches of the marked or numbered rows, in order."""
        return TemporalCache(
            tuple(keys[rows] for keys in self.keys),
            tuple(values[rows] for values in self.values),
            self.num_frames[rows],
        )


class Past(NamedTuple):
    """What one layer's new frames look back at, and how."""

    keys: Float[Tensor, "B S heads slots head_dim"]
    values: Float[Tensor, "B S heads slots head_dim"]
    rotation: Float[Tensor, "two B_S new head_dim"]
    """Turns the new frames' features to their places in time."""
    mask: Bool[Tensor, "B_S 1 new K"]
    """Which of the slots, and of the new frames behind them, each new frame may look at."""


def rotary(
    positions: Int[Tensor, "*batch"], head_dim: int, dtype: torch.dtype
) -> Float[Tensor, "two *batch head_dim"]:
    """Return cosine and sine of the angles that a frame's position turns its features by.

    Angles are computed in float64, so a position may run into the millions.

    Source:
        Su et al. 2021, "RoFormer", section 3.2; the small base is ours.
    """
    half = head_dim // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float64) / half
    angles = positions[..., None].double() * ROTARY_BASE**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)]).to(dtype)


def rotate(
    x: Float[Tensor, "*batch heads head_dim"], rotation: Float[Tensor, "two *batch_or_1 head_dim"]
) -> Float[Tensor, "*batch heads head_dim"]:
    """Turn pairs of features, half a head apart, by the angles that `rotary` gave."""
    cos, sin = rotation[..., None, :]
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def attention_weights(
    query: Float[Tensor, "rows heads T head_dim"],
    key: Float[Tensor, "rows heads K head_dim"],
    mask: Bool[Tensor, "*masked T K"] | None = None,
) -> Float[Tensor, "rows heads T K"]:
    """Return how much each query takes of each key: what the fused kernel does not give away.

    It stores T * K numbers a head, so it serves to look at them, and to compute with few queries.
    The tests hold the fused kernel to it.
    """
    logits: Tensor = (query @ key.mT).float() / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1)


class ScaledDotProduct(nn.Module):
    """Scaled dot-product attention; True in the mask lets a query look at a key.

    A module without weights rather than a function, so that a forward hook sees the queries and
    keys as they are in use, rotated and cached ones included.
    """

    def forward(
        self,
        query: Float[Tensor, "rows heads T head_dim"],
        key: Float[Tensor, "rows heads K head_dim"],
        value: Float[Tensor, "rows heads K head_dim"],
        mask: Bool[Tensor, "*masked T K"] | None = None,
    ) -> Float[Tensor, "rows heads T head_dim"]:
        """Return what each query gathered."""
        if query.device.type == "cpu" and query.shape[2] <= FEW_QUERIES:
            return attention_weights(query, key, mask).to(value.dtype) @ value
        if query.device.type == "cpu":
            # The fused kernel is 10 times as fast in float32 as in bfloat16 at 16 tokens.
            with torch.autocast("cpu", enabled=False):
                attended = F.scaled_dot_product_attention(
                    query.float(), key.float(), value.float(), attn_mask=mask
                )
            return attended.to(value.dtype)
        return F.scaled_dot_product_attention(query.to(value), key.to(value), value, attn_mask=mask)


class Attention(nn.Module):
    """Projections of multi-head attention with QK-norm; `head_dim` is free of the model's width.

    Source:
        Bruce et al. 2024, "Genie", section 3: QK-norm. Its tables give the k/q size per head.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        """Make the layer; biases are left out."""
        super().__init__()
        self.num_heads = num_heads
        self.project_in = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.project_out = nn.Linear(num_heads * head_dim, dim, bias=False)
        self.norm = nn.LayerNorm(head_dim, elementwise_affine=False)
        self.attend = ScaledDotProduct()

    def project(
        self, x: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch two_heads head_dim"], Float[Tensor, "*batch heads head_dim"]]:
        """Return queries beside keys, normalised, and values."""
        projected = self.project_in(x).unflatten(-1, (3 * self.num_heads, -1))
        both, values = projected.tensor_split([2 * self.num_heads], dim=-2)
        return self.norm(both), values

    def gather(
        self,
        queries: Float[Tensor, "rows heads T head_dim"],
        keys: Float[Tensor, "rows heads K head_dim"],
        values: Float[Tensor, "rows heads K head_dim"],
        *mask: Bool[Tensor, "*masked T K"],
    ) -> Float[Tensor, "rows T D"]:
        """Return what each query gathered, heads joined, in the model's width."""
        attended = self.attend(queries, keys, values, *mask)
        out: Tensor = self.project_out(rearrange(attended, "rows heads T d -> rows T (heads d)"))
        return out


class SpatialAttention(Attention):
    """Every token of a frame attends to every token of the same frame, never of another."""

    def forward(self, x: Float[Tensor, "B T S D"]) -> Float[Tensor, "B T S D"]:
        """Return what each token gathered inside its frame."""
        both, values = self.project(rearrange(x, "B T S D -> (B T) S D"))
        queries, keys = both.transpose(1, 2).chunk(2, dim=1)
        out = self.gather(queries, keys, values.transpose(1, 2))
        return rearrange(out, "(B T) S D -> B T S D", B=len(x))


class TemporalAttention(Attention):
    """Every spatial position attends along time at that position."""

    def forward(
        self,
        x: Float[Tensor, "B T S D"],
        positions: Int[Tensor, " T"],
        mask: Bool[Tensor, "T T"],
    ) -> Float[Tensor, "B T S D"]:
        """Attend within a clip; `mask[q, k]` says whether frame q may look at frame k."""
        both, values = self.project(rearrange(x, "B T S D -> (B S) T D"))
        both = rotate(both, rotary(positions, both.shape[-1], both.dtype))
        queries, keys = both.transpose(1, 2).chunk(2, dim=1)
        out = self.gather(queries, keys, values.transpose(1, 2), mask)
        return rearrange(out, "(B S) T D -> B T S D", B=len(x))

    def step(
        self, x: Float[Tensor, "B new S D"], past: Past
    ) -> tuple[Float[Tensor, "B new S D"], tuple[Tensor, Tensor]]:
        """Attend from new frames to the past and to each other, as the mask lets them.

        Returns:
            What each token gathered, and keys and values of the past with the new frames behind.
        """
        both, values = self.project(rearrange(x, "B new S D -> (B S) new D"))
        queries, keys = rotate(both, past.rotation).transpose(1, 2).chunk(2, dim=1)
        # One copy serves the attention and, less its first slots, the next cache.
        all_keys, all_values = (
            torch.cat([old, rearrange(new, "(B S) h new d -> B S h new d", B=len(x))], dim=3)
            for old, new in zip(past[:2], (keys, values.transpose(1, 2)), strict=True)
        )
        out = self.gather(queries, all_keys.flatten(0, 1), all_values.flatten(0, 1), past.mask)
        return rearrange(out, "(B S) new D -> B new S D", B=len(x)), (all_keys, all_values)
