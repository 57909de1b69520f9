"""Video tokenizer (ST-ViViT VQ-VAE): frames -> tokens -> frames."""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch, to_float
from genie_gym.errors import ConfigError
from genie_gym.nn.attention import TemporalCache
from genie_gym.nn.patches import grid_size, patchify, unpatchify
from genie_gym.nn.quantizer import Quantized, QuantizerConfig, VectorQuantizer
from genie_gym.nn.transformer import SpatialPositions, STTransformer, TransformerConfig

Metrics = dict[str, float]
BLUR_CELLS = 4
"""Rows and columns of a blurred patch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Shape of the video tokenizer and weights of its loss."""

    patch_size: int = 16
    """Side of one patch, in pixels; frames are padded to a multiple of it."""
    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    """Frames to latents; its temporal window is how far back a token may look."""
    decoder: TransformerConfig = field(default_factory=TransformerConfig)
    """Codes to frames."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """The codebook between them."""
    change_weight: float = 10.0
    """Extra weight of pixels that changed since the last frame: a ball is a handful of them."""
    blur_weight: float = 0.1
    """Weight of a linear readout of each code that must show the patch blurred, so that pictures
    of a thing a few pixels apart get near codes."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.patch_size < 1:
            raise ConfigError(f"tokenizer.patch_size must be at least 1, got {self.patch_size}")
        if self.change_weight < 0:
            raise ConfigError(
                f"tokenizer.change_weight must be 0 or more, got {self.change_weight}"
            )


def change_weights(
    frames: Float[Tensor, "B T H W C"], change_weight: float
) -> Float[Tensor, "B T H W 1"]:
    """Return 1 for still pixels and `1 + change_weight` for those that differ from a neighbour.

    A pixel of frame t counts when it differs between frames t - 1 and t or between t and t + 1,
    so a moving thing is weighted where it was, is, and will be.
    """
    if frames.shape[1] < 2:
        return torch.ones_like(frames[..., :1])
    moved = (frames[:, 1:] - frames[:, :-1]).abs().amax(-1, keepdim=True) > 1 / 255
    still = torch.zeros_like(moved[:, :1])
    changed = torch.cat([still, moved], dim=1) | torch.cat([moved, still], dim=1)
    return 1 + change_weight * changed


def blur(patches: Float[Tensor, "B T S patch"], patch_size: int) -> Float[Tensor, "B T S cells"]:
    """Return patches through 4 x 4 Gaussian windows, each as wide as their spacing."""
    spacing = patch_size / BLUR_CELLS
    pixels = torch.arange(patch_size, device=patches.device) + 0.5
    centres = (torch.arange(BLUR_CELLS, device=patches.device) + 0.5) * spacing
    windows = torch.exp(-0.5 * ((pixels - centres[:, None]) / spacing) ** 2) / spacing
    patches = rearrange(patches, "B T S (p q C) -> B T S p q C", p=patch_size, q=patch_size)
    cells = torch.einsum("ip,btspqc,jq->btsijc", windows, patches, windows)
    return rearrange(cells, "B T S i j C -> B T S (i j C)")


class Tokenizer(nn.Module):
    """VQ-VAE with ST-transformers on both sides.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 (video tokenizer). The codebook's upkeep, the
        weight on changed pixels and the blurred readout are ours; the paper does not state its
        loss weights.
    """

    def __init__(
        self, config: TokenizerConfig, *, height: int, width: int, generator: torch.Generator
    ) -> None:
        """Build it for frames of one size."""
        super().__init__()
        self.config = config
        self.height, self.width = height, width
        rows, columns = grid_size(height, width, config.patch_size)
        self.num_tokens = rows * columns
        patch_dim = 3 * config.patch_size**2
        encoder, decoder, code_dim = config.encoder, config.decoder, config.quantizer.code_dim
        self.embed_patch = nn.Linear(patch_dim, encoder.dim)
        self.encoder_positions = SpatialPositions(rows, columns, encoder.dim)
        self.encoder = STTransformer(encoder)
        self.to_code = nn.Linear(encoder.dim, code_dim)
        self.quantizer = VectorQuantizer(config.quantizer, generator=generator)
        self.to_blur = nn.Linear(code_dim, 3 * BLUR_CELLS**2)
        self.from_code = nn.Linear(code_dim, decoder.dim)
        self.decoder_positions = SpatialPositions(rows, columns, decoder.dim)
        self.decoder = STTransformer(decoder)
        self.to_patch = nn.Linear(decoder.dim, patch_dim)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on a batch of frames, and reconstruction and codebook figures."""
        assert batch.frames is not None
        frames = to_float(batch.frames)
        quantized = self._quantize(frames)
        decoded = self._to_frames(self.decoder(self._embed_codes(quantized.vectors)))
        squared = (decoded - frames).square()
        weights = change_weights(frames, self.config.change_weight)
        blurred = blur(patchify(frames, self.config.patch_size), self.config.patch_size)
        blur_loss = (self.to_blur(quantized.vectors).float() - blurred).square().mean()
        loss = (weights * squared).mean() + quantized.loss + self.config.blur_weight * blur_loss
        metrics = {
            "mse": squared.mean().item(),
            "changed_mse": (squared * (weights > 1)).sum().item()
            / max(3 * (weights > 1).sum().item(), 1),
            "commitment": quantized.loss.item(),
            "blur_mse": blur_loss.item(),
            "perplexity": quantized.perplexity.item(),
        }
        return loss, metrics

    def encode(self, frames: Float[Tensor, "B T H W C"]) -> Int[Tensor, "B T S"]:
        """Return the tokens of a clip of frames in [0, 1]."""
        return self._quantize(frames).codes

    def decode(self, tokens: Int[Tensor, "B T S"]) -> Float[Tensor, "B T H W C"]:
        """Return the frames, in [0, 1], that tokens of a clip stand for."""
        embedded = self._embed_codes(self.quantizer.embed(tokens))
        return self._to_frames(self.decoder(embedded)).clamp(0, 1)

    def encode_step(
        self, frames: Float[Tensor, "B H W C"], cache: TemporalCache
    ) -> tuple[Int[Tensor, "B S"], TemporalCache]:
        """Return the tokens of one new frame, and the cache that remembers it."""
        embedded = self._embed_frames(frames[:, None])[:, 0]
        features, cache = self.encoder.step(embedded, cache)
        return self.quantizer(self.to_code(features)).codes, cache

    def decode_step(
        self, tokens: Int[Tensor, "B S"], cache: TemporalCache, *, is_kept: bool = True
    ) -> tuple[Float[Tensor, "B H W C"], TemporalCache]:
        """Return the frame, in [0, 1], of one new set of tokens, and the cache after it."""
        embedded = self._embed_codes(self.quantizer.embed(tokens)[:, None])[:, 0]
        features, cache = self.decoder.step(embedded, cache, is_kept=is_kept)
        return self._to_frames(features[:, None])[:, 0].clamp(0, 1), cache

    def _embed_frames(self, frames: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T S D"]:
        patches = patchify(frames, self.config.patch_size)
        out: Tensor = self.embed_patch(patches) + self.encoder_positions()
        return out

    def _quantize(self, frames: Float[Tensor, "B T H W C"]) -> Quantized:
        features = self.encoder(self._embed_frames(frames))
        quantized: Quantized = self.quantizer(self.to_code(features))
        return quantized

    def _embed_codes(self, vectors: Float[Tensor, "B T S code_dim"]) -> Float[Tensor, "B T S D"]:
        out: Tensor = self.from_code(vectors) + self.decoder_positions()
        return out

    def _to_frames(self, features: Float[Tensor, "B T S D"]) -> Float[Tensor, "B T H W C"]:
        patches = self.to_patch(features).float()
        return unpatchify(patches, self.config.patch_size, self.height, self.width)
