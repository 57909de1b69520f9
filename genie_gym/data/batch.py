"""One training batch: clips of frames or tokens with what was done and earned between them."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Clips side by side; a stage reads the fields it needs and the others are None.

    `actions[:, t]` leads from frame t to frame t + 1; rewards and ends belong to that step.
    """

    frames: UInt8[Tensor, "B T H W C"] | None = None
    tokens: Int[Tensor, "B T S"] | None = None
    actions: Int[Tensor, "B T-1"] | None = None
    """Indices of the real action set."""
    latent_actions: Int[Tensor, "B T-1"] | None = None
    rewards: Float[Tensor, "B T-1"] | None = None
    terminations: Bool[Tensor, "B T-1"] | None = None
    is_good: Bool[Tensor, " B"] | None = None
    """Whether a person sorted the clip among the good ones."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Batch(**{name: x if x is None else x.to(device) for name, x in fields.items()})


def to_float(frames: UInt8[Tensor, "*batch H W C"]) -> Float[Tensor, "*batch H W C"]:
    """Return frames in [0, 1]; the one place where pixels leave uint8."""
    return frames.float() / 255


def to_uint8(frames: Float[Tensor, "*batch H W C"]) -> UInt8[Tensor, "*batch H W C"]:
    """Return frames in [0, 255], rounded; the way back of `to_float`."""
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)
