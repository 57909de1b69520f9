"""A world against held-out play: pixels, objects, rewards, ends and latent actions.

Rollouts are free: after the context, the world sees nothing but its own frames and the real
actions. Pixel averages prove little on Pong (copying the last frame scores 33 dB and more), so
the ball and the paddle are found by colour and place in both frames and compared.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from genie_gym.data.hdf5 import Recording, Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError
from genie_gym.evaluation.objects import PongObjects, find_objects
from genie_gym.models.world import World

Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How much is measured."""

    num_windows: int = 400
    """Free rollouts."""
    context_length: int = 8
    """Real frames before the first imagined one."""
    horizon: int = 10
    """Imagined steps a rollout."""
    num_frames: int = 4000
    """Frames that are rebuilt."""
    seed: int = 0
    """Draws the windows and the samples."""
    temperature: float | None = None
    """Sampling temperature; the bundle's by default."""
    num_maskgit_steps: int | None = None
    """Refinement steps; the bundle's by default."""


def evaluate(world: World, path: Path, config: EvaluationConfig) -> Report:
    """Return every figure as a nested mapping.

    Raises:
        DataError: the recording does not fit the world, or is too short.
    """
    recording = Recording.open(path)
    if not recording.has_actions:
        raise DataError(f"{path} is a video without actions; a world is judged on played games")
    rows = recording.load()
    report: Report = {
        "data": {"path": str(path), "frames": len(rows.frames), "episodes": recording.num_episodes},
        "reconstruction": reconstruction(world, rows, config),
        "rollout": rollouts(world, rows, config),
        "events": events(world, rows, config),
    }
    if "lam" in world.parts:
        report["latent_actions"] = latent_actions(world, rows, config)
    return report


def reconstruction(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return how well single frames survive the tokenizer."""
    count = min(config.num_frames, len(rows.frames))
    chosen = np.linspace(0, len(rows.frames) - 1, count).astype(np.int64)
    frames = rows.frames[chosen]
    rebuilt = np.concatenate([_rebuild(world, part) for part in np.array_split(frames, 16)])
    report: Report = {"mse": _mse(rebuilt, frames), "frames": count}
    if world.config.game == "Pong":
        real, imagined = find_objects(frames), find_objects(rebuilt)
        report["ball_within_1px"] = _share_near(_ball_error(real, imagined), real.ball_seen, 1)
        report["ball_false"] = float((imagined.ball_seen & ~real.ball_seen).mean())
        report["frames_with_ball"] = int(real.ball_seen.sum())
    return report


def rollouts(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return errors by imagined step, over windows without a point before the scored step."""
    length = config.context_length + config.horizon
    windows = EpisodeWindows(rows)
    rng = np.random.default_rng(config.seed)
    starts = rng.choice(windows.valid_starts(length), 3 * config.num_windows, replace=False)
    starts = starts[_is_played(rows, starts, config)][: config.num_windows]
    clip = windows.clip(starts, length)
    assert clip.actions is not None and clip.rewards is not None
    imagined = imagine(world, clip.frames, clip.actions, config)
    real = clip.frames[:, config.context_length :]
    last = clip.frames[:, config.context_length - 1]
    is_scored = np.cumsum(clip.rewards[:, config.context_length - 1 :] != 0, axis=1) == 0

    report: Report = {"windows": len(starts), "by_step": {}}
    for step in sorted({1, 2, 5, 10, config.horizon} & set(range(1, config.horizon + 1))):
        rows_scored = is_scored[:, step - 1]
        truth, guess = real[rows_scored, step - 1], imagined[rows_scored, step - 1]
        figures: Report = {
            "scored": int(rows_scored.sum()),
            "psnr": _psnr(_mse(guess, truth)),
            "copy_psnr": _psnr(_mse(last[rows_scored], truth)),
        }
        if world.config.game == "Pong":
            figures |= _object_figures(find_objects(truth), find_objects(guess))
        report["by_step"][step] = figures
    return report


def imagine(
    world: World,
    frames: UInt8[np.ndarray, "B T H W C"],
    actions: Int[np.ndarray, "B T-1"],
    config: EvaluationConfig,
) -> UInt8[np.ndarray, "B horizon H W C"]:
    """Return the frames the world imagines after the context, under the recorded actions."""
    context = config.context_length
    generator = torch.Generator().manual_seed(config.seed)
    state = world.encode(
        torch.from_numpy(frames[:, :context]), torch.from_numpy(actions[:, : context - 1])
    )
    imagined = []
    for step in range(config.horizon):
        state, _, _ = world.step(
            state,
            torch.from_numpy(actions[:, context - 1 + step]),
            generator,
            temperature=config.temperature,
            num_maskgit_steps=config.num_maskgit_steps,
        )
        imagined.append(world.decode(state).cpu().numpy())
    return np.stack(imagined, axis=1)


def events(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return how often rewards and ends are found one imagined step ahead, and on all else.

    The world sees the real frames up to the event's action and imagines the frame after it.
    """
    assert rows.rewards is not None and rows.terminations is not None
    kinds = {
        "reward_-1": np.flatnonzero(rows.rewards < 0),
        "reward_+1": np.flatnonzero(rows.rewards > 0),
        "terminated": np.flatnonzero(rows.terminations),
    }
    rng = np.random.default_rng(config.seed)
    report: Report = {}
    for name, found in kinds.items():
        chosen = found if len(found) <= 200 else rng.choice(found, 200, replace=False)
        if len(chosen) == 0:
            report[name] = {"events": 0}
            continue
        expected, ended = _predict_step(world, rows, chosen, config)
        hit = {"reward_-1": expected < -0.5, "reward_+1": expected > 0.5, "terminated": ended > 0.5}
        report[name] = {"events": len(chosen), "recall": float(hit[name].mean())}

    quiet = np.flatnonzero((rows.rewards == 0) & ~rows.terminations)
    chosen = rng.choice(quiet, min(1000, len(quiet)), replace=False)
    expected, ended = _predict_step(world, rows, chosen, config)
    report["quiet"] = {
        "steps": len(chosen),
        "false_reward": float((np.abs(expected) > 0.5).mean()),
        "false_end": float((ended > 0.5).mean()),
        "bias": float(expected.mean()),
    }
    return report


def latent_actions(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return the code gain: error with shuffled codes over error with the inferred ones."""
    windows = EpisodeWindows(rows)
    rng = np.random.default_rng(config.seed)
    length = max(world.config.lam.encoder.temporal_window, 2) + 2
    starts = rng.choice(windows.valid_starts(length), 512)
    frames = torch.from_numpy(windows.clip(starts, length).frames)
    codes = world.infer_latent_actions(frames)[:, -1:]
    shuffled = codes[
        torch.randperm(len(codes), generator=torch.Generator().manual_seed(config.seed))
    ]
    history = torch.from_numpy(windows.clip(starts, length).frames)[:, -2:-1].to(world.device)
    target = frames[:, -1:].float() / 255
    with torch.inference_mode():
        errors = [
            float(
                (world.stack.lam.predict(history.float() / 255, c).cpu() - target).square().mean()
            )
            for c in (codes, shuffled)
        ]
    usage = torch.bincount(codes.flatten().cpu(), minlength=world.num_latent_actions)
    copy = float((history.cpu().float() / 255 - target).square().mean())
    return {
        "mse": errors[0],
        "shuffled_mse": errors[1],
        "copy_mse": copy,
        "code_gain": errors[1] / errors[0],
        "usage": (usage / usage.sum()).tolist(),
    }


def _predict_step(
    world: World, rows: Rows, at: Int[np.ndarray, " rows"], config: EvaluationConfig
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Return the expected reward and chance of an end of the recorded action at each row."""
    assert rows.actions is not None
    expected, ended = [], []
    generator = torch.Generator().manual_seed(config.seed)
    for row in at:
        episode = rows.episode_ids[row]
        first = row
        while first > max(0, row - config.context_length + 1) and (
            rows.episode_ids[first - 1] == episode
        ):
            first -= 1
        state = world.encode(
            torch.from_numpy(rows.frames[None, first : row + 1]),
            torch.from_numpy(rows.actions[None, first:row].astype(np.int64)),
        )
        action = torch.tensor([int(rows.actions[row])])
        _, reward, end = world.step(state, action, generator, temperature=config.temperature)
        expected.append(float(reward))
        ended.append(float(end))
    return np.array(expected), np.array(ended)


def _is_played(
    rows: Rows, starts: Int[np.ndarray, " B"], config: EvaluationConfig
) -> Bool[np.ndarray, " B"]:
    """Return which windows show the ball in at least 2 of the last 4 context frames."""
    ends = starts + config.context_length
    seen = [find_objects(rows.frames[end - 4 : end]).ball_seen.sum() >= 2 for end in ends]
    return np.array(seen, dtype=bool)


def _object_figures(real: PongObjects, imagined: PongObjects) -> Report:
    error = _ball_error(real, imagined)
    own = np.abs(real.own_paddle_y - imagined.own_paddle_y)
    return {
        "ball_within_2px": _share_near(error, real.ball_seen, 2),
        "ball_lost": float((~imagined.ball_seen)[real.ball_seen].mean()),
        "ball_doubled": float((imagined.num_balls > 1).mean()),
        "ball_median_error": float(np.nanmedian(error[real.ball_seen])),
        "own_paddle_within_2px": _share_near(own, ~np.isnan(real.own_paddle_y), 2),
    }


def _ball_error(real: PongObjects, imagined: PongObjects) -> Float[np.ndarray, " N"]:
    error: Float[np.ndarray, " N"] = np.linalg.norm(real.ball_yx - imagined.ball_yx, axis=-1)
    return error


def _share_near(
    error: Float[np.ndarray, " N"], is_shown: Bool[np.ndarray, " N"], limit: float
) -> float:
    """Return the share of shown objects within the limit; one not found in the guess is a miss."""
    return float((np.nan_to_num(error[is_shown], nan=np.inf) <= limit).mean())


def _rebuild(world: World, frames: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    state = world.encode(torch.from_numpy(frames)[:, None], torch.zeros(len(frames), 0).long())
    rebuilt: UInt8[np.ndarray, "N H W C"] = world.decode(state).cpu().numpy()
    return rebuilt


def _mse(a: UInt8[np.ndarray, "*frames"], b: UInt8[np.ndarray, "*frames"]) -> float:
    return float(np.square((a.astype(np.float32) - b.astype(np.float32)) / 255).mean())


def _psnr(mse: float) -> float:
    return float(-10 * np.log10(max(mse, 1e-10)))
