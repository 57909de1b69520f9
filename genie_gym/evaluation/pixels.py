"""How far frames are from others: squared error, PSNR and SSIM, a number per frame."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

MAX_PSNR = 100.0
"""dB that stand for equal frames."""
SSIM_SIZE, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2

Frames = UInt8[np.ndarray, "N H W C"]


def squared_error(a: Frames, b: Frames) -> Float[np.ndarray, "N H W"]:
    """Return every pixel's squared difference, averaged over its channels, values in [0, 1]."""
    difference = a.astype(np.float32) - b.astype(np.float32)
    return np.asarray(np.square(difference / 255).mean(-1, dtype=np.float64))


def mse(a: Frames, b: Frames) -> Float[np.ndarray, " N"]:
    """Return every frame's mean squared error, values in [0, 1]."""
    return np.asarray(squared_error(a, b).mean((1, 2)))


def psnr(error: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Turn mean squared errors into dB, at most `MAX_PSNR`."""
    return np.asarray(-10 * np.log10(np.maximum(error, 10 ** (-MAX_PSNR / 10))))


def changed_pixels(frames: Frames, before: Frames) -> Bool[np.ndarray, "N H W"]:
    """Return which pixels differ from an earlier frame, in any channel."""
    return np.asarray((frames != before).any(-1))


def mse_where(
    mask: Bool[np.ndarray, "N H W"], a: Frames, b: Frames
) -> Float[np.ndarray, " measured"]:
    """Return the mean squared error over the marked pixels, without frames that have none."""
    count = mask.sum((1, 2))
    total = np.where(mask, squared_error(a, b), 0).sum((1, 2))
    return np.asarray(total[count > 0] / count[count > 0])


def ssim(a: Frames, b: Frames) -> Float[np.ndarray, " N"]:
    """Return the structural similarity of two frames, 1 for equal ones, averaged over channels.

    Source:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural
        similarity", section III.B: Gaussian window of 11 x 11 pixels, sigma 1.5, K1 = 0.01 and
        K2 = 0.03, only windows that lie in the frame whole. The paper compares luminance; the mean
        over colour channels is ours. A frame smaller than the window gets as large a window as
        fits.
    """
    size = min(SSIM_SIZE, *a.shape[1:3])
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-0.5 * (place / SSIM_SIGMA) ** 2)
    weights = weights / weights.sum()

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, rearrange(weights, "k -> 1 1 k 1"))
        return F.conv2d(x, rearrange(weights, "k -> 1 1 1 k"))

    similarity = []
    # In parts, and in float64: variances are small differences of large squares.
    for start in range(0, len(a), 64):
        x, y = (
            rearrange(torch.from_numpy(frames[start : start + 64]), "N H W C -> (N C) 1 H W")
            .double()
            .div(255)
            for frames in (a, b)
        )
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
        structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
        values = (luminance * structure).mean((1, 2, 3))
        similarity.append(rearrange(values, "(N C) -> N C", C=a.shape[-1]).mean(-1))
    return torch.cat(similarity).numpy() if similarity else np.zeros(0)
