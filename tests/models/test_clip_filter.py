import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from genie_gym.data.batch import Batch
from genie_gym.errors import ConfigError, FilterError
from genie_gym.models.clip_filter import ClipFilter, ClipFilterConfig, load_filter, save_filter


def build(**config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClipFilter(ClipFilterConfig(**{"width": 24, "height": 16, **config}))


def decided(probability):
    """Return a filter that says the same of every frame."""
    clip_filter = build()
    nn.init.zeros_(clip_filter.network.head.weight)
    nn.init.constant_(clip_filter.network.head.bias, math.log(probability / (1 - probability)))
    return clip_filter


def noise(num_frames, height=16, width=24):
    rng = np.random.default_rng(1)
    return rng.integers(256, size=(num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_filter(folder, build(num_frames=3), provenance={"seed": 0}, figures={})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "filter")


def test_loss_and_accuracy_are_those_of_a_known_probability():
    batch = Batch(
        frames=torch.from_numpy(noise(8)).unflatten(0, (4, 2)),
        is_good=torch.tensor([True, True, True, False]),
    )
    loss, metrics = decided(0.8)(batch)
    assert loss.item() == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.2))
    assert metrics == {"accuracy": 0.75}
    assert decided(0.8).score(noise(5)) == pytest.approx(0.8)


def test_a_clip_is_as_good_as_its_spread_frames_are_on_average():
    clip_filter, frames = build(num_frames=3), noise(9)
    ones = [clip_filter.score(frames[[index]]) for index in range(9)]
    assert len(set(ones)) == 9 and all(0 <= one <= 1 for one in ones)
    assert clip_filter.score(frames) == pytest.approx((ones[0] + ones[4] + ones[8]) / 3)
    assert clip_filter.score(frames[:2]) == pytest.approx((ones[0] + ones[1]) / 2)


def test_larger_frames_are_shrunk_and_smaller_ones_refused():
    clip_filter, frames = build(), noise(4)
    larger = frames.repeat(2, axis=1).repeat(3, axis=2)
    assert clip_filter.score(larger) == pytest.approx(clip_filter.score(frames))
    text = r"judges frames of 24x16 pixels or more, got 24x8, .* Import with --size 24x16, or train"
    with pytest.raises(ConfigError, match=text):
        clip_filter.score(noise(4, height=8))


def test_a_saved_filter_scores_bit_for_bit_like_the_one_in_memory(saved):
    state = torch.get_rng_state()
    loaded = load_filter(saved)
    assert torch.equal(torch.get_rng_state(), state)
    assert loaded.config == ClipFilterConfig(width=24, height=16, num_frames=3)
    assert loaded.score(noise(5)) == build(num_frames=3).score(noise(5))
    assert sorted(path.name for path in saved.iterdir()) == ["filter.yaml", "weights.safetensors"]


def change_card(folder, **changes):
    card = yaml.safe_load((folder / "filter.yaml").read_text())
    (folder / "filter.yaml").write_text(yaml.safe_dump({**card, **changes}))


def change_weights(folder, **changes):
    weights = load_file(folder / "weights.safetensors")
    weights = {name: x for name, x in {**weights, **changes}.items() if x is not None}
    save_file(weights, folder / "weights.safetensors")


def truncate(folder):
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            lambda folder: shutil.rmtree(folder),
            r"filter holds no filter \(no filter.yaml\). Train one: genie-gym",
        ),
        (lambda folder: (folder / "filter.yaml").write_text("a: ["), r"filter.yaml is not YAML"),
        (
            lambda folder: change_card(folder, filter_version=2),
            r"filter.yaml has filter_version 2; this genie_gym reads 1. Upgrade genie_gym, or",
        ),
        (
            lambda folder: change_card(folder, config={"widths": 8}),
            r"filter.yaml.config: unknown key 'widths'. Did you mean 'width'\? .* Train the filter",
        ),
        (
            lambda folder: change_card(folder, colour="red"),
            r"filter.yaml: unknown key 'colour'. Known: .* Train the filter again: genie-gym data",
        ),
        (
            lambda folder: change_card(folder, config={"height": 0}),
            "filter.height must be at least 1, got 0",
        ),
        (lambda folder: change_card(folder, config=3), "filter.yaml.config must be a mapping"),
        (
            lambda folder: (folder / "weights.safetensors").unlink(),
            r"weights.safetensors is missing. Train the filter again: genie-gym data train-filter",
        ),
        (truncate, r"weights.safetensors is damaged \(.*\). Train the filter again"),
        (
            lambda folder: change_weights(folder, **{"network.head.bias": None}),
            r"weights.safetensors lacks tensor 'network.head.bias'. Train",
        ),
        (
            lambda folder: change_weights(folder, extra=torch.zeros(2)),
            r"weights.safetensors holds the unknown tensor 'extra'. Train",
        ),
        (
            lambda folder: change_weights(folder, **{"network.head.bias": torch.zeros(2)}),
            r"head.bias must be torch.float32 of shape \(1,\), got torch.float32 of shape \(2,\)",
        ),
    ],
)
def test_a_damaged_filter_is_refused(folder, damage, text):
    damage(folder)
    with pytest.raises(FilterError, match=text):
        load_filter(folder)
