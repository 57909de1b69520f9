"""How well single frames survive the tokenizer."""

import numpy as np
import torch
from jaxtyping import Int, UInt8

from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, mean_or_none
from genie_gym.evaluation.object_figures import ball_error, share_near
from genie_gym.evaluation.objects import find_objects, why_no_objects
from genie_gym.evaluation.pixels import mse, psnr, ssim
from genie_gym.evaluation.rollout import Heldout
from genie_gym.models.world import World

FRAMES_AT_ONCE = 256


def reconstruction(world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return the errors of rebuilt frames, and how many codes they take.

    Every frame is encoded on its own. `codebook` counts codes over these frames: the perplexity is
    exp of the entropy of their shares, dead ones never occur.
    """
    rows = heldout.rows
    count = min(config.num_frames, len(rows.frames))
    chosen = np.linspace(0, len(rows.frames) - 1, count).astype(np.int64)
    frames = np.asarray(rows.frames[chosen])
    parts = np.array_split(frames, -(-count // FRAMES_AT_ONCE))
    rebuilt, tokens = map(
        np.concatenate, zip(*(_rebuild(world, part) for part in parts), strict=True)
    )
    errors = mse(rebuilt, frames)
    report: Report = {
        "frames": count,
        "mse": float(errors.mean()),
        "psnr": float(psnr(errors).mean()),
        "ssim": float(ssim(rebuilt, frames).mean()),
        "codebook": codebook_use(tokens, world.config.tokenizer.quantizer.num_codes),
    }
    return report | _objects(world, frames, rebuilt)


def _objects(
    world: World, frames: UInt8[np.ndarray, "N H W C"], rebuilt: UInt8[np.ndarray, "N H W C"]
) -> Report:
    """Return whether the ball is still where it was, and each paddle, within a pixel."""
    if reason := why_no_objects(world):
        return {"ball_within_1px": None, "reason": reason}
    real, guess = (find_objects(some, world.config.game) for some in (frames, rebuilt))
    report: Report = {
        "ball_within_1px": share_near(ball_error(real, guess), real.ball_seen, 1),
        "ball_false": mean_or_none(guess.ball_seen & ~real.ball_seen),
        "frames_with_ball": int(real.ball_seen.sum()),
    }
    for name, place in real.paddles.items():
        error = np.abs(place - guess.paddles[name])
        report[f"{name}_paddle_within_1px"] = share_near(error, ~np.isnan(place), 1)
    if None in report.values():
        report["reason"] = "no frame of the recording shows it"
    return report


def codebook_use(tokens: Int[np.ndarray, "N S"], num_codes: int) -> Report:
    """Return how many codes occur, and how evenly.

    Example:
        >>> codebook_use(np.array([[0, 1], [1, 0]]), num_codes=8)
        {'codes': 8, 'dead': 6, 'perplexity': 2.0}
    """
    shares = np.bincount(tokens.ravel(), minlength=num_codes) / tokens.size
    used = shares[shares > 0]
    perplexity = float(np.exp(-(used * np.log(used)).sum()))
    return {"codes": num_codes, "dead": num_codes - len(used), "perplexity": perplexity}


def _rebuild(
    world: World, frames: UInt8[np.ndarray, "N H W C"]
) -> tuple[UInt8[np.ndarray, "N H W C"], Int[np.ndarray, "N S"]]:
    state = world.encode(torch.from_numpy(frames)[:, None], torch.zeros(len(frames), 0).long())
    return world.decode(state).cpu().numpy(), state.tokens.cpu().numpy()
