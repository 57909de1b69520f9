"""A world against held-out play: every section of the report, from a few sets of rollouts.

Rollouts are free: after the context, the world sees nothing but its own frames and the real
actions. Contexts are drawn uniformly from all play.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from genie_gym.errors import DataError
from genie_gym.evaluation.bars import bars
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.control import control
from genie_gym.evaluation.distances import FeatureNetwork, distances
from genie_gym.evaluation.estimates import Report
from genie_gym.evaluation.object_figures import objects, shows_ball
from genie_gym.evaluation.objects import why_no_objects
from genie_gym.evaluation.pictures import Picture, write_pictures
from genie_gym.evaluation.prediction import prediction
from genie_gym.evaluation.reconstruction import reconstruction
from genie_gym.evaluation.report_page import write_report
from genie_gym.evaluation.reward_figures import rewards
from genie_gym.evaluation.rollout import (
    Heldout,
    Rollouts,
    open_heldout,
    roll_out,
    why_no_rollouts,
)
from genie_gym.evaluation.scaling import scaling
from genie_gym.files import write_text
from genie_gym.models.world import World

NEED_ROLLOUTS = ("prediction", "objects", "rewards", "distances")
"""Sections that a recording without actions, or a world without all its parts, cannot have."""


def evaluate(
    world: World,
    path: Path,
    config: EvaluationConfig,
    *,
    out: Path | None = None,
    frame_network: FeatureNetwork | None = None,
    clip_network: FeatureNetwork | None = None,
    with_scaling: bool = False,
) -> Report:
    """Return every figure as a nested mapping; what cannot be measured is None, with a reason.

    Args:
        world: the world.
        path: held-out recording.
        config: how much is measured.
        out: folder for `report.json`, `report.html`, films and pictures; None writes nothing.
        frame_network: features for FID; loading a TorchScript file runs code from it.
        clip_network: features for FVD; likewise.
        with_scaling: whether time and memory are measured against size, some minutes more.

    Raises:
        DataError: the recording does not fit the world, or is too short.
        ConfigError: a feature network cannot be loaded.
    """
    heldout = open_heldout(world, path)
    near = why_no_rollouts(world, heldout) or draw_rollouts(
        world, heldout, config.num_windows, config.horizon, config
    )
    far = _draw_if_possible(world, heldout, config.far_windows, config.far_horizon, config)
    long = _draw_if_possible(world, heldout, config.long_windows, config.long_horizon, config)
    free = [some for some in (near, far) if isinstance(some, Rollouts)]
    report: Report = {
        "data": {
            "recording": path.name,
            "frames": len(heldout.rows.frames),
            "episodes": heldout.num_episodes,
        },
        "config": asdict(config),
        "rollouts": {"near": _size(near), "far": _size(far), "long": _size(long)},
        "reconstruction": reconstruction(world, heldout, config),
        "control": control(world, heldout, config),
    }
    if isinstance(near, str):
        report |= {key: {"reason": near} for key in NEED_ROLLOUTS}
    else:
        report |= {
            "prediction": prediction(world, free),
            "objects": objects(world, free, long),
            "rewards": rewards(world, heldout, near, config),
            "distances": distances(
                near, frame_network=frame_network, clip_network=clip_network, device=world.device
            ),
        }
    if with_scaling:
        report["scaling"] = scaling(world.config, world.device)
    report["bars"] = bars(report)
    if out is not None:
        _write_json(report, out)
        pictures = [Picture("Rollouts", str(near), None)]
        if free:
            pictures = write_pictures(world, heldout, free[-1], out, seed=config.seed)
        write_report(report, out, world, pictures)
    return report


def _write_json(report: Report, folder: Path) -> None:
    write_text(folder / "report.json", json.dumps(report, indent=2, allow_nan=False))


def draw_rollouts(
    world: World, heldout: Heldout, num_windows: int, horizon: int, config: EvaluationConfig
) -> Rollouts:
    """Roll out from contexts drawn uniformly; where a ball is known, until enough of them show it.

    Raises:
        DataError: no window is long enough, or no context shows the ball.
    """
    length = config.context_length + horizon
    starts = np.random.default_rng(config.seed).permutation(heldout.windows.valid_starts(length))
    if why_no_objects(world) is None:
        starts = starts[: 4 * num_windows]
        context = heldout.windows.clip(starts, config.context_length).frames
        shown = np.flatnonzero(shows_ball(context, world.config.game))[:num_windows]
        if not len(shown):
            raise DataError(f"no window of {length} frames shows the ball. Record longer play")
        num_windows = shown[-1] + 1
    return roll_out(
        world,
        heldout,
        starts[:num_windows],
        context_length=config.context_length,
        horizon=horizon,
        seed=config.seed,
        temperature=config.temperature,
        num_maskgit_steps=config.num_maskgit_steps,
    )


def _draw_if_possible(
    world: World, heldout: Heldout, num_windows: int, horizon: int, config: EvaluationConfig
) -> Rollouts | str:
    """Return rollouts, or why there are none."""
    if reason := why_no_rollouts(world, heldout):
        return reason
    if not num_windows:
        return "none were asked for"
    try:
        return draw_rollouts(world, heldout, num_windows, horizon, config)
    except DataError as error:
        return str(error)


def _size(rollouts: Rollouts | str) -> Report:
    if isinstance(rollouts, str):
        return {"windows": 0, "reason": rollouts}
    num_windows, horizon = rollouts.actions.shape
    return {"windows": num_windows, "horizon": horizon}
