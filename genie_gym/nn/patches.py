"""Frames to patches and back, and groups of a frame's tokens."""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor

from genie_gym.errors import ConfigError


def grid_size(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Return how many patches cover a frame, in rows and in columns.

    Example:
        >>> grid_size(90, 160, patch_size=4)
        (23, 40)
    """
    return math.ceil(height / patch_size), math.ceil(width / patch_size)


def patchify(frames: Num[Tensor, "B T H W C"], patch_size: int) -> Num[Tensor, "B T S patch"]:
    """Cut every frame into square patches, row by row, padding bottom and right with zeros.

    Example:
        >>> import torch
        >>> patchify(torch.zeros(2, 3, 8, 8, 1), patch_size=4).shape
        torch.Size([2, 3, 4, 16])
    """
    height, width = frames.shape[2:4]
    rows, columns = grid_size(height, width, patch_size)
    bottom, right = rows * patch_size - height, columns * patch_size - width
    if bottom or right:
        frames = F.pad(frames, (0, 0, 0, right, 0, bottom))
    pattern = "B T (h p) (w q) C -> B T (h w) (p q C)"
    return rearrange(frames, pattern, p=patch_size, q=patch_size)


def unpatchify(
    patches: Num[Tensor, "B T S patch"], patch_size: int, height: int, width: int
) -> Num[Tensor, "B T H W C"]:
    """Put patches back into frames of the stated size, cropping what `patchify` padded."""
    rows, columns = grid_size(height, width, patch_size)
    pattern = "B T (h w) (p q C) -> B T (h p) (w q) C"
    frames = rearrange(patches, pattern, h=rows, w=columns, p=patch_size, q=patch_size)
    return frames[:, :, :height, :width]


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """Tokens of a frame, and the square groups they form."""

    rows: int
    columns: int
    group_size: int

    def __post_init__(self) -> None:
        """Check that groups fill the frame."""
        if self.rows % self.group_size or self.columns % self.group_size:
            raise ConfigError(
                f"group_size must divide the {self.rows} x {self.columns} tokens of a "
                f"frame, got {self.group_size}"
            )

    @property
    def group_rows(self) -> int:
        """Rows of groups."""
        return self.rows // self.group_size

    @property
    def group_columns(self) -> int:
        """Columns of groups."""
        return self.columns // self.group_size

    @property
    def num_groups(self) -> int:
        """Groups a frame."""
        return self.group_rows * self.group_columns

    def join(self, x: Num[Tensor, "B T S D"]) -> Num[Tensor, "B T groups joined"]:
        """Put the features of a group's tokens side by side."""
        pattern = "B T (h g w k) D -> B T (h w) (g k D)"
        sizes = {"h": self.group_rows, "g": self.group_size, "k": self.group_size}
        return rearrange(x, pattern, **sizes)

    def split(self, x: Float[Tensor, "B T groups joined"]) -> Float[Tensor, "B T S D"]:
        """Give every token its part back."""
        pattern = "B T (h w) (g k D) -> B T (h g w k) D"
        sizes = {"h": self.group_rows, "g": self.group_size, "k": self.group_size}
        return rearrange(x, pattern, **sizes)
