"""The quality filter: a ResNet-18 that tells good clips of video from bad ones by their looks.

A filter is a folder of `filter.yaml` and `weights.safetensors`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genie_gym.config import from_dict, load_yaml, to_dict
from genie_gym.data.batch import Batch, to_float
from genie_gym.errors import ConfigError, FilterError
from genie_gym.models.tokenizer import Metrics
from genie_gym.nn.resnet import ResNet18

FILTER_VERSION = 1
CARD_FILE, WEIGHTS_FILE = "filter.yaml", "weights.safetensors"
CURE = "Train the filter again: genie-gym data train-filter FOLDER --out FILTER"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFilterConfig:
    """What the filter looks at."""

    width: int = 160
    """Width of a judged frame in pixels; the picture is stretched to it."""
    height: int = 90
    """Height of a judged frame in pixels."""
    num_frames: int = 8
    """Frames of a clip that are judged, at most; they are spread evenly over it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("width", "height", "num_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"filter.{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterCard:
    """What `filter.yaml` holds."""

    filter_version: int
    """Rises with every change of the layout."""
    config: ClipFilterConfig
    """What the filter looks at."""
    provenance: dict[str, Any]
    """How it was trained."""
    figures: dict[str, Any]
    """How well it did then."""


class ClipFilter(nn.Module):
    """Judges frames one by one; a clip is as good as its frames are on average.

    Movement is not seen: what stands still, is cut or is a copy is found by the cheap scores of
    `genie_gym.data.quality`, which go together with this one.

    Source:
        Bruce et al. 2024, "Genie", appendix on the Platformers dataset: 10k videos labelled by
        hand, and a ResNet-18 of 11M parameters that tells the best from the worst. How frames are
        chosen and put together is ours.
    """

    def __init__(self, config: ClipFilterConfig) -> None:
        """Build it untrained."""
        super().__init__()
        self.config = config
        self.network = ResNet18(num_outputs=1)

    def forward(self, batch: Batch) -> tuple[Float[Tensor, ""], Metrics]:
        """Return the loss on frames of labelled clips, and the share that is judged rightly."""
        assert batch.frames is not None and batch.is_good is not None
        logits = self._logits(rearrange(batch.frames, "B T H W C -> (B T) H W C"))
        targets = repeat(batch.is_good, "B -> (B T)", T=batch.frames.shape[1])
        loss = F.binary_cross_entropy_with_logits(logits, targets.float())
        accuracy = ((logits > 0) == targets).float().mean().item()
        return loss, {"accuracy": accuracy}

    @torch.no_grad()
    def score(self, frames: UInt8[np.ndarray, "T H W 3"]) -> float:
        """Return the mean probability that a frame of the clip is good, in [0, 1].

        Raises:
            ConfigError: the frames are smaller than those the filter was trained on.
        """
        width, height = self.config.width, self.config.height
        if frames.shape[1] < height or frames.shape[2] < width:
            raise ConfigError(
                f"the filter judges frames of {width}x{height} pixels or more, got "
                f"{frames.shape[2]}x{frames.shape[1]}, in which it would see blur. Import with "
                f"--size {width}x{height}, or train a filter with a smaller --size"
            )
        num_frames = min(self.config.num_frames, len(frames))
        chosen = frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]
        resized = [
            cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in chosen
        ]
        images = torch.from_numpy(np.stack(resized)).to(self.network.head.weight.device)
        return self._logits(images).sigmoid().mean().item()

    def _logits(self, images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, " B"]:
        out: Tensor = self.network(to_float(images))[:, 0]
        return out


def save_filter(
    folder: Path, clip_filter: ClipFilter, *, provenance: dict[str, Any], figures: dict[str, Any]
) -> None:
    """Write a filter into a folder that nobody reads yet, as `new_folder` gives."""
    card = FilterCard(
        filter_version=FILTER_VERSION,
        config=clip_filter.config,
        provenance=provenance,
        figures=figures,
    )
    (folder / CARD_FILE).write_text(yaml.safe_dump(to_dict(card), sort_keys=False))
    weights = {name: x.contiguous() for name, x in clip_filter.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)


def load_filter(folder: Path) -> ClipFilter:
    """Return a filter, on the CPU.

    Raises:
        FilterError: the folder holds no filter, or one that is damaged or of another version.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        raise FilterError(
            f"{folder} holds no filter (no {CARD_FILE}). Train one: genie-gym data train-filter "
            "FOLDER --out FILTER"
        )
    try:
        values = load_yaml(file)
        if values.get("filter_version") != FILTER_VERSION:
            raise FilterError(
                f"{file} has filter_version {values.get('filter_version')}; this genie_gym reads "
                f"{FILTER_VERSION}. Upgrade genie_gym, or train the filter again"
            )
        config = from_dict(FilterCard, values, str(file)).config
    except ConfigError as error:
        raise FilterError(f"{error}. {CURE}") from error
    with torch.device("meta"):  # no time and no random numbers for weights that are replaced
        clip_filter = ClipFilter(config)
    clip_filter.load_state_dict(_read_weights(folder / WEIGHTS_FILE, clip_filter), assign=True)
    return clip_filter


def _read_weights(path: Path, clip_filter: ClipFilter) -> dict[str, Tensor]:
    """Return the tensors of the file, the same by name, shape and type as the filter's."""
    if not path.is_file():
        raise FilterError(f"{path} is missing. {CURE}")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise FilterError(f"{path} is damaged ({error}). {CURE}") from error
    expected = clip_filter.state_dict()
    if wrong := sorted(expected.keys() ^ weights.keys()):
        what = "lacks" if wrong[0] in expected else "holds the unknown"
        raise FilterError(f"{path} {what} tensor {wrong[0]!r}. {CURE}")
    for name, x in expected.items():
        got = weights[name]
        if (got.shape, got.dtype) != (x.shape, x.dtype):
            raise FilterError(
                f"{path}: {name} must be {x.dtype} of shape {tuple(x.shape)}, got {got.dtype} of "
                f"shape {tuple(got.shape)}. {CURE}"
            )
    return weights
