"""Attention inside a frame, and attention along time with rotary positions and a ring cache."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ROTARY_BASE = 100.0
"""Longest wavelength over shortest; windows are tens of frames, not thousands of words."""


@dataclass(frozen=True, slots=True)
class TemporalCache:
    """Keys and values of the newest frames, for every layer: a ring of `window - 1` slots.

    Frame t of a sequence lies in slot t modulo the number of slots. Every row of the batch counts
    its own frames, so sequences of different ages share one batch.
    """

    keys: Float[Tensor, "B layers S heads slots head_dim"]
    values: Float[Tensor, "B layers S heads slots head_dim"]
    num_frames: Int[Tensor, " B"]
    """Frames written so far, per row."""

    def filled(self) -> Bool[Tensor, "B slots"]:
        """Return which slots hold a frame."""
        slots = torch.arange(self.keys.shape[4], device=self.keys.device)
        return slots < self.num_frames[:, None]

    def gather(self, rows: Bool[Tensor, " B"]) -> "TemporalCache":
        """Return the caches of the marked rows, in order."""
        return TemporalCache(self.keys[rows], self.values[rows], self.num_frames[rows])

    def append(
        self,
        keys: Float[Tensor, "B layers S heads head_dim"],
        values: Float[Tensor, "B layers S heads head_dim"],
    ) -> "TemporalCache":
        """Return a cache that also holds one more frame; this one stays as it was."""
        num_slots = self.keys.shape[4]
        num_frames = self.num_frames + 1
        if num_slots == 0:
            return replace(self, num_frames=num_frames)
        oldest = F.one_hot(self.num_frames % num_slots, num_slots).bool()
        oldest = rearrange(oldest, "B slots -> B 1 1 1 slots 1")
        return TemporalCache(
            keys=torch.where(oldest, keys[..., None, :], self.keys),
            values=torch.where(oldest, values[..., None, :], self.values),
            num_frames=num_frames,
        )


def rotate(
    x: Float[Tensor, "rows heads T head_dim"], positions: Int[Tensor, "rows_or_1 T"]
) -> Float[Tensor, "rows heads T head_dim"]:
    """Turn pairs of features by an angle that grows with the position.

    Angles are computed in float64, so a frame's position may run into the millions.

    Source:
        Su et al. 2021, "RoFormer", section 3.2; the small base is ours.
    """
    half = x.shape[-1] // 2
    exponents = torch.arange(half, device=x.device, dtype=torch.float64) / half
    angles = positions[..., None].double() * ROTARY_BASE**-exponents
    cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def attention_weights(
    query: Float[Tensor, "rows heads T head_dim"],
    key: Float[Tensor, "rows heads K head_dim"],
    mask: Bool[Tensor, "*masked T K"] | None = None,
) -> Float[Tensor, "rows heads T K"]:
    """Return how much each query takes of each key: what the fused kernel does not give away.

    For looking at, not for computing with: it stores T * K numbers a head. The tests hold the
    fused kernel to it.
    """
    logits: Tensor = query.float() @ key.float().mT / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1)


class ScaledDotProduct(nn.Module):
    """Scaled dot-product attention, fused; True in the mask lets a query look at a key.

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
        if query.device.type == "cpu":
            # The CPU's fused kernel is 10 times as fast in float32 as in bfloat16 at 16 tokens.
            with torch.autocast("cpu", enabled=False):
                attended = F.scaled_dot_product_attention(
                    query.float(), key.float(), value.float(), attn_mask=mask
                )
            return attended.to(value.dtype)
        return F.scaled_dot_product_attention(
            query.to(value), key.to(value), value, attn_mask=mask
        )


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
        self.query_norm = nn.LayerNorm(head_dim, elementwise_affine=False)
        self.key_norm = nn.LayerNorm(head_dim, elementwise_affine=False)
        self.attend = ScaledDotProduct()

    def queries_keys_values(self, x: Float[Tensor, "rows T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return three tensors of shape (rows, heads, T, head_dim)."""
        pattern = "rows T (three heads head_dim) -> three rows heads T head_dim"
        projected = rearrange(self.project_in(x), pattern, three=3, heads=self.num_heads)
        query, key, value = projected
        return self.query_norm(query), self.key_norm(key), value

    def merge(self, attended: Float[Tensor, "rows heads T head_dim"]) -> Float[Tensor, "rows T D"]:
        """Join the heads and project back to the model's width."""
        out: Tensor = self.project_out(rearrange(attended, "rows heads T d -> rows T (heads d)"))
        return out


class SpatialAttention(Attention):
    """Every token of a frame attends to every token of the same frame, never of another."""

    def forward(self, x: Float[Tensor, "B T S D"]) -> Float[Tensor, "B T S D"]:
        """Return what each token gathered inside its frame."""
        query, key, value = self.queries_keys_values(rearrange(x, "B T S D -> (B T) S D"))
        attended = self.attend(query, key, value)
        return rearrange(self.merge(attended), "(B T) S D -> B T S D", B=x.shape[0])


class TemporalAttention(Attention):
    """Every spatial position attends along time at that position."""

    def forward(
        self,
        x: Float[Tensor, "B T S D"],
        positions: Int[Tensor, " T"],
        mask: Bool[Tensor, "T T"],
    ) -> Float[Tensor, "B T S D"]:
        """Attend within a clip; `mask[q, k]` says whether frame q may look at frame k."""
        query, key, value = self.queries_keys_values(rearrange(x, "B T S D -> (B S) T D"))
        query, key = rotate(query, positions[None]), rotate(key, positions[None])
        attended = self.attend(query, key, value, mask)
        return rearrange(self.merge(attended), "(B S) T D -> B T S D", B=x.shape[0])

    def step(
        self, x: Float[Tensor, "B S D"], cache: TemporalCache, layer: int
    ) -> tuple[
        Float[Tensor, "B S D"],
        Float[Tensor, "B S heads head_dim"],
        Float[Tensor, "B S heads head_dim"],
    ]:
        """Attend from one new frame to the cached ones and itself.

        Returns:
            What each token gathered, and the new frame's keys and values, for the caller to keep.
        """
        num_tokens = x.shape[1]
        query, key, value = self.queries_keys_values(rearrange(x, "B S D -> (B S) 1 D"))
        positions = repeat(cache.num_frames, "B -> (B S) 1", S=num_tokens)
        query, key = rotate(query, positions), rotate(key, positions)

        past_keys = rearrange(cache.keys[:, layer], "B S heads slots d -> (B S) heads slots d")
        past_values = rearrange(cache.values[:, layer], "B S heads slots d -> (B S) heads slots d")
        mask = F.pad(cache.filled(), (0, 1), value=True)
        mask = repeat(mask, "B slots -> (B S) 1 1 slots", S=num_tokens)
        keys, values = torch.cat([past_keys, key], dim=2), torch.cat([past_values, value], dim=2)
        attended = self.attend(query, keys, values, mask)

        out = rearrange(self.merge(attended), "(B S) 1 D -> B S D", S=num_tokens)
        key, value = (
            rearrange(new, "(B S) heads 1 d -> B S heads d", S=num_tokens) for new in (key, value)
        )
        return out, key, value
