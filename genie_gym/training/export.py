"""A finished run becomes a world bundle, with start contexts from play it did not learn from."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from genie_gym.config import load_yaml
from genie_gym.data.batch import to_float
from genie_gym.data.hdf5 import Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError, WorldError
from genie_gym.models.bundle import save_bundle
from genie_gym.models.stack import GenieStack
from genie_gym.models.state import Starts
from genie_gym.models.tokenizer import Tokenizer
from genie_gym.training.config import RunConfig
from genie_gym.training.data import TrainingData, open_fitting
from genie_gym.training.run import RunFolder

NEEDED_ATTRIBUTES = ("action_meanings", "fps", "policy", "seed", "sticky", "noop_max")
NEEDED = ("tokenizer", "lam", "dynamics")
CALM = 8
"""Steps after a start context that hold no reward and no end, so that play begins in a rally."""


def export(
    run_path: Path,
    out: Path,
    data_paths: Path | Sequence[Path] | None = None,
    *,
    start_paths: Sequence[Path] | None = None,
    num_starts: int | None = None,
) -> Path:
    """Write the bundle of a run; return its folder.

    Args:
        run_path: folder that `genie-gym train` filled.
        out: folder of the bundle.
        data_paths: the recordings the run was trained on, if they have moved.
        start_paths: recordings to choose start contexts from, instead of the run's validation
            episodes: agents learn to play from where these are.
        num_starts: start contexts to choose; the config's number by default.

    Raises:
        DataError: the folder holds no run, or a recording is gone, does not say what the card of
            a world states, or holds no stretch to start from.
        ConfigError: the frames or actions of the recordings of starts are not the world's.
        WorldError: a part that every world needs is not trained yet.
    """
    run = RunFolder(run_path)
    config = run.read_config()
    finished = run.finished_stages()
    if missing := [stage for stage in NEEDED if stage not in finished]:
        raise WorldError(
            f"{run_path} has no finished {missing}; a world needs {list(NEEDED)}. Go on with "
            f"genie-gym train --resume --out {run_path}"
        )
    data_card = load_yaml(run_path / "data.yaml")
    data = TrainingData(
        data_paths or [Path(path) for path in data_card["paths"]],
        config.stack,
        validation_share=config.validation_share,
        memory_gib=config.memory_gib,
    )
    if data.fingerprint != data_card["fingerprint"]:
        raise DataError(
            f"{data.name} is not what {run_path} was trained on (fingerprint "
            f"{data.fingerprint}, wanted {data_card['fingerprint']}). Name it with --data"
        )
    attributes = data_card["attributes"]
    if missing := [key for key in NEEDED_ATTRIBUTES if key not in attributes]:
        raise DataError(
            f"{data.name} has no attributes {missing}, and the card of a world states them. Add "
            f"them below 'attributes' in {run_path / 'data.yaml'}"
        )

    stack = GenieStack(config.stack, generator=torch.Generator().manual_seed(config.seed))
    run.load(stack)
    rows, is_held_out = data.rows, data.is_validation
    if start_paths:
        rows = open_fitting(start_paths, config.stack).load(in_memory=False)
        is_held_out = np.ones(len(rows.frames), np.bool_)
    if num_starts is not None:
        config = replace(config, num_starts=num_starts)
    starts = choose_starts(config, rows, is_held_out, stack.tokenizer)
    card: dict[str, Any] = {
        "game": config.stack.game,
        "action_meanings": list(attributes["action_meanings"]),
        "fps": attributes["fps"],
        "provenance": {
            "seed": config.seed,
            "data": {key: data_card[key] for key in ("num_frames", "num_episodes", "fingerprint")},
            "recording": {key: attributes[key] for key in ("policy", "seed", "sticky", "noop_max")},
            "steps": {stage: getattr(config.training, stage).max_steps for stage in finished},
            "genie_gym": version("genie-gym"),
            "torch": str(torch.__version__),  # a subclass that YAML refuses
            "python": platform.python_version(),
        },
        "figures": {},
    }
    if "action_map" in finished:
        figures = run.last_figures("action_map")
        card["provenance"]["action_map"] = {
            "num_labels": config.stack.action_map.num_labels,
            **{name: figures[name] for name in ("accuracy", "commonest")},
        }
    save_bundle(out, stack=stack, starts=starts, parts=frozenset(finished), card=card)
    return out


def choose_starts(
    config: RunConfig, rows: Rows, is_held_out: Bool[np.ndarray, " rows"], tokenizer: Tokenizer
) -> Starts:
    """Return start contexts from held-out rows, each followed by a few uneventful steps."""
    assert rows.rewards is not None and rows.actions is not None
    windows = EpisodeWindows(rows)
    starts = windows.valid_starts(config.start_length + CALM)
    around = starts[:, None] + np.arange(config.start_length + CALM - 1)
    starts = starts[is_held_out[starts] & (rows.rewards[around] == 0).all(axis=1)]
    if len(starts) == 0:
        raise DataError("no held-out episode has a calm stretch to start from. Record more steps")
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.choice(starts, min(config.num_starts, len(starts)), replace=False))
    clips = windows.clip(chosen, config.start_length)
    assert clips.actions is not None
    tokenizer.eval()
    with torch.inference_mode():
        tokens = [
            tokenizer.encode(to_float(torch.from_numpy(frames)[None])) for frames in clips.frames
        ]
    return Starts(torch.cat(tokens), torch.from_numpy(clips.actions))
