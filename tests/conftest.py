"""Shape checks on, one thread, and the small worlds that many tests share."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
install_import_hook(["genie_gym", "planners", "collectors"], "beartype.beartype")

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Pipeline:
    """Folders of one short pass through the whole pipeline, on real frames of Pong."""

    recording: Path
    run: Path
    bundle: Path
    output: str
    """What the three commands printed."""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """Collect, train with preset tiny and export, through the command line. Not to be changed."""
    from contextlib import redirect_stdout
    from io import StringIO

    from genie_gym.cli import main

    folder = tmp_path_factory.mktemp("pipeline")
    recording, run, bundle = folder / "recording", folder / "run", folder / "bundle"
    settings = ["--policy", "random", "--steps", "2500", "--shard-steps", "1000"]
    config = ROOT / "configs" / "tiny.yaml"
    with redirect_stdout(StringIO()) as output:
        assert main(["collect", "ALE/Pong-v5", "--out", str(recording), *settings]) == 0
        train = ["train", "--config", str(config), "--data", str(recording), "--out", str(run)]
        assert main([*train, "--device", "cpu"]) == 0
        assert main(["export", str(run), "--out", str(bundle)]) == 0
    return Pipeline(recording, run, bundle, output.getvalue())


@pytest.fixture(scope="session")
def world(pipeline):
    """Load the world of the pipeline. Not to be changed."""
    from genie_gym.models.bundle import load_world

    return load_world(pipeline.bundle)
