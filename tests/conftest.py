"""Shape checks on, one thread, and the small worlds that many tests share."""

import fcntl
import importlib.util
import os
import sys
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
NUM_STARTS = 5
ACTION_MEANINGS = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]


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
def load_benchmark():
    """Return a function that imports a script of `benchmarks/` by name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
        # Its dataclasses look themselves up there.
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


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


# A real but untrained world, small enough to build in a second.


def transformer(temporal_window):
    from genie_gym.nn.transformer import TransformerConfig

    return TransformerConfig(
        num_layers=1, dim=32, num_heads=2, head_dim=8, temporal_window=temporal_window
    )


def tiny_config():
    from genie_gym.models.dynamics import DynamicsConfig
    from genie_gym.models.latent_action import LatentActionConfig
    from genie_gym.models.reward import RewardConfig
    from genie_gym.models.stack import StackConfig
    from genie_gym.models.tokenizer import TokenizerConfig
    from genie_gym.nn.quantizer import QuantizerConfig

    return StackConfig(
        game="Pong",
        num_actions=6,
        tokenizer=TokenizerConfig(
            encoder=transformer(1),
            decoder=transformer(2),
            quantizer=QuantizerConfig(num_codes=64, code_dim=8),
        ),
        lam=LatentActionConfig(
            encoder=transformer(2),
            decoder=transformer(1),
            quantizer=QuantizerConfig(num_codes=8, code_dim=12),
        ),
        dynamics=DynamicsConfig(transformer=transformer(4), num_maskgit_steps=2),
        reward=RewardConfig(transformer=transformer(2)),
    )


def save_tiny_bundle(folder, *, seed=0, end_rate=0.05):
    """Write a world whose games end at times that hang on its frames, at about this rate a step."""
    from genie_gym.models.bundle import save_bundle
    from genie_gym.models.stack import STAGES, GenieStack
    from genie_gym.models.state import Starts

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        stack = GenieStack(tiny_config(), generator=torch.Generator().manual_seed(seed))
        # Untrained it copies the last frame: every frame would be the first.
        stack.dynamics.to_copy.bias.zero_()
        # Far from uniform, so that a wrong draw or a wrong token shows in what follows.
        stack.reward.to_reward.weight.mul_(4)
        stack.reward.to_end.weight.mul_(4)
        stack.reward.to_end.bias.copy_(end_bias(stack.reward, end_rate))
        starts = Starts(torch.randint(64, (NUM_STARTS, 3, 16)), torch.randint(6, (NUM_STARTS, 2)))
    card = {"action_meanings": ACTION_MEANINGS}
    save_bundle(folder, stack=stack, starts=starts, parts=frozenset(STAGES), card=card)


def end_bias(reward_model, end_rate):
    """Return the bias with which that share of random frames is an end."""
    if end_rate == 0:
        return torch.tensor([1000.0, 0.0])
    reward_model.to_end.bias.zero_()
    tokens, actions = torch.randint(64, (512, 16)), torch.randint(6, (512,))
    cache, table = reward_model.empty_cache(512), reward_model.code_embeddings()
    prediction, _ = reward_model.step(tokens, tokens, actions, cache, table)
    return torch.stack(
        [prediction.terminated_prob.logit().quantile(1 - end_rate), torch.tensor(0.0)]
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_world")
    save_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def endless_bundle(tmp_path_factory):
    """A tiny world whose games are never over."""
    folder = tmp_path_factory.mktemp("endless_world")
    save_tiny_bundle(folder, end_rate=0)
    return folder
