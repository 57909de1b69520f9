"""Prediction error against horizon, on free rollouts, beside copying the last real frame."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from genie_gym.data.batch import to_float
from genie_gym.evaluation.config import STEPS
from genie_gym.evaluation.estimates import Report, spread
from genie_gym.evaluation.pixels import changed_pixels, mse, mse_where, psnr, ssim
from genie_gym.evaluation.rollout import WINDOWS_AT_ONCE, Rollouts
from genie_gym.models.world import World


def prediction(world: World, rollouts: Sequence[Rollouts]) -> Report:
    """Return the errors after 1, 2, 5, ... imagined steps, over all windows.

    Args:
        world: the world that imagined.
        rollouts: free rollouts, the shortest first; a step is measured on the first that reach it.

    `copy_...` is what showing the last real frame for ever would score. Its skill and its token
    accuracy are 0: a changed token is one that differs from the last real frame's.
    """
    report: Report = {"by_step": {}}
    for some, steps in divide(rollouts):
        tokens = _real_tokens(world, some)
        for step in steps:
            report["by_step"][step] = _errors(some, tokens, step)
    return report


def divide(rollouts: Sequence[Rollouts]) -> list[tuple[Rollouts, list[int]]]:
    """Return which of the `STEPS`, and its last one, are measured on which rollouts."""
    divided, reached = [], 0
    for some in rollouts:
        last = some.real.shape[1]
        steps = sorted({step for step in (*STEPS, last) if reached < step <= last})
        divided.append((some, steps))
        reached = last
    return divided


def _errors(rollouts: Rollouts, tokens: Int[np.ndarray, "N steps S"], step: int) -> Report:
    real, guess = rollouts.real[:, step - 1], rollouts.imagined[:, step - 1]
    last = rollouts.context[:, -1]
    error, copy_error = mse(guess, real), mse(last, real)
    changed = changed_pixels(real, last)
    none = "nothing changed after the last real frame"
    return {
        "scored": len(real),
        "psnr": spread(psnr(error)),
        "copy_psnr": spread(psnr(copy_error)),
        "ssim": spread(ssim(guess, real)),
        "copy_ssim": spread(ssim(last, real)),
        "psnr_changed": spread(psnr(mse_where(changed, guess, real)), none),
        "copy_psnr_changed": spread(psnr(mse_where(changed, last, real)), none),
        "skill": _skill(error, copy_error, none),
        "token_accuracy_changed": spread(
            _token_accuracy(rollouts.tokens[:, step - 1], tokens[:, step], tokens[:, 0]), none
        ),
    }


def _skill(
    error: Float[np.ndarray, " N"], copy_error: Float[np.ndarray, " N"], reason: str
) -> Report:
    """Return 1 - error / error of copying, over windows in which anything changed.

    The mean is of the pooled errors: a window in which next to nothing changed would outweigh all
    others.
    """
    moved = copy_error > 0
    skill = spread(1 - error[moved] / copy_error[moved], reason)
    if moved.any():
        skill["mean"] = float(1 - error[moved].mean() / copy_error[moved].mean())
    return skill


def _token_accuracy(
    guess: Int[np.ndarray, "N S"], real: Int[np.ndarray, "N S"], last: Int[np.ndarray, "N S"]
) -> Float[np.ndarray, " measured"]:
    """Return the share of changed tokens that were guessed, without windows that have none."""
    changed = real != last
    count = changed.sum(1)
    right = ((guess == real) & changed).sum(1)
    return np.asarray(right[count > 0] / count[count > 0])


def _real_tokens(world: World, rollouts: Rollouts) -> Int[np.ndarray, "N steps S"]:
    """Return the tokens of the last context frame and all real frames after it.

    Frames are encoded from the first of the context on, as the world encoded the context.
    """
    before = rollouts.context.shape[1] - 1
    tokens = []
    for start in range(0, len(rollouts.starts), WINDOWS_AT_ONCE // 4):
        part = slice(start, start + WINDOWS_AT_ONCE // 4)
        frames = np.concatenate([rollouts.context[part], rollouts.real[part]], axis=1)
        with torch.inference_mode():
            clip = to_float(torch.from_numpy(frames).to(world.device))
            tokens.append(world.stack.tokenizer.encode(clip)[:, before:].cpu().numpy())
    return np.concatenate(tokens)
