"""Latent action model: names the action between two frames without being told it."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch, to_float
from genie_gym.errors import ConfigError
from genie_gym.models.tokenizer import Metrics, change_weights, sharpness
from genie_gym.nn.patches import grid_size, patchify, unpatchify
from genie_gym.nn.quantizer import Quantized, QuantizerConfig, VectorQuantizer
from genie_gym.nn.transformer import SpatialPositions, STTransformer, TransformerConfig

MOMENT_GAIN = 4.0
"""Brings the move of a paddle or a ball over a few pixels to about 1."""
NUM_MOMENTS = 12
EDGE = 1 / 1020
"""Pixels are kept this far from 0 and 1 before the logit: a quarter of a grey level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentActionConfig:
    """Shape of the latent action model and weights of its loss."""

    patch_size: int = 16
    """Side of one patch, in pixels."""
    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    """Pairs of neighbouring frames to one vector a transition; its window counts pairs."""
    decoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=2, temporal_window=1)
    )
    """Short history and code to the next frame; its window is kept at 4 or less."""
    quantizer: QuantizerConfig = field(
        default_factory=lambda: QuantizerConfig(num_codes=8, dead_usage=0.1)
    )
    """The codes; 8 in the paper."""
    change_weight: float = 10.0
    """Extra weight of pixels that differ from a neighbouring frame."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        window = self.decoder.temporal_window
        if not 1 <= window <= 4:
            raise ConfigError(
                "lam.decoder.temporal_window must be 1 to 4 (a longer history does without the "
                f"code), got {window}"
            )
        if self.quantizer.code_dim < NUM_MOMENTS:
            raise ConfigError(
                f"lam.quantizer.code_dim must be at least {NUM_MOMENTS} (the moments of a change), "
                f"got {self.quantizer.code_dim}"
            )


def motion_moments(frames: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T-1 moments"]:
    """Return how far each colour's light moved, down and right, in the left and right half.

    For a thing that moves without changing, the first moment of the difference is its brightness
    times its path, wherever it is. Squashed to (-1, 1), so that a sudden scene does not outweigh
    all movement.
    """
    frames = frames.float()
    change = frames[:, 1:] - frames[:, :-1]
    height, width = change.shape[2:4]
    down = torch.linspace(-1, 1, height, device=frames.device)
    right = torch.linspace(-1, 1, width, device=frames.device)
    half = torch.stack([right < 0, right >= 0]).to(frames.dtype)
    moved_down = torch.einsum("bthwc,h,sw->btsc", change, down, half)
    moved_right = torch.einsum("bthwc,w,sw->btsc", change, right, half)
    moments = torch.stack([moved_down, moved_right], dim=2)
    return torch.tanh(MOMENT_GAIN * rearrange(moments, "B T way half C -> B T (way half C)"))


class LatentActionModel(nn.Module):
    """VQ-VAE over transitions: one code each, and a decoder that cannot do without it.

    The decoder starts from the last frame and learns what to change, so the code is all that
    tells it how things move on. The vector behind a code is the moments of the change plus what
    the encoder adds: a code means a motion from the start, so the decoder learns to heed it.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 and appendix C.1. Starting from the last frame,
        the moments, the short history and the weight on changed pixels are ours.
    """

    def __init__(
        self, config: LatentActionConfig, *, height: int, width: int, generator: torch.Generator
    ) -> None:
        """Build it for frames of one size."""
        super().__init__()
        self.config = config
        self.generator = generator
        self.height, self.width = height, width
        rows, columns = grid_size(height, width, config.patch_size)
        patch_dim = 3 * config.patch_size**2
        encoder, decoder, code_dim = config.encoder, config.decoder, config.quantizer.code_dim
        self.embed_encoder = nn.Linear(2 * patch_dim, encoder.dim)
        self.encoder_positions = SpatialPositions(rows, columns, encoder.dim)
        self.encoder = STTransformer(encoder)
        self.to_code = nn.Linear(encoder.dim * rows * columns, code_dim)
        nn.init.normal_(self.to_code.weight, std=0.1 / self.to_code.in_features**0.5)
        nn.init.zeros_(self.to_code.bias)
        self.quantizer = VectorQuantizer(config.quantizer, generator=generator)
        self.embed_decoder = nn.Linear(patch_dim, decoder.dim)
        self.decoder_positions = SpatialPositions(rows, columns, decoder.dim)
        self.embed_action = nn.Linear(code_dim, decoder.dim)
        self.decoder = STTransformer(decoder)
        self.to_patch = nn.Linear(decoder.dim, patch_dim)
        # Small, so that training begins near a copy; not zero, which would block the code's path.
        nn.init.normal_(self.to_patch.weight, std=0.1 / decoder.dim**0.5)
        nn.init.zeros_(self.to_patch.bias)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on a batch of frames; in evaluation mode also code gain and sharpness.

        `code_gain` is the squared error with codes shuffled between transitions over the error
        with the right ones: near 1 the code is ignored, whatever the codebook's use says.
        """
        assert batch.frames is not None
        frames = to_float(batch.frames)
        quantized = self._quantize(frames)
        target, weights = frames[:, 1:], change_weights(frames, self.config.change_weight)[:, 1:]
        logits = self._predict_logits(frames[:, :-1], quantized.vectors)
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = (weights * bce).mean() + quantized.loss

        predicted = logits.sigmoid()
        mse = (predicted - target).square().mean().item()
        metrics = {
            "mse": mse,
            "copy_mse": (frames[:, :-1] - target).square().mean().item(),
            "perplexity": quantized.perplexity.item(),
        }
        if not self.training:
            metrics["code_gain"] = self._shuffled_mse(frames, quantized) / mse
            metrics |= sharpness(predicted, target, weights)
        return loss, metrics

    def infer(self, frames: Float[Tensor, "B T H W C"]) -> Int[Tensor, "B T-1"]:
        """Name the action between every two neighbouring frames.

        Args:
            frames: clip in [0, 1], oldest first, at the recording's frame rate.

        Returns:
            Latent action from `frames[:, t]` to `frames[:, t + 1]`, in [0, num_codes).

        Raises:
            ValueError: the clip has fewer than two frames.
        """
        if frames.shape[1] < 2:
            raise ValueError(f"a transition needs two frames, got {frames.shape[1]}")
        return self._quantize(frames).codes

    def predict(
        self, frames: Float[Tensor, "B T H W C"], actions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T H W C"]:
        """Return the frame that follows each frame under a latent action, in [0, 1]."""
        return self._predict_logits(frames, self.quantizer.embed(actions)).sigmoid()

    def _quantize(self, frames: Float[Tensor, "B T H W C"]) -> Quantized:
        pairs = torch.cat([frames[:, :-1], frames[:, 1:]], dim=-1)
        patches = patchify(pairs, self.config.patch_size)
        features = self.encoder(self.embed_encoder(patches) + self.encoder_positions())
        moments = motion_moments(frames)
        vectors = self.to_code(features.flatten(2)).float()
        vectors = vectors + F.pad(moments, (0, vectors.shape[-1] - moments.shape[-1]))
        quantized: Quantized = self.quantizer(vectors)
        return quantized

    def _predict_logits(
        self, frames: Float[Tensor, "B T H W C"], vectors: Float[Tensor, "B T code_dim"]
    ) -> Float[Tensor, "B T H W C"]:
        patches = patchify(frames, self.config.patch_size)
        embedded = self.embed_decoder(patches) + self.decoder_positions()
        features = self.decoder(embedded + self.embed_action(vectors)[:, :, None])
        change = self.to_patch(features).float()
        change = unpatchify(change, self.config.patch_size, self.height, self.width)
        return torch.logit(frames, eps=EDGE) + change

    def _shuffled_mse(self, frames: Float[Tensor, "B T H W C"], quantized: Quantized) -> float:
        codes = quantized.codes.flatten()
        order = torch.randperm(len(codes), generator=self.generator)
        shuffled = codes[order.to(codes.device)].view(quantized.codes.shape)
        predicted = self.predict(frames[:, :-1], shuffled)
        error = reduce((predicted - frames[:, 1:]).square(), "B T H W C -> ", "mean")
        return float(error)
