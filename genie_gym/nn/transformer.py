"""The space-time transformer: attention inside frames, then along time, then one feed-forward.

- Cost grows as T * H * W: no token attends across space and time at once.
- Temporal attention is causal with a sliding window, so a cache of `window - 1` frames is
  exact, inside and beyond the window.
- Pre-norm residual blocks, norms without scales (the next linear layer has one).
- No feed-forward between the two attentions (Genie, section 2).
"""

from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genie_gym.errors import ConfigError
from genie_gym.nn.attention import Past, SpatialAttention, TemporalAttention, TemporalCache, rotary


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """Shape of one ST-transformer."""

    num_layers: int = 4
    """Blocks in the stack."""
    dim: int = 128
    """Feature width of a token."""
    num_heads: int = 4
    """Heads of each attention."""
    head_dim: int = 32
    """Width of one head, free of `dim`; even, for rotary positions."""
    temporal_window: int = 8
    """Frames a token may look at, its own included; 0 leaves temporal attention out."""
    is_spatial: bool = True
    """Whether tokens of a frame see each other; without, every patch is treated alone."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_layers", "dim", "num_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even (rotary pairs), got {self.head_dim}")
        if self.temporal_window < 0:
            raise ConfigError(f"temporal_window must be 0 or more, got {self.temporal_window}")


def causal_window_mask(
    positions: Int[Tensor, " T"], window: int, device: torch.device | None = None
) -> Bool[Tensor, "T T"]:
    """Return which frame (row) may look at which (column): itself and `window - 1` before it.

    Example:
        >>> causal_window_mask(torch.arange(3), window=2).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    age = positions[:, None] - positions[None, :]
    return (age >= 0) & (age < window)


class Block(nn.Module):
    """Spatial attention, temporal attention, feed-forward; each added to what came in."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the block; attentions the config leaves out are not built."""
        super().__init__()
        shape = (config.dim, config.num_heads, config.head_dim)
        self.spatial_norm = (
            nn.LayerNorm(config.dim, elementwise_affine=False) if config.is_spatial else None
        )
        self.spatial = SpatialAttention(*shape) if config.is_spatial else None
        self.temporal_norm = (
            nn.LayerNorm(config.dim, elementwise_affine=False) if config.temporal_window else None
        )
        self.temporal = TemporalAttention(*shape) if config.temporal_window else None
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.dim, elementwise_affine=False),
            nn.Linear(config.dim, 4 * config.dim),
            nn.GELU(),
            nn.Linear(4 * config.dim, config.dim),
        )

    def forward(
        self,
        x: Float[Tensor, "B T S D"],
        positions: Int[Tensor, " T"],
        mask: Bool[Tensor, "T T"],
    ) -> Float[Tensor, "B T S D"]:
        """Run the block on whole clips."""
        if self.spatial is not None and self.spatial_norm is not None:
            x = x + self.spatial(self.spatial_norm(x))
        if self.temporal is not None and self.temporal_norm is not None:
            x = x + self.temporal(self.temporal_norm(x), positions, mask)
        out: Tensor = x + self.feed_forward(x)
        return out

    def step(
        self, x: Float[Tensor, "B new S D"], past: Past | None
    ) -> tuple[Float[Tensor, "B new S D"], tuple[Tensor, Tensor] | None]:
        """Run the block on new frames; also return keys and values, old and new, if any."""
        grown = None
        if self.spatial is not None and self.spatial_norm is not None:
            x = x + self.spatial(self.spatial_norm(x))
        if self.temporal is not None and self.temporal_norm is not None:
            assert past is not None
            out, grown = self.temporal.step(self.temporal_norm(x), past)
            x = x + out
        return x + self.feed_forward(x), grown


class STTransformer(nn.Module):
    """A stack of blocks that runs on whole clips, or frame by frame with a cache.

    Source:
        Bruce et al. 2024, "Genie", section 2; Xu et al. 2020 for the factorised attention.
        Rotary positions, the sliding window and the cache are ours.
    """

    def __init__(self, config: TransformerConfig) -> None:
        """Build the blocks and the closing norm."""
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.dim, elementwise_affine=False)

    def forward(
        self,
        x: Float[Tensor, "B T S D"],
        positions: Int[Tensor, " T"] | None = None,
        mask: Bool[Tensor, "T T"] | None = None,
    ) -> Float[Tensor, "B T S D"]:
        """Return features of every token of a clip.

        Args:
            x: embedded tokens.
            positions: the frames' places in time; 0, 1, 2 ... by default.
            mask: which frame (row) may look at which (column); causal within the window by
                default. Two streams over the same frames are one clip with a mask of its own.
        """
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)
        if mask is None:
            mask = causal_window_mask(positions, self.config.temporal_window)
        for block in self.blocks:
            if self.config.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, positions, mask, use_reentrant=False)
            else:
                x = block(x, positions, mask)
        out: Tensor = self.norm(x)
        return out

    def empty_cache(self, batch_size: int, num_tokens: int) -> TemporalCache:
        """Return a cache that holds no frame yet."""
        config = self.config
        weight = next(self.parameters())
        num_slots = config.temporal_window - 1
        shape = (batch_size, num_tokens, config.num_heads, num_slots, config.head_dim)
        num_layers = config.num_layers if config.temporal_window else 0
        return TemporalCache(
            keys=tuple(weight.new_zeros(shape) for _ in range(num_layers)),
            values=tuple(weight.new_zeros(shape) for _ in range(num_layers)),
            num_frames=torch.zeros(batch_size, dtype=torch.int64, device=weight.device),
        )

    def step(
        self, x: Float[Tensor, "B new S D"], cache: TemporalCache, *, num_kept: int = 1
    ) -> tuple[Float[Tensor, "B new S D"], TemporalCache]:
        """Return features of new frames, and the cache with those of them that are kept.

        The first `num_kept` frames follow the cache and each other. Every frame behind them stands
        for the one after: it sees them and itself, and leaves no trace.
        """
        places = self._places(x, cache, num_kept) if cache.keys else ()
        kept = slice(num_kept, num_kept + self.config.temporal_window - 1)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            past = Past(cache.keys[layer], cache.values[layer], *places) if places else None
            x, grown = block.step(x, past)
            if grown is not None:
                keys.append(grown[0][..., kept, :])
                values.append(grown[1][..., kept, :])
        out: Tensor = self.norm(x)
        if not num_kept:
            return out, cache
        return out, TemporalCache(tuple(keys), tuple(values), cache.num_frames + num_kept)

    def _places(
        self, x: Float[Tensor, "B new S D"], cache: TemporalCache, num_kept: int
    ) -> tuple[Float[Tensor, "two B_S new head_dim"], Bool[Tensor, "B_S 1 new K"]]:
        """Return rotations of new frames, and which of the past and new ones each may look at."""
        num_new, num_tokens = x.shape[1:3]
        num_slots = self.config.temporal_window - 1
        index = torch.arange(-num_slots, num_new, device=x.device)
        place = index.clamp(max=num_kept)
        age = place[num_slots:, None] - place
        is_self = index[num_slots:, None] == index
        mask = (age >= 0) & (age <= num_slots) & (index < num_kept) | is_self

        position = cache.num_frames[:, None] + place
        mask = mask & (position >= 0)[:, None]
        rotation = rotary(position[:, num_slots:], self.config.head_dim, x.dtype)
        return (
            repeat(rotation, "two B new d -> two (B S) new d", S=num_tokens),
            repeat(mask, "B new K -> (B S) 1 new K", S=num_tokens),
        )


class SpatialPositions(nn.Module):
    """Learned row and column embeddings, added to the tokens of a grid."""

    def __init__(self, rows: int, columns: int, dim: int) -> None:
        """Make the two tables."""
        super().__init__()
        self.row = nn.Parameter(torch.randn(rows, 1, dim) * 0.02)
        self.column = nn.Parameter(torch.randn(1, columns, dim) * 0.02)

    def forward(self) -> Float[Tensor, "S D"]:
        """Return one vector a token, row by row."""
        return (self.row + self.column).flatten(0, 1)
