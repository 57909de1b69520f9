"""Vector quantization whose codebook follows the data by moving averages and never dies out."""

from dataclasses import dataclass

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
        """Make a codebook without use; the first training batches place its codes."""
        super().__init__()
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
        share = torch.bincount(codes.flatten(), minlength=self.config.num_codes) / codes.numel()
        perplexity = torch.exp(-(share * torch.log(share.clamp(min=1e-10))).sum())
        straight_through = vectors + (chosen - vectors).detach()
        return Quantized(straight_through, codes, loss, perplexity)

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
        decay = self.config.decay
        counts = torch.bincount(codes, minlength=self.config.num_codes).float()
        sums = torch.zeros_like(table).index_add_(0, codes, rows)
        usage = decay * self.usage + (1 - decay) * counts
        share = (1 - decay) * counts / usage.clamp(min=1e-8)
        means = sums / counts.clamp(min=1)[:, None]
        self._write(torch.lerp(table, means, share[:, None]), usage)

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
