"""Training of the quality filter, on videos that a person has sorted into good and bad ones."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn
from tqdm import tqdm

from genie_gym.data.batch import Batch
from genie_gym.data.folders import new_folder
from genie_gym.data.videos import ImportConfig, read_frames
from genie_gym.errors import ConfigError, DataError
from genie_gym.models.clip_filter import ClipFilter, ClipFilterConfig, save_filter
from genie_gym.models.tokenizer import Metrics
from genie_gym.training.checkpoint import Checkpoints
from genie_gym.training.config import StageConfig
from genie_gym.training.loop import train
from genie_gym.training.run_log import RunLog

SUFFIXES = (".avi", ".mov", ".mp4", ".webm")
HELD_OUT_SHARE = 0.2
"""Share of each class's videos that is not trained on, at least one."""
FRAMES_PER_VIDEO = 16
"""Frames kept of a video, at most; even, see `thin`. 10,000 videos of 160x90 take 6.4 GiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterTrainingConfig:
    """What a filter is, and how it is trained."""

    seed: int = 0
    """Owns all randomness: initial weights, held-out videos and batches."""
    filter: ClipFilterConfig = field(default_factory=ClipFilterConfig)
    """What the filter looks at."""
    training: StageConfig = field(default_factory=StageConfig)
    """How it is trained; a batch holds single frames, so `clip_length` is not used."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, got {self.seed}")
        if self.training.batch_size % 2:
            raise ConfigError(
                "batch_size must be even, one half good and one half bad frames, got "
                f"{self.training.batch_size}"
            )


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """Frames of a video, spread evenly over it, and what a person said of it."""

    frames: UInt8[np.ndarray, "T H W 3"]
    is_good: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterFigures:
    """How well a filter does on videos; one of probability 0.5 or more counts as found good."""

    num_good: int
    """Good videos."""
    num_bad: int
    """Bad videos."""
    accuracy: float
    """Share of videos that are judged rightly."""
    precision: float | None
    """Share of good ones among those found good; None if there is none."""
    recall: float
    """Share of the good ones that are found good."""


class FilterStage:
    """Frames of the training videos: as many good as bad ones, every video of a class as often."""

    name = "filter"

    def __init__(
        self,
        module: ClipFilter,
        training: Sequence[LabelledVideo],
        held_out: Sequence[LabelledVideo],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        """Take the filter and its videos, of which both classes are in both parts."""
        self.module: nn.Module = module
        self.clip_filter = module
        self.held_out = held_out
        self.batch_size = batch_size
        self.seed = seed
        self._classes = [[video for video in training if video.is_good == x] for x in (0, 1)]

    def batch_at(self, step: int) -> Batch:
        """Return the training batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        is_good = np.arange(self.batch_size) % 2
        frames = []
        for label in is_good:
            videos = self._classes[label]
            video = videos[rng.integers(len(videos))]
            frames.append(video.frames[rng.integers(len(video.frames))])
        return Batch(
            frames=torch.from_numpy(np.stack(frames)[:, None]),
            is_good=torch.from_numpy(is_good.astype(bool)),
        )

    def validate(self) -> Metrics:
        """Return accuracy and recall on the held-out videos."""
        figures = judge(self.clip_filter, self.held_out)
        return {"accuracy": figures.accuracy, "recall": figures.recall}


def train_filter(
    folder: Path, out: Path, config: FilterTrainingConfig, *, device: torch.device
) -> dict[str, FilterFigures]:
    """Train a filter on `folder/good` and `folder/bad`; `out` appears only when it is whole.

    Returns:
        Figures on the "training" and the "held-out" videos.

    Raises:
        DataError: a class has fewer than two videos, one cannot be read, or `out` is taken.
        DivergedError: a loss is not finite.
    """
    with new_folder(out) as part:
        training, held_out = split_videos(read_videos(folder, config.filter), config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # initial weights
            module = ClipFilter(config.filter)
        settings = config.training
        stage = FilterStage(
            module, training, held_out, batch_size=settings.batch_size, seed=config.seed
        )
        checkpoints = Checkpoints(part / "checkpoints")
        with (
            tqdm(total=settings.max_steps, unit="step", desc=stage.name) as bar,
            RunLog(part, stage.name, bar) as log,
        ):

            def on_step(step: int) -> None:
                bar.update()

            train(
                stage,
                settings,
                generator=torch.Generator(),  # the filter draws nothing
                seed=config.seed,
                device=device,
                checkpoints=checkpoints,
                log=log,
                on_step=on_step,
            )
        checkpoints.clear()
        report = {"training": judge(module, training), "held-out": judge(module, held_out)}
        save_filter(
            part,
            module,
            provenance={
                "seed": config.seed,
                "training": asdict(settings),
                "genie_gym": version("genie-gym"),
                "torch": str(torch.__version__),
            },
            figures={name: asdict(figures) for name, figures in report.items()},
        )
    return report


def read_videos(folder: Path, config: ClipFilterConfig) -> list[LabelledVideo]:
    """Return the videos below `good/` and `bad/`, each class sorted by path.

    Raises:
        DataError: a class has fewer than two videos, or one of them cannot be read.
    """
    files = {name: _video_files(folder / name) for name in ("good", "bad")}
    size = ImportConfig(width=config.width, height=config.height)
    videos = []
    for name, paths in files.items():
        for path in tqdm(paths, unit="video", desc=name):
            frames = thin(read_frames(path, size), FRAMES_PER_VIDEO)
            videos.append(LabelledVideo(np.stack(frames), name == "good"))
    return videos


def _video_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder. Put videos worth learning from into good/ and others into bad/"
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise DataError(
            f"{folder} holds {len(paths)} videos ({', '.join(SUFFIXES)}); 2 are needed, one to "
            "learn from and one to be judged on. Add some"
        )
    return paths


def thin(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]], at_most: int
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Return every k-th frame, k the smallest power of two that leaves at most so many.

    Args:
        frames: of any number; no more than `at_most` are held at a time.
        at_most: an even number.

    Example:
        >>> frames = [np.full((1, 1, 3), index, np.uint8) for index in range(9)]
        >>> [int(frame[0, 0, 0]) for frame in thin(frames, at_most=4)]
        [0, 4, 8]
    """
    kept: list[UInt8[np.ndarray, "H W 3"]] = []
    stride = 1
    for index, frame in enumerate(frames):
        if index % stride:
            continue
        if len(kept) == at_most:
            kept = kept[::2]
            stride *= 2
        kept.append(frame)
    return kept


def split_videos(
    videos: Sequence[LabelledVideo], seed: int
) -> tuple[list[LabelledVideo], list[LabelledVideo]]:
    """Return the videos to train on and those to hold out, a fixed share of each class."""
    rng = np.random.default_rng(seed)
    training, held_out = [], []
    for is_good in (True, False):
        chosen = [video for video in videos if video.is_good == is_good]
        shuffled = [chosen[index] for index in rng.permutation(len(chosen))]
        num_held_out = max(1, round(HELD_OUT_SHARE * len(chosen)))
        held_out += shuffled[:num_held_out]
        training += shuffled[num_held_out:]
    return training, held_out


def judge(module: ClipFilter, videos: Sequence[LabelledVideo]) -> FilterFigures:
    """Return how well a filter does on videos of both classes."""
    is_good = np.array([video.is_good for video in videos])
    is_found = np.array([module.score(video.frames) >= 0.5 for video in videos])
    return FilterFigures(
        num_good=int(is_good.sum()),
        num_bad=int((~is_good).sum()),
        accuracy=float((is_good == is_found).mean()),
        precision=float(is_good[is_found].mean()) if is_found.any() else None,
        recall=float(is_found[is_good].mean()),
    )
