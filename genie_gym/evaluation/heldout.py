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

from genie_gym.data.batch import to_float
from genie_gym.data.hdf5 import Recording, Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import ConfigError, DataError
from genie_gym.evaluation.objects import PongObjects, find_objects
from genie_gym.models.world import World

Report = dict[str, Any]
NUM_TRANSITIONS = 512
"""Transitions that the latent action model is judged on."""
ROWS_AT_ONCE = 64
"""Rows whose next step is imagined together."""


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

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_windows", "context_length", "horizon", "num_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def evaluate(world: World, path: Path, config: EvaluationConfig) -> Report:
    """Return every figure as a nested mapping; what nothing was found to measure on is None.

    Raises:
        DataError: the recording does not fit the world, or is too short.
    """
    recording = Recording.open(path)
    if not recording.has_actions:
        raise DataError(f"{path} is a video without actions; a world is judged on played games")
    rows = recording.load()
    report: Report = {
        "data": {
            "recording": path.name,
            "frames": len(rows.frames),
            "episodes": recording.num_episodes,
        },
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
    parts = np.array_split(frames, min(16, count))
    rebuilt = np.concatenate([_rebuild(world, part) for part in parts])
    report: Report = {"mse": _mse(rebuilt, frames), "frames": count}
    if world.config.game == "Pong":
        real, imagined = find_objects(frames), find_objects(rebuilt)
        report["ball_within_1px"] = _share_near(_ball_error(real, imagined), real.ball_seen, 1)
        report["ball_false"] = _mean(imagined.ball_seen & ~real.ball_seen)
        report["frames_with_ball"] = int(real.ball_seen.sum())
    return report


def rollouts(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return errors by imagined step, over windows without a point before the scored step."""
    length = config.context_length + config.horizon
    windows = EpisodeWindows(rows)
    rng = np.random.default_rng(config.seed)
    starts = windows.valid_starts(length)
    starts = rng.choice(starts, min(3 * config.num_windows, len(starts)), replace=False)
    if world.config.game == "Pong":
        starts = starts[_is_played(rows, starts, config)]
    if len(starts) == 0:
        raise DataError(f"no window of {length} frames shows the ball. Record longer play")
    starts = starts[: config.num_windows]
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
            "psnr": _psnr(guess, truth),
            "copy_psnr": _psnr(last[rows_scored], truth),
        }
        if world.config.game == "Pong" and len(truth):
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
        report[name] = {"events": len(chosen), "recall": _mean(hit[name])}

    is_step = EpisodeWindows(rows).valid_starts(2)  # an episode's last row has no action
    quiet = is_step[(rows.rewards[is_step] == 0) & ~rows.terminations[is_step]]
    chosen = rng.choice(quiet, min(1000, len(quiet)), replace=False)
    expected, ended = _predict_step(world, rows, chosen, config)
    report["quiet"] = {
        "steps": len(chosen),
        "false_reward": _mean(np.abs(expected) > 0.5),
        "false_end": _mean(ended > 0.5),
        "bias": _mean(expected),
    }
    return report


def latent_actions(world: World, rows: Rows, config: EvaluationConfig) -> Report:
    """Return the code gain: error with shuffled codes over error with the inferred ones."""
    windows = EpisodeWindows(rows)
    rng = np.random.default_rng(config.seed)
    lam = world.config.lam
    length = max(lam.encoder.temporal_window, lam.decoder.temporal_window) + 2
    starts = rng.choice(windows.valid_starts(length), NUM_TRANSITIONS)
    frames = torch.from_numpy(windows.clip(starts, length).frames).to(world.device)
    codes = world.infer_latent_actions(frames)
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(config.seed))
    real, target = to_float(frames[:, :-1]), to_float(frames[:, -1])
    with torch.inference_mode():
        mse, shuffled_mse = (
            float((world.stack.lam.predict(real, chosen)[:, -1] - target).square().mean())
            for chosen in (codes, codes[order.to(codes.device)])
        )
    usage = torch.bincount(codes[:, -1].cpu(), minlength=world.num_latent_actions)
    return {
        "mse": mse,
        "shuffled_mse": shuffled_mse,
        "copy_mse": float((real[:, -1] - target).square().mean()),
        "code_gain": shuffled_mse / mse,
        "usage": (usage / usage.sum()).tolist(),
    }


def _predict_step(
    world: World, rows: Rows, at: Int[np.ndarray, " rows"], config: EvaluationConfig
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Return the expected reward and chance of an end of the recorded action at each row."""
    assert rows.actions is not None
    is_first = np.diff(rows.episode_ids, prepend=rows.episode_ids[0] - 1) != 0
    episode_starts = np.maximum.accumulate(np.where(is_first, np.arange(len(is_first)), 0))
    lengths = np.minimum(at - episode_starts[at] + 1, config.context_length)
    expected, ended = np.zeros(len(at)), np.zeros(len(at))
    generator = torch.Generator().manual_seed(config.seed)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        for part in np.array_split(same, -(-len(same) // ROWS_AT_ONCE)):
            context = at[part, None] + np.arange(1 - length, 1)
            actions = torch.from_numpy(rows.actions[context].astype(np.int64))
            state = world.encode(torch.from_numpy(rows.frames[context]), actions[:, :-1])
            _, reward, end = world.step(
                state,
                actions[:, -1],
                generator,
                temperature=config.temperature,
                num_maskgit_steps=config.num_maskgit_steps,
            )
            expected[part], ended[part] = reward.cpu(), end.cpu()
    return expected, ended


def _is_played(
    rows: Rows, starts: Int[np.ndarray, " B"], config: EvaluationConfig
) -> Bool[np.ndarray, " B"]:
    """Return which windows show the ball in at least 2 of the last 4 context frames."""
    length = min(4, config.context_length)
    ends = starts + config.context_length
    seen = [find_objects(rows.frames[end - length : end]).ball_seen.sum() for end in ends]
    return np.array(seen) >= min(2, length)


def _object_figures(real: PongObjects, imagined: PongObjects) -> Report:
    error = _ball_error(real, imagined)
    found = error[~np.isnan(error)]
    own = np.abs(real.own_paddle_y - imagined.own_paddle_y)
    return {
        "ball_within_2px": _share_near(error, real.ball_seen, 2),
        "ball_lost": _mean((~imagined.ball_seen)[real.ball_seen]),
        "ball_doubled": _mean(imagined.num_balls > 1),
        "ball_median_error": float(np.median(found)) if len(found) else None,
        "own_paddle_within_2px": _share_near(own, ~np.isnan(real.own_paddle_y), 2),
    }


def _ball_error(real: PongObjects, imagined: PongObjects) -> Float[np.ndarray, " N"]:
    error: Float[np.ndarray, " N"] = np.linalg.norm(real.ball_yx - imagined.ball_yx, axis=-1)
    return error


def _share_near(
    error: Float[np.ndarray, " N"], is_shown: Bool[np.ndarray, " N"], limit: int
) -> float | None:
    """Return the share of shown objects within the limit; one not found in the guess is a miss."""
    return _mean(np.nan_to_num(error[is_shown], nan=np.inf) <= limit)


def _mean(values: Bool[np.ndarray, " N"] | Float[np.ndarray, " N"]) -> float | None:
    """Return the mean, or None where there are no values: JSON has no NaN."""
    return float(values.mean()) if len(values) else None


def _rebuild(world: World, frames: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    state = world.encode(torch.from_numpy(frames)[:, None], torch.zeros(len(frames), 0).long())
    rebuilt: UInt8[np.ndarray, "N H W C"] = world.decode(state).cpu().numpy()
    return rebuilt


def _mse(a: UInt8[np.ndarray, "*frames"], b: UInt8[np.ndarray, "*frames"]) -> float:
    return float(np.square((a.astype(np.float32) - b.astype(np.float32)) / 255).mean())


def _psnr(a: UInt8[np.ndarray, "*frames"], b: UInt8[np.ndarray, "*frames"]) -> float | None:
    return float(-10 * np.log10(max(_mse(a, b), 1e-10))) if len(a) else None
