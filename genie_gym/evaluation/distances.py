"""FID and FVD: how far imagined frames and clips lie from real ones, seen by a feature network.

No network comes with this package; without one the figures are None and say what to pass. Two
conventions are known, and none is guessed:

- A TorchScript *file* is called as StyleGAN-V calls its I3D network, the usual one for FVD:
  `network(clips, rescale=True, resize=True, return_features=True)` with uint8 clips (N, 3, T, H, W)
  in [0, 255]; for FID as StyleGAN2-ADA calls its Inception network:
  `network(frames, return_features=True)` with uint8 frames (N, 3, H, W). Both networks scale and
  resize by themselves. LOADING A TORCHSCRIPT FILE RUNS CODE FROM IT: name only files you trust.
- An `nn.Module` from Python is called with the uint8 tensor alone, and does the rest itself.

Both return one row of features (N, features) for each clip or frame.

Source:
    Heusel et al. 2017, "GANs trained by a two time-scale update rule" (FID); Unterthiner et al.
    2018, "Towards accurate generative models of video" (FVD). Conventions:
    github.com/universome/stylegan-v, src/metrics/frechet_video_distance.py, and
    github.com/NVlabs/stylegan2-ada-pytorch, metrics/frechet_inception_distance.py. Ours: no item
    is left out, and covariances are divided by N - 1.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genie_gym.errors import ConfigError
from genie_gym.evaluation.estimates import Report, missing
from genie_gym.evaluation.rollout import Rollouts

FeatureNetwork = str | Path | nn.Module
"""TorchScript file, which runs code when it is loaded, or a module."""
FRAME_OPTIONS = {"return_features": True}
CLIP_OPTIONS = {"rescale": True, "resize": True, "return_features": True}
"""What TorchScript files are told; see above."""
CLIP_LENGTH = 16
"""Frames of a clip that FVD looks at."""
ITEMS_AT_ONCE = 16
REMEDY = "pass one for {}, as a TorchScript file (for example of {}) or an nn.Module from Python"


def frechet_distance(
    mean: Float[np.ndarray, " D"],
    covariance: Float[np.ndarray, "D D"],
    other_mean: Float[np.ndarray, " D"],
    other_covariance: Float[np.ndarray, "D D"],
) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance between two Gaussians, in float64.

    It is |m - n|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). The inner product is symmetric, so its
    root follows from eigenvalues; those that rounding makes negative count as 0.

    Source:
        Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions".

    Example:
        >>> one = np.eye(1)
        >>> frechet_distance(np.zeros(1), one, np.ones(1), 4 * one)  # (0 - 1)^2 + (1 - 2)^2
        2.0
    """
    mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.asarray(other_covariance, np.float64) @ root)
    trace = np.trace(covariance) + np.trace(other_covariance)
    distance = np.square(mean - other_mean).sum() + trace - 2 * np.sqrt(np.maximum(inner, 0)).sum()
    return float(max(distance, 0))


def distances(
    rollouts: Rollouts,
    *,
    frame_network: FeatureNetwork | None = None,
    clip_network: FeatureNetwork | None = None,
    device: torch.device | str = "cpu",
) -> Report:
    """Return FID and FVD of the first 16 imagined frames of each window, against the real ones.

    `copy` is the same for the last context frame shown for ever. Fewer items than features leave
    a covariance singular and the distance too high: compare figures of equal `count` only.

    Args:
        rollouts: real and imagined frames of the same windows.
        frame_network: sees single frames, for FID.
        clip_network: sees clips, for FVD.
        device: where the networks run.

    Raises:
        ConfigError: a network cannot be loaded, or does not follow the convention.
    """
    real, imagined = rollouts.real[:, :CLIP_LENGTH], rollouts.imagined[:, :CLIP_LENGTH]
    copied = np.broadcast_to(rollouts.context[:, -1:], real.shape)
    report = {
        "fid": missing(f"no feature network: {REMEDY.format('frames', 'Inception')}"),
        "fvd": missing(f"no feature network: {REMEDY.format('clips', 'I3D')}"),
    }
    if frame_network is not None:
        see = _load(frame_network, FRAME_OPTIONS, device)
        pattern = "N T H W C -> (N T) C H W"
        report["fid"] = _distance(see, *(rearrange(x, pattern) for x in (real, imagined, copied)))
    if clip_network is not None and real.shape[1] < CLIP_LENGTH:
        report["fvd"] = missing(
            f"clips have {CLIP_LENGTH} frames, but only {real.shape[1]} steps were imagined. "
            "Take a longer horizon"
        )
    elif clip_network is not None:
        see = _load(clip_network, CLIP_OPTIONS, device)
        pattern = "N T H W C -> N C T H W"
        report["fvd"] = _distance(see, *(rearrange(x, pattern) for x in (real, imagined, copied)))
    return report


def _distance(
    see: Callable[[Tensor], Tensor],
    real: UInt8[np.ndarray, "N C *frames"],
    imagined: UInt8[np.ndarray, "N C *frames"],
    copied: UInt8[np.ndarray, "N C *frames"],
) -> Report:
    if len(real) < 2:
        return missing("a covariance needs two windows or more. Record longer play")
    truth, guess, copy = (_gaussian(_features(see, items)) for items in (real, imagined, copied))
    return {
        "value": frechet_distance(*truth, *guess),
        "copy": frechet_distance(*truth, *copy),
        "count": len(real),
        "features": len(truth[0]),
    }


def _gaussian(
    features: Float[np.ndarray, "N D"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
    return features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False))


@torch.inference_mode()
def _features(
    see: Callable[[Tensor], Tensor], items: UInt8[np.ndarray, "N C *frames"]
) -> Float[np.ndarray, "N features"]:
    parts = []
    for start in range(0, len(items), ITEMS_AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(items[start : start + ITEMS_AT_ONCE]))
        features = see(part)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(part):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ConfigError(
                f"a feature network must return (N, features) for N items, got {got} for "
                f"{len(part)}. Wrap it in an nn.Module that does"
            )
        parts.append(features.double().cpu().numpy())
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise ConfigError("a feature network must return finite features, got some that are not")
    return values


def _load(
    network: FeatureNetwork, options: dict[str, bool], device: torch.device | str
) -> Callable[[Tensor], Tensor]:
    """Return a function of uint8 items."""
    if isinstance(network, nn.Module):
        module: Any = network.to(device).eval()
        return lambda items: module(items.to(device))
    try:
        load: Any = torch.jit.load  # has no type
        script = load(str(network), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"{network} is no TorchScript file that can be loaded ({str(error).splitlines()[0]}). "
            "Save one with torch.jit.script(module).save(path)"
        ) from error

    def call(items: Tensor) -> Tensor:
        try:
            features: Tensor = script(items.to(device), **options)
        except RuntimeError as error:
            raise ConfigError(
                f"{network} cannot be called as network(uint8 items, {options}): "
                f"{str(error).splitlines()[0]}. Pass an nn.Module from Python that wraps it"
            ) from error
        return features

    return call
