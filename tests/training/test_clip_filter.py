import math
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from genie_gym.errors import ConfigError, DataError
from genie_gym.models.clip_filter import ClipFilter, ClipFilterConfig
from genie_gym.training.clip_filter import (
    FilterFigures,
    FilterStage,
    FilterTrainingConfig,
    LabelledVideo,
    judge,
    split_videos,
    thin,
    train_filter,
)
from genie_gym.training.config import StageConfig

CPU = torch.device("cpu")


def videos_of(num_good, num_bad):
    """Return one-frame videos whose every pixel is their own number; the good ones come first."""
    numbers = np.arange(num_good + num_bad, dtype=np.uint8)
    return [
        LabelledVideo(np.full((1, 16, 16, 3), number, np.uint8), bool(number < num_good))
        for number in numbers
    ]


def numbers_of(videos):
    return [int(video.frames[0, 0, 0, 0]) for video in videos]


def small_config(seed=0, **changes):
    settings = {"max_steps": 1, "batch_size": 4, "warmup_steps": 0, **changes}
    return FilterTrainingConfig(
        seed=seed,
        filter=ClipFilterConfig(width=16, height=16),
        training=StageConfig(**settings),
    )


def test_one_command_separates_gameplay_from_noise_and_blackness(trained_filter):
    training, held_out, wrote = trained_filter.output.splitlines()
    figures = r"accuracy \d\.\d{3}, precision \d\.\d{3} and recall \d\.\d{3} of good"
    assert re.fullmatch(f"training: 16 good and 8 bad videos; {figures}", training)
    assert re.fullmatch(f"held-out: 4 good and 2 bad videos; {figures}", held_out)
    assert wrote == f"wrote {trained_filter.path}"
    card = yaml.safe_load((trained_filter.path / "filter.yaml").read_text())
    assert card["provenance"]["training"]["max_steps"] == 30
    assert card["figures"]["training"]["accuracy"] > 0.95
    # Of 6 seeds, 5 judge all held-out videos rightly, and one mistakes a good one for a bad one.
    assert card["figures"]["held-out"]["accuracy"] > 0.8
    assert card["figures"]["held-out"]["precision"] == 1
    assert not (trained_filter.path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("num_frames", "kept"),
    [(1, [0]), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (8, [0, 2, 4, 6]), (13, [0, 4, 8, 12])],
)
def test_thinned_frames_are_spread_evenly(num_frames, kept):
    frames = [np.full((1, 1, 3), index, np.uint8) for index in range(num_frames)]
    assert [frame[0, 0, 0] for frame in thin(iter(frames), at_most=4)] == kept


def test_a_fifth_of_each_class_is_held_out_and_at_least_one_video():
    videos = videos_of(10, 2)
    training, held_out = split_videos(videos, seed=0)
    assert sorted(numbers_of(training) + numbers_of(held_out)) == list(range(12))
    assert [video.is_good for video in held_out] == [True, True, False]
    assert numbers_of(split_videos(videos, seed=0)[1]) == numbers_of(held_out)
    assert numbers_of(split_videos(videos, seed=1)[1]) != numbers_of(held_out)


def test_half_of_a_batch_is_bad_however_few_bad_videos_there_are():
    stage = FilterStage(
        ClipFilter(ClipFilterConfig(width=16, height=16)),
        videos_of(9, 1),
        videos_of(1, 1),
        batch_size=6,
        seed=0,
    )
    seen = Counter()
    for step in range(100):
        batch = stage.batch_at(step)
        seen.update(batch.frames[:, 0, 0, 0, 0].tolist())
        assert batch.is_good.tolist() == [number < 9 for number in batch.frames[:, 0, 0, 0, 0]]
        assert batch.is_good.sum() == 3
    assert seen[9] == 300
    # 33 times each on average; 5 standard deviations are 27.
    assert all(6 <= seen[number] <= 60 for number in range(9))
    assert torch.equal(stage.batch_at(7).frames, stage.batch_at(7).frames)


@pytest.mark.parametrize(
    ("probability", "accuracy", "precision", "recall"),
    [(0.9, 0.75, 0.75, 1.0), (0.1, 0.25, None, 0.0)],
)
def test_the_figures_of_a_filter_that_says_the_same_of_all(
    probability, accuracy, precision, recall
):
    clip_filter = ClipFilter(ClipFilterConfig(width=16, height=16))
    nn.init.zeros_(clip_filter.network.head.weight)
    nn.init.constant_(clip_filter.network.head.bias, math.log(probability / (1 - probability)))
    assert judge(clip_filter, videos_of(3, 1)) == FilterFigures(
        num_good=3, num_bad=1, accuracy=accuracy, precision=precision, recall=recall
    )


def test_one_seed_gives_one_filter_and_another_seed_another(sorted_videos, tmp_path):
    for label in ("good", "bad"):
        for name in ("0.mp4", "1.mp4"):
            (tmp_path / "few" / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(sorted_videos / label / name, tmp_path / "few" / label)
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        train_filter(tmp_path / "few", tmp_path / name, small_config(seed), device=CPU)
    first, second, other = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("first", "second", "other")
    )
    assert all(torch.equal(second[name], x) for name, x in first.items())
    assert not torch.equal(other["network.head.weight"], first["network.head.weight"])


@pytest.fixture
def broken(sorted_videos, tmp_path):
    """A copy that a test may damage; training on it must leave nothing."""
    yield shutil.copytree(sorted_videos, tmp_path / "sorted")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["sorted"], ["out", "sorted"])
    assert not (tmp_path / "out" / "filter.yaml").exists()


def keep_only(folder, *names):
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def take(out):
    out.mkdir()
    (out / "thesis.tex").touch()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: shutil.rmtree(folder / "bad"), r"sorted/bad is no folder. Put videos"),
        (lambda folder: shutil.rmtree(folder), r"sorted/good is no folder. Put videos .* good/"),
        (
            lambda folder: keep_only(folder / "bad"),
            r"sorted/bad holds 0 videos \(.avi, .mov, .mp4, .webm\); 2 are needed, one to learn",
        ),
        (lambda folder: keep_only(folder / "bad", "2.mp4"), r"sorted/bad holds 1 videos .* Add"),
        (
            lambda folder: (folder / "good" / "2.MP4").write_text("hello"),
            r"good/2.MP4 cannot be decoded as video: .* copy it again",
        ),
        (
            lambda folder: take(folder.parent / "out"),
            r"out is there already and not empty. Name another --out",
        ),
    ],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(broken, damage, text):
    damage(broken)
    if not broken.exists():
        broken.mkdir()
    with pytest.raises(DataError, match=text):
        train_filter(broken, broken.parent / "out", small_config(), device=CPU)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"batch_size": 5}, "batch_size must be even, one half good and one half bad .* got 5"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        small_config(**change)
