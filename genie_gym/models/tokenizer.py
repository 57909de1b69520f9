"""Video tokenizer (ST-ViViT VQ-VAE): frames -> tokens -> frames."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
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
"""Figures of a batch by name; what the batch holds nothing to measure on is left out."""
BLUR_CELLS = 4
"""Rows and columns of a blurred patch."""
BLUR_GAIN = 0.5
"""Makes a ball's move across a patch count about as much as its blinking out."""


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
    """Extra weight of pixels that differ from a neighbouring frame: a ball is a handful of them."""

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


def sharpness(
    predicted: Float[Tensor, "B T H W C"],
    target: Float[Tensor, "B T H W C"],
    weights: Float[Tensor, "B T H W 1"],
) -> Metrics:
    """Return the energy of edges over that of the target's, where a pixel is weighted above 1.

    Near 1 for a sharp picture, in the right place or not; an average of several pictures has less.
    Without an edge among those pixels there is no such figure.
    """

    def energy(frames: Tensor) -> Tensor:
        down = frames[..., 1:, :-1, :] - frames[..., :-1, :-1, :]
        right = frames[..., :-1, 1:, :] - frames[..., :-1, :-1, :]
        counted = weights[..., :-1, :-1, :] > 1
        return ((down.square() + right.square()) * counted).sum()

    real = energy(target).item()
    return {"sharpness": energy(predicted).item() / real} if real > 0 else {}


def patch_projection(
    patch_size: int, code_dim: int, generator: torch.Generator
) -> Float[Tensor, "patch code_dim"]:
    """Return a fixed linear map of patches that keeps their distances, near and far.

    The first columns see the patch through 4 x 4 Gaussian windows, so that pictures of one thing
    a few pixels apart lie near each other; the rest are random directions (Johnson and
    Lindenstrauss 1984), which tell apart what a blurred eye cannot.
    """
    spacing = patch_size / BLUR_CELLS
    pixels = torch.arange(patch_size) + 0.5
    centres = (torch.arange(BLUR_CELLS) + 0.5) * spacing
    windows = torch.exp(-0.5 * ((pixels[:, None] - centres) / spacing) ** 2)
    colours = torch.eye(3)
    blurred = torch.einsum("pi,qj,cd->pqcijd", windows, windows, colours)
    blurred = rearrange(blurred, "p q c i j d -> (p q c) (i j d)")
    num_blurred = code_dim // 2
    if num_blurred < blurred.shape[1]:  # too few columns for every window: mix them
        mix = torch.randn(blurred.shape[1], num_blurred, generator=generator)
        blurred = blurred @ mix / num_blurred**0.5
    num_random = code_dim - blurred.shape[1]
    random = torch.randn(len(blurred), num_random, generator=generator)
    return torch.cat([BLUR_GAIN * blurred, random / max(num_random, 1) ** 0.5], dim=1)


class Tokenizer(nn.Module):
    """VQ-VAE with ST-transformers on both sides, beside a direct path.

    A latent is a fixed projection of its patch plus what the encoder adds; a decoded patch is the
    mean patch of its code plus what the decoder adds. So the codebook is a good one from the first
    hundred steps on, and the networks learn the rest.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 (video tokenizer). The direct path, the
        codebook's upkeep and the weight on changed pixels are ours; the paper does not state its
        loss weights.
    """

    projection: Float[Tensor, "patch code_dim"]

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
        projection = patch_projection(config.patch_size, code_dim, generator)
        self.register_buffer("projection", projection)
        self.quantizer = VectorQuantizer(
            config.quantizer, generator=generator, payload_dim=patch_dim
        )
        self.from_code = nn.Linear(code_dim, decoder.dim)
        self.decoder_positions = SpatialPositions(rows, columns, decoder.dim)
        self.decoder = STTransformer(decoder)
        self.to_patch = nn.Linear(decoder.dim, patch_dim)
        for layer in (self.to_code, self.to_patch):  # small beside the direct path, but not zero
            nn.init.normal_(layer.weight, std=0.01 / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on a batch of frames, and reconstruction and codebook figures.

        `sharpness` is among them in evaluation mode.
        """
        assert batch.frames is not None
        frames = to_float(batch.frames)
        quantized = self._quantize(frames)
        decoded = self._decode(quantized.vectors, quantized.codes)
        squared = (decoded - frames).square()
        weights = change_weights(frames, self.config.change_weight)
        loss = (weights * squared).mean() + quantized.loss
        metrics = {
            "mse": squared.mean().item(),
            "changed_mse": (squared * (weights > 1)).sum().item()
            / max(3 * (weights > 1).sum().item(), 1),
            "commitment": quantized.loss.item(),
            "perplexity": quantized.perplexity.item(),
        }
        if not self.training:
            metrics |= sharpness(decoded, frames, weights)
        return loss, metrics

    def encode(self, frames: Float[Tensor, "B T H W C"]) -> Int[Tensor, "B T S"]:
        """Return the tokens of a clip of frames in [0, 1]."""
        return self._quantize(frames).codes

    def decode(self, tokens: Int[Tensor, "B T S"]) -> Float[Tensor, "B T H W C"]:
        """Return the frames, in [0, 1], that tokens of a clip stand for."""
        return self._decode(self.quantizer.embed(tokens), tokens).clamp(0, 1)

    def encode_step(
        self, frames: Float[Tensor, "B H W C"], cache: TemporalCache
    ) -> tuple[Int[Tensor, "B S"], TemporalCache]:
        """Return the tokens of one new frame, and the cache that remembers it."""
        patches = patchify(frames[:, None], self.config.patch_size)
        features, cache = self.encoder.step(self._embed_patches(patches), cache)
        vectors = self._to_vectors(features, patches)
        return self.quantizer(vectors).codes[:, 0], cache

    def decode_step(
        self, tokens: Int[Tensor, "B S"], cache: TemporalCache, *, is_kept: bool = True
    ) -> tuple[Float[Tensor, "B H W C"], TemporalCache]:
        """Return the frame, in [0, 1], of one new set of tokens, and the cache after it."""
        embedded = self._embed_codes(self.quantizer.embed(tokens[:, None]))
        features, cache = self.decoder.step(embedded, cache, num_kept=int(is_kept))
        return self._to_frames(features, tokens[:, None])[:, 0].clamp(0, 1), cache

    def _quantize(self, frames: Float[Tensor, "B T H W C"]) -> Quantized:
        patches = patchify(frames, self.config.patch_size)
        features = self.encoder(self._embed_patches(patches))
        quantized: Quantized = self.quantizer(self._to_vectors(features, patches), patches)
        return quantized

    def _decode(
        self, vectors: Float[Tensor, "B T S code_dim"], codes: Int[Tensor, "B T S"]
    ) -> Float[Tensor, "B T H W C"]:
        return self._to_frames(self.decoder(self._embed_codes(vectors)), codes)

    def _embed_patches(self, patches: Float[Tensor, "B T S patch"]) -> Float[Tensor, "B T S D"]:
        out: Tensor = self.embed_patch(patches) + self.encoder_positions()
        return out

    def _to_vectors(
        self, features: Float[Tensor, "B T S D"], patches: Float[Tensor, "B T S patch"]
    ) -> Float[Tensor, "B T S code_dim"]:
        with torch.autocast(patches.device.type, enabled=False):  # bfloat16 blurs near patches
            direct = patches @ self.projection
        out: Tensor = self.to_code(features) + direct
        return out

    def _embed_codes(self, vectors: Float[Tensor, "B T S code_dim"]) -> Float[Tensor, "B T S D"]:
        out: Tensor = self.from_code(vectors) + self.decoder_positions()
        return out

    def _to_frames(
        self, features: Float[Tensor, "B T S D"], codes: Int[Tensor, "B T S"]
    ) -> Float[Tensor, "B T H W C"]:
        mean_patches = F.embedding(codes, self.quantizer.payload)
        patches = mean_patches + self.to_patch(features).float()
        return unpatchify(patches, self.config.patch_size, self.height, self.width)
