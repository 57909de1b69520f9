"""A finished run becomes a world bundle, with start contexts from its validation episodes."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_gym.config import load_yaml
from genie_gym.errors import DataError, WorldError
from genie_gym.models.bundle import save_bundle
from genie_gym.models.stack import GenieStack
from genie_gym.models.state import Starts
from genie_gym.training.config import RunConfig
from genie_gym.training.data import TrainingData, Windows
from genie_gym.training.run import RunFolder
from genie_gym.training.tokens import tokenize

NEEDED_ATTRIBUTES = ("action_meanings", "fps", "policy", "seed", "sticky", "noop_max")
NEEDED = ("tokenizer", "lam", "dynamics")
CALM = 8
"""Steps after a start context that hold no reward and no end, so that play begins in a rally."""


def export(run_path: Path, out: Path, data_paths: Path | Sequence[Path] | None = None) -> Path:
    """Write the bundle of a run; return its folder.

    Args:
        run_path: folder that `genie-gym train` filled.
        out: folder of the bundle.
        data_paths: the recordings the run was trained on, if they have moved.

    Raises:
        DataError: the folder holds no run, or a recording is gone or does not say what the card
            of a world states.
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
    starts = choose_starts(config, data, stack, run_path / "tokens.safetensors")
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


def choose_starts(config: RunConfig, data: TrainingData, stack: GenieStack, cache: Path) -> Starts:
    """Return start contexts from validation episodes, followed by a few uneventful steps."""
    tokens = tokenize(data, stack.tokenizer, stack.lam, cache)
    windows = Windows(data, config.start_length + CALM, tokens)
    starts = windows.validation_starts
    rewards = data.rows.rewards
    assert rewards is not None and data.rows.actions is not None
    rows = starts[:, None] + np.arange(config.start_length + CALM - 1)
    starts = starts[(rewards[rows] == 0).all(axis=1)]
    if len(starts) == 0:
        raise DataError(f"{data.name}: no validation episode has a calm stretch to start from")
    rng = np.random.default_rng(config.seed)
    chosen = np.sort(rng.choice(starts, min(config.num_starts, len(starts)), replace=False))
    rows = chosen[:, None] + np.arange(config.start_length)
    return Starts(
        torch.from_numpy(tokens.tokens[rows].astype(np.int64)),
        torch.from_numpy(data.rows.actions[rows[:, :-1]].astype(np.int64)),
    )
