"""Shape checks on, one thread, and the small worlds that many tests share."""

import fcntl
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
install_import_hook(["genie_gym", "planners", "collectors"], "beartype.beartype")

ROOT = Path(__file__).parents[1]


def gameplay(seed, num_frames=16):
    """Return frames of a white square that moves over a scene of two colours."""
    rng = np.random.default_rng(seed)
    sky, ground = rng.integers(80, 180, size=(2, 3))
    frames = np.broadcast_to(sky.astype(np.uint8), (num_frames, 32, 32, 3)).copy()
    frames[:, 24:] = ground
    first, row = rng.integers(8), rng.integers(18)
    for index, frame in enumerate(frames):
        frame[row : row + 6, first + index : first + index + 6] = 255
    return frames


def noise(seed, num_frames=16):
    """Return frames whose every pixel is drawn anew: the cheap scores find nothing bad in them."""
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(num_frames, 32, 32, 3), dtype=np.uint8)


def write_video(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.mimwrite(path, frames, fps=10, macro_block_size=1)
    return path


@pytest.fixture(scope="session")
def sorted_videos(tmp_path_factory):
    """Hold 20 good videos, some of them one folder deeper, and 10 of noise or blackness."""
    folder = tmp_path_factory.mktemp("sorted")
    for index in range(20):
        subfolder = folder / "good" / ("" if index < 10 else "more")
        write_video(subfolder / f"{index}.mp4", gameplay(index))
    for index in range(10):
        frames = noise(index) if index % 2 else np.zeros((16, 32, 32, 3), np.uint8)
        write_video(folder / "bad" / f"{index}.mp4", frames)
    (folder / "good" / "notes.txt").write_text("sorted by hand")
    return folder


@pytest.fixture(scope="session")
def unseen_videos(tmp_path_factory):
    """Hold a good clip, one of noise and one that stands still; no filter is trained on them."""
    folder = tmp_path_factory.mktemp("unseen")
    still = gameplay(101)[:1].repeat(16, axis=0)
    clips = {"good": gameplay(100), "noise": noise(100), "still": still}
    return [write_video(folder / f"{name}.mp4", frames) for name, frames in clips.items()]


@dataclass(frozen=True)
class TrainedFilter:
    """A filter that the command line trained."""

    path: Path
    output: str
    """What the command printed."""


@pytest.fixture(scope="session")
def trained_filter(sorted_videos, tmp_path_factory):
    """Train a filter through the command line. Not to be changed."""
    from genie_gym.cli import main

    out = tmp_path_factory.mktemp("filter") / "filter"
    flags = ["--steps=30", "--batch-size=8", "--size=32", "--device=cpu"]
    with redirect_stdout(StringIO()) as output:
        assert main(["data", "train-filter", str(sorted_videos), "--out", str(out), *flags]) == 0
    return TrainedFilter(out, output.getvalue())


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
    """Collect, train with preset tiny and export, through the command line. Not to be changed.

    One worker of pytest-xdist makes it, and the others wait for it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pipeline"
    folder.mkdir(exist_ok=True)
    output = folder / "output.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.is_file():
            output.write_text(_make_pipeline(folder))
    return Pipeline(folder / "recording", folder / "run", folder / "bundle", output.read_text())


def _make_pipeline(folder):
    from genie_gym.cli import main

    recording, run, bundle = folder / "recording", folder / "run", folder / "bundle"
    settings = ["--policy", "random", "--steps", "2500", "--shard-steps", "1000"]
    config = ROOT / "configs" / "tiny.yaml"
    with redirect_stdout(StringIO()) as output:
        assert main(["collect", "ALE/Pong-v5", "--out", str(recording), *settings]) == 0
        train = ["train", "--config", str(config), "--data", str(recording), "--out", str(run)]
        assert main([*train, "--device", "cpu"]) == 0
        assert main(["export", str(run), "--out", str(bundle)]) == 0
    return output.getvalue()


@pytest.fixture(scope="session")
def world(pipeline):
    """Load the world of the pipeline. Not to be changed."""
    from genie_gym.models.bundle import load_world

    return load_world(pipeline.bundle)
