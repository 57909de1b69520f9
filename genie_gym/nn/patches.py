"""Frames to patches and back; sizes that the patch does not divide are padded and cropped again."""

import math

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def grid_size(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Return how many patches cover a frame, in rows and in columns.

    Example:
        >>> grid_size(90, 160, patch_size=4)
        (23, 40)
    """
    return math.ceil(height / patch_size), math.ceil(width / patch_size)


def patchify(frames: Float[Tensor, "B T H W C"], patch_size: int) -> Float[Tensor, "B T S patch"]:
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
    patches: Float[Tensor, "B T S patch"], patch_size: int, height: int, width: int
) -> Float[Tensor, "B T H W C"]:
    """Put patches back into frames of the stated size, cropping what `patchify` padded."""
    rows, columns = grid_size(height, width, patch_size)
    pattern = "B T (h w) (p q C) -> B T (h p) (w q) C"
    frames = rearrange(patches, pattern, h=rows, w=columns, p=patch_size, q=patch_size)
    return frames[:, :, :height, :width]
