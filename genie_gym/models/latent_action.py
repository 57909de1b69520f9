"""Latent action model: names the action between two frames without being told it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from genie_gym.data.batch import Batch, to_float
from genie_gym.errors import ConfigError
from genie_gym.models.code_terms import (
    labelled_cross_entropy,
    shifted_view,
    uneven_use,
    unsteadiness,
)
from genie_gym.models.tokenizer import Metrics, change_weights, sharpness
from genie_gym.nn.patches import grid_size, patchify, unpatchify
from genie_gym.nn.quantizer import Quantized, QuantizerConfig, VectorQuantizer
from genie_gym.nn.transformer import SpatialPositions, STTransformer, TransformerConfig

MOMENT_GAIN = 6.0
"""Brings the move of a paddle over two pixels to about 1. The squashing is flat beyond, and below a
half: a code tells which way a thing goes, not how far, so that it can be held from rest on."""
NUM_MOMENTS = 12
NUDGE = 0.1
"""Most that the encoder adds to an entry of a code's vector: it may split a motion, not drop it."""
EDGE = 1 / 1020
"""Pixels are kept this far from 0 and 1 before the logit: a quarter of a grey level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentActionConfig:
    """Shape of the latent action model and weights of its loss."""

    input: Literal["pixels", "tokens"] = "pixels"
    """What a code is named from: the frames, or what their tokens show of them."""
    patch_size: int = 16
    """Side of one patch, in pixels."""
    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    """Pairs of neighbouring frames to one vector a transition; its window counts pairs."""
    decoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=2, temporal_window=4)
    )
    """Short history and code to the next frame; its window is kept at 4 or less."""
    quantizer: QuantizerConfig = field(
        default_factory=lambda: QuantizerConfig(num_codes=8, dead_usage=0.1)
    )
    """The codes; 8 in the paper."""
    change_weight: float = 10.0
    """Extra weight of pixels that differ from a neighbouring frame."""
    entropy_weight: float = 0.0
    """Pull towards even use of the codes."""
    consistency_weight: float = 0.0
    """Pull of a transition and its view shifted by a few pixels towards one vector."""
    smoothness_weight: float = 0.0
    """Pull of neighbouring transitions towards one vector."""
    supervision_weight: float = 0.0
    """Weight of telling the real action from the code's vector, where it is known."""
    num_labels: int = 0
    """Transitions whose real action is known to the supervision; with 0 it has no effect."""

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
        weights = ("entropy_weight", "consistency_weight", "smoothness_weight")
        for name in (*weights, "supervision_weight", "change_weight", "num_labels"):
            if getattr(self, name) < 0:
                raise ConfigError(f"lam.{name} must be 0 or more, got {getattr(self, name)}")


def motion_moments(frames: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T-1 moments"]:
    """Return how far each colour's light moved, down and right, in the left and right half.

    Down is summed over columns, right over rows: in each, the first moment of the difference about
    the place where it changed. A thing that moves along the line gives its brightness times its
    path, wherever it is; one that appears, blinks out or crosses the line gives nothing. Paths are
    in halves of the frame's height and in quarters of its width, then squashed to (-1, 1):
    a drift goes under, and any clear move is 1.
    """
    frames = frames.float()
    change = frames[:, 1:] - frames[:, :-1]
    change = F.pad(change, (0, 0, 0, change.shape[3] % 2))  # two halves of one width
    with torch.autocast(frames.device.type, enabled=False):
        down = _moments_in_columns(change)
        turned = rearrange(change, "B T H (half W) C -> (half B) T W H C", half=2)
        right = _moments_in_columns(turned)
    down = reduce(down, "B T (half W) C -> B T half C", "sum", half=2)
    right = reduce(right, "(half B) T H C -> B T half C", "sum", half=2)
    moments = rearrange([down, right], "way B T half C -> B T (way half C)")
    return torch.tanh((MOMENT_GAIN * moments) ** 3)


def _moments_in_columns(change: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T W C"]:
    """Return each column's first moment down, from -1 to 1, about the middle of its change."""
    down = torch.linspace(-1, 1, change.shape[2], device=change.device)
    size = change.abs().sum(-1)
    middle = torch.einsum("bthw,h->btw", size, down) / size.sum(2).clamp(min=1e-6)
    moment = torch.einsum("bthwc,h->btwc", change, down)
    return moment - middle[..., None] * change.sum(2)


class LatentActionModel(nn.Module):
    """VQ-VAE over transitions: one code each, and a decoder that cannot do without it.

    The decoder starts from the last frame and learns what to change. A short history tells it what
    the past foretells, so that codes are left for the rest. The vector behind a code is the
    moments of the change plus a little that the encoder adds: a code means a motion from the start,
    so the decoder learns to heed it, and goes on to mean it.

    Source:
        Bruce et al. 2024, "Genie", section 2.1 and appendix C.1. Starting from the last frame,
        the moments, the short history and the weight on changed pixels are ours.
    """

    def __init__(
        self,
        config: LatentActionConfig,
        *,
        height: int,
        width: int,
        num_actions: int,
        generator: torch.Generator,
        show_tokens: Callable[[Tensor], Tensor],
    ) -> None:
        """Build it for frames of one size.

        Args:
            config: its shape and loss.
            height: rows of a frame.
            width: columns of a frame.
            num_actions: real actions that a supervised model tells apart.
            generator: owns its randomness.
            show_tokens: returns what is left of frames in their tokens; for input "tokens".
        """
        super().__init__()
        self.config = config
        self.show_tokens = show_tokens
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
        self.to_action = nn.Linear(code_dim, num_actions) if config.supervision_weight else None

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on a batch of frames; in evaluation mode also code gain and sharpness.

        `code_gain` is the squared error with codes shuffled between transitions over the error
        with the right ones: near 1 the code is ignored, whatever the codebook's use says.
        """
        assert batch.frames is not None
        frames = to_float(batch.frames)
        vectors = self._to_vectors(frames)
        quantized = self.quantizer(vectors)
        target, weights = frames[:, 1:], change_weights(frames, self.config.change_weight)[:, 1:]
        logits = self._predict_logits(frames[:, :-1], quantized.vectors)
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        loss = (weights * bce).mean() + quantized.loss
        loss = loss + self._code_terms(batch, frames, vectors, quantized)

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
        quantized: Quantized = self.quantizer(self._to_vectors(frames))
        return quantized.codes

    def predict(
        self, frames: Float[Tensor, "B T H W C"], actions: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T H W C"]:
        """Return the frame that follows each frame under a latent action, in [0, 1]."""
        return self._predict_logits(frames, self.quantizer.embed(actions)).sigmoid()

    def _to_vectors(self, frames: Float[Tensor, "B T H W C"]) -> Float[Tensor, "B T-1 code_dim"]:
        if self.config.input == "tokens":
            frames = self.show_tokens(frames)
        pairs = torch.cat([frames[:, :-1], frames[:, 1:]], dim=-1)
        patches = patchify(pairs, self.config.patch_size)
        features = self.encoder(self.embed_encoder(patches) + self.encoder_positions())
        moments = motion_moments(frames)
        vectors = NUDGE * self.to_code(features.flatten(2)).float().tanh()
        out: Tensor = vectors + F.pad(moments, (0, vectors.shape[-1] - moments.shape[-1]))
        return out

    def _code_terms(
        self,
        batch: Batch,
        frames: Float[Tensor, "B T H W C"],
        vectors: Float[Tensor, "B T-1 code_dim"],
        quantized: Quantized,
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the terms that are switched on."""
        config, loss = self.config, vectors.new_zeros(())
        if config.entropy_weight:
            loss = loss + config.entropy_weight * uneven_use(vectors, self.quantizer.codebook)
        if config.consistency_weight:
            view = self._to_vectors(shifted_view(frames, self.generator))
            loss = loss + config.consistency_weight * F.mse_loss(view, vectors)
        if config.smoothness_weight:
            loss = loss + config.smoothness_weight * unsteadiness(vectors)
        if self.to_action is not None:
            assert batch.actions is not None
            logits = self.to_action(quantized.vectors)
            told = labelled_cross_entropy(logits.float(), batch.actions)
            loss = loss + config.supervision_weight * told
        return loss

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
