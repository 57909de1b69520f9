"""Vectors to codes: by a codebook that follows the data and never dies out, or by rounding."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_gym.errors import ConfigError

WHITENING_FLOOR = 0.01
"""Spread, as a share of the largest, below which a direction counts as noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizerConfig:
    """Shape and upkeep of a codebook."""

    kind: Literal["vq", "fsq"] = "vq"
    """Nearest code of a learned codebook, or finite scalar quantization: every number of a vector
    is rounded on its own."""
    levels: tuple[int, ...] = ()
    """Values that each number of a vector can take, for "fsq"; `code_dim` of them, whose product is
    `num_codes`."""
    num_codes: int = 1024
    """Entries of the codebook."""
    code_dim: int = 32
    """Width of one entry."""
    commitment_weight: float = 0.25
    """Pull of the encoder towards the codes it chose."""
    decay: float = 0.99
    """Decay of the moving averages, per training step."""
    dead_usage: float = 0.003
    """A code whose average count a batch falls below this is placed anew."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_codes < 2:
            raise ConfigError(f"num_codes must be at least 2, got {self.num_codes}")
        if self.code_dim < 1:
            raise ConfigError(f"code_dim must be at least 1, got {self.code_dim}")
        if not 0 < self.decay < 1:
            raise ConfigError(f"decay must lie between 0 and 1, got {self.decay}")
        if self.kind == "vq" and self.levels:
            raise ConfigError(f"levels are for kind 'fsq', got {list(self.levels)} with 'vq'")
        if self.kind == "fsq" and (
            min(self.levels, default=0) < 2
            or len(self.levels) != self.code_dim
            or math.prod(self.levels) != self.num_codes
        ):
            raise ConfigError(
                f"kind 'fsq' takes code_dim={self.code_dim} levels of 2 or more whose product is "
                f"num_codes={self.num_codes}, got {list(self.levels)}"
            )


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a quantizer makes of a batch of vectors."""

    vectors: Float[Tensor, "*batch code_dim"]
    """Nearest codes; gradients pass straight through to the input."""
    codes: Int[Tensor, "*batch"]
    loss: Float[Tensor, ""]
    """Commitment loss."""
    perplexity: Float[Tensor, ""]
    """Effective number of codes in use in this batch."""


class VectorQuantizer(nn.Module):
    """Nearest-code lookup; codes are moving averages of the vectors that chose them.

    Codes that are hardly chosen are placed anew on vectors far from every code, so rare
    patterns (a ball of a few pixels) win codes of their own. A payload, where there is one, is
    averaged along: what the vectors of a code stand for.

    Source:
        van den Oord et al. 2017, "VQ-VAE", appendix A.1 (moving averages). Placing codes by squared
        distance is the seeding rule of k-means++ (Arthur and Vassilvitskii 2007); its use and the
        payload are ours.
    """

    codebook: Float[Tensor, "codes code_dim"]
    payload: Float[Tensor, "codes payload_dim"]
    usage: Float[Tensor, " codes"]

    def __init__(
        self, config: QuantizerConfig, *, generator: torch.Generator, payload_dim: int = 0
    ) -> None:
        """Make a codebook without use; the first training batches place its codes.

        Raises:
            ConfigError: the config asks for another kind of quantizer.
        """
        super().__init__()
        if config.kind != "vq":
            raise ConfigError(
                f"a learned codebook is needed here, got kind {config.kind!r}. Take kind 'vq'; "
                "the tokenizer alone can do without"
            )
        self.config = config
        self.generator = generator
        codebook = torch.randn(config.num_codes, config.code_dim, generator=generator)
        self.register_buffer("codebook", codebook)
        self.register_buffer("payload", torch.zeros(config.num_codes, payload_dim))
        self.register_buffer("usage", torch.zeros(config.num_codes))

    def forward(
        self,
        vectors: Float[Tensor, "*batch code_dim"],
        payload: Float[Tensor, "*batch payload_dim"] | None = None,
    ) -> Quantized:
        """Quantize; in training mode also move the codebook and its payload."""
        flat = vectors.detach().reshape(-1, self.config.code_dim).float()
        codes = self.nearest(flat)
        if self.training and flat.isfinite().all():  # a diverged batch must not move the codes
            self._follow(flat, codes, payload)

        codes = codes.view(vectors.shape[:-1])
        chosen = F.embedding(codes, self.codebook)
        loss = self.config.commitment_weight * F.mse_loss(vectors.float(), chosen)
        straight_through = vectors + (chosen - vectors).detach()
        return Quantized(straight_through, codes, loss, perplexity(codes, self.config.num_codes))

    def nearest(self, flat: Float[Tensor, "rows code_dim"]) -> Int[Tensor, " rows"]:
        """Return the code at the smallest Euclidean distance from each row."""
        # |x|^2 is the same for every code and left out. The difference is small beside its terms:
        # in bfloat16 it would be noise.
        with torch.autocast(flat.device.type, enabled=False):
            codebook = self.codebook.float()
            distances = codebook.square().sum(-1) - 2 * flat @ codebook.T
        return distances.argmin(-1)

    def embed(self, codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch code_dim"]:
        """Return the vector of each code."""
        return F.embedding(codes, self.codebook)

    @torch.no_grad()
    def _follow(self, flat: Tensor, codes: Tensor, payload: Tensor | None) -> None:
        """Move every code, and its payload, towards the mean of what chose it."""
        table, rows = self._with_payload(flat, payload)
        self._write(*moving_means(table, self.usage, codes, rows, self.config.decay))

        dead = (self.usage < self.config.dead_usage).nonzero()[:, 0]
        if len(dead):
            self._place_anew(dead, flat, codes, rows)

    def _place_anew(
        self, dead: Int[Tensor, " dead"], flat: Tensor, codes: Tensor, rows: Tensor
    ) -> None:
        """Put dead codes on vectors drawn by their squared distance from the nearest code."""
        distance = (flat - self.codebook[codes]).square().sum(-1)
        distance = distance.where(distance > 1e-4 * flat.var(0).sum(), 0.0)
        dead = dead[: int((distance > 0).sum())]
        if len(dead) == 0:
            return
        drawn = torch.multinomial(distance.cpu(), len(dead), generator=self.generator)
        table, _ = self._with_payload(flat, rows[:, self.config.code_dim :])
        table[dead] = rows[drawn.to(flat.device)]
        usage = self.usage.clone()
        usage[dead] = max(1 - self.config.decay, 2 * self.config.dead_usage)
        self._write(table, usage)

    def _with_payload(self, flat: Tensor, payload: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return codebook and vectors, each with the payload as further columns."""
        if payload is None:
            payload = flat.new_zeros(len(flat), 0)
        payload = payload.reshape(len(flat), -1).float()
        return torch.cat([self.codebook, self.payload], dim=1), torch.cat([flat, payload], dim=1)

    def _write(self, table: Tensor, usage: Tensor) -> None:
        self.codebook.copy_(table[:, : self.config.code_dim])
        self.payload.copy_(table[:, self.config.code_dim :])
        self.usage.copy_(usage)


class FiniteScalarQuantizer(nn.Module):
    """Rounds every number of a vector to one of a few levels; codes are the rows of that grid.

    There is no codebook to learn, and no loss. A payload is averaged as that of a learned code is.

    Source:
        Mentzer et al. 2023, "Finite scalar quantization: VQ-VAE made simple", section 3.1. Ours:
        0 meets its level exactly, which the paper's tan in place of atanh misses; vectors are first
        brought to mean 0 and spread 1 by moving averages; and the payload.
    """

    levels: Float[Tensor, " code_dim"]
    codebook: Float[Tensor, "codes code_dim"]
    payload: Float[Tensor, "codes payload_dim"]
    usage: Float[Tensor, " codes"]
    mean: Float[Tensor, " code_dim"]
    variance: Float[Tensor, " code_dim"]

    def __init__(self, config: QuantizerConfig, *, payload_dim: int = 0) -> None:
        """Make the grid."""
        super().__init__()
        self.config = config
        self.register_buffer("levels", torch.tensor(config.levels, dtype=torch.float32))
        digits = torch.cartesian_prod(*(torch.arange(n) - n // 2 for n in config.levels))
        grid = digits.view(config.num_codes, config.code_dim) / (self.levels // 2)
        self.register_buffer("codebook", grid)
        self.register_buffer("payload", torch.zeros(config.num_codes, payload_dim))
        self.register_buffer("usage", torch.zeros(config.num_codes))
        self.register_buffer("mean", torch.zeros(config.code_dim))
        self.register_buffer("variance", torch.ones(config.code_dim))

    def forward(
        self,
        vectors: Float[Tensor, "*batch code_dim"],
        payload: Float[Tensor, "*batch payload_dim"] | None = None,
    ) -> Quantized:
        """Quantize; in training mode also move mean, spread and payload."""
        flat = vectors.reshape(-1, self.config.code_dim).float()
        follows = self.training and bool(flat.isfinite().all())
        momentum = 1 - self.config.decay
        scaled = F.batch_norm(flat, self.mean, self.variance, training=follows, momentum=momentum)
        bounded = self._bound(scaled)
        digits = bounded.round()
        codes = self._index(digits.detach().nan_to_num())
        if follows and payload is not None:
            self._follow(codes, payload)
        rounded = bounded + (digits - bounded).detach()
        return Quantized(
            (rounded / (self.levels // 2)).view(vectors.shape),
            codes.view(vectors.shape[:-1]),
            vectors.new_zeros(()),
            perplexity(codes, self.config.num_codes),
        )

    def embed(self, codes: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch code_dim"]:
        """Return the vector of each code."""
        return F.embedding(codes, self.codebook)

    def _bound(self, scaled: Tensor) -> Tensor:
        """Squash numbers into the range that rounds to as many integers as there are levels."""
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)  # an even number has no middle
        return torch.tanh(scaled + torch.atanh(offset / half)) * half - offset

    def _index(self, digits: Tensor) -> Tensor:
        index = digits.new_zeros(len(digits), dtype=torch.int64)
        for digit, num_levels in zip(digits.unbind(-1), self.config.levels, strict=True):
            index = index * num_levels + digit.long() + num_levels // 2
        return index

    @torch.no_grad()
    def _follow(self, codes: Tensor, payload: Tensor) -> None:
        rows = payload.reshape(len(codes), -1).float()
        payload, usage = moving_means(self.payload, self.usage, codes, rows, self.config.decay)
        self.payload.copy_(payload)
        self.usage.copy_(usage)


def make_quantizer(
    config: QuantizerConfig, *, generator: torch.Generator, payload_dim: int = 0
) -> VectorQuantizer | FiniteScalarQuantizer:
    """Return the quantizer that a config asks for."""
    if config.kind == "fsq":
        return FiniteScalarQuantizer(config, payload_dim=payload_dim)
    return VectorQuantizer(config, generator=generator, payload_dim=payload_dim)


def perplexity(codes: Int[Tensor, "*batch"], num_codes: int) -> Float[Tensor, ""]:
    """Return the effective number of codes in use: exp of the entropy of their shares."""
    share = torch.bincount(codes.flatten(), minlength=num_codes) / codes.numel()
    return torch.exp(-(share * torch.log(share.clamp(min=1e-10))).sum())


def moving_means(
    table: Float[Tensor, "codes dim"],
    usage: Float[Tensor, " codes"],
    codes: Int[Tensor, " rows"],
    rows: Float[Tensor, "rows dim"],
    decay: float,
) -> tuple[Float[Tensor, "codes dim"], Float[Tensor, " codes"]]:
    """Return each code's mean moved towards that of the rows that chose it, and its count."""
    counts = torch.bincount(codes, minlength=len(table)).float()
    sums = torch.zeros_like(table).index_add_(0, codes, rows)
    usage = decay * usage + (1 - decay) * counts
    share = (1 - decay) * counts / usage.clamp(min=1e-8)
    means = sums / counts.clamp(min=1)[:, None]
    return torch.lerp(table, means, share[:, None]), usage


def whiten(codebook: Float[Tensor, "codes code_dim"]) -> Float[Tensor, "codes code_dim"]:
    """Return the codes with every direction brought to about the same spread.

    Codes of a large thing lie far apart and would drown those of a small one: a ball's places are
    1 % of the spread between field and wall. The map is symmetric (ZCA), so it does not depend on
    the signs that a machine's eigenvectors come with.
    """
    centred = (codebook - codebook.mean(0)).double()
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    gain = len(codebook) ** 0.5 / (spread + WHITENING_FLOOR * spread.amax().clamp(min=1e-8))
    whitened: Tensor = centred @ (directions.T * gain) @ directions
    return whitened.to(codebook)
