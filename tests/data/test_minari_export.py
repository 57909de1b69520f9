import sys

import gymnasium as gym
import h5py
import numpy as np
import pytest

from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import Manifest, write_manifest
from genie_gym.data.minari_export import export_minari
from genie_gym.data.shards import EpisodeRows, ShardWriter
from genie_gym.errors import ConfigError, DataError, MissingExtraError

MEANINGS = ["NOOP", "FIRE", "UP", "DOWN"]


def make_episode(episode_id, num_actions, is_box):
    rng = np.random.default_rng(episode_id)
    num_rows = num_actions + 1
    if is_box:
        actions = rng.normal(size=(num_rows, 2)).astype(np.float32)
        actions[-1] = np.nan
    else:
        actions = np.append(rng.integers(4, size=num_actions), -1).astype(np.int16)
    is_end = np.arange(num_rows) == num_actions - 1
    return EpisodeRows(
        episode_id=episode_id,
        # Noise: JPEG would change nearly every value of it.
        frames=rng.integers(256, size=(num_rows, 40, 36, 3), dtype=np.uint8),
        actions=actions,
        rewards=np.append(rng.normal(size=num_actions), 0).astype(np.float32),
        terminations=is_end if episode_id % 2 else np.zeros(num_rows, bool),
        truncations=np.zeros(num_rows, bool) if episode_id % 2 else is_end,
        policy="random",
        policy_seed=10 + episode_id,
        reset_seed=20 + episode_id,
    )


def record(folder, is_box=False):
    """Write four episodes in two shards; the third has no action."""
    folder.mkdir()
    episodes = [make_episode(index, length, is_box) for index, length in enumerate([5, 9, 0, 3])]
    entries = []
    for index in range(2):
        attributes = {"action_meanings": MEANINGS, "env_id": "ALE/Pong-v5", "policy": "random"}
        with ShardWriter(folder, index, attributes) as writer:
            for episode in episodes[2 * index : 2 * index + 2]:
                writer.append(episode)
            entries.append(writer.close())
    write_manifest(folder, Manifest(settings={}, is_finished=True, shards=tuple(entries)))
    return folder, [episode for episode in episodes if episode.num_actions]


@pytest.fixture
def minari(tmp_path, monkeypatch):
    """Give Minari a folder of the test's own."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return pytest.importorskip("minari", reason="minari is not installed: genie-gym[minari]")


@pytest.mark.parametrize("is_box", [False, True])
def test_minari_opens_what_was_recorded_value_for_value(minari, tmp_path, is_box):
    folder, episodes = record(tmp_path / "recording", is_box)
    export_minari(folder, "pong/random-v0")
    dataset = minari.load_dataset("pong/random-v0")
    assert "pong/random-v0" in minari.list_local_datasets()
    assert (dataset.total_episodes, dataset.total_steps) == (3, 17)
    assert dataset.observation_space == gym.spaces.Box(0, 255, (40, 36, 3), np.uint8)
    if not is_box:
        assert dataset.action_space == gym.spaces.Discrete(4)
    for written, read in zip(episodes, dataset.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(read.observations, written.frames)
        for key in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(read, key), getattr(written, key)[:-1])
        assert read.observations.dtype == np.uint8 and read.rewards.dtype == np.float32
        assert all(dataset.action_space.contains(action) for action in read.actions)
    seeds = [about["seed"] for about in dataset.storage.get_episode_metadata(range(3))]
    assert seeds == [20, 21, 23]


def test_a_folder_is_opened_by_its_last_part(minari, tmp_path, monkeypatch):
    folder, _ = record(tmp_path / "recording")
    made = export_minari(folder, str(tmp_path / "elsewhere" / "pong-v3"))
    assert made == (tmp_path / "elsewhere" / "pong-v3", "pong-v3")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    assert minari.load_dataset("pong-v3").total_steps == 17


@pytest.mark.parametrize("out", ["pong", "pong-v", "/tmp/pong", "./pong/", "a b-v0", "../-v0/.."])
def test_a_name_that_minari_would_not_take_is_refused(minari, tmp_path, out):
    with pytest.raises(ConfigError, match=r"a Minari id has the form name-v0 or namespace/name-v0"):
        export_minari(tmp_path, out)


def test_video_is_refused_for_it_has_no_actions(minari, tmp_path):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"] = np.zeros((5, 8, 6, 3), np.uint8)
    with pytest.raises(DataError, match=r"video.h5 is video without actions, and Minari"):
        export_minari(tmp_path / "video.h5", "pong-v0")


def test_a_recording_that_does_not_name_its_actions_is_refused(minari, tmp_path):
    folder, _ = record(tmp_path / "recording")
    for shard in Recording.open(folder).shards:
        with h5py.File(shard, "r+") as file:
            del file.attrs["action_meanings"]
    with pytest.raises(DataError, match=r"has no attribute 'action_meanings'. Add it"):
        export_minari(folder, "pong-v0")
    assert not (tmp_path / "minari" / ".pong-v0.part").exists()


def test_a_recording_that_names_nothing_but_its_actions_is_exported(minari, tmp_path):
    folder, _ = record(tmp_path / "recording")
    for shard in Recording.open(folder).shards:
        with h5py.File(shard, "r+") as file:
            for key in set(file.attrs) - {"format_version", "action_meanings"}:
                del file.attrs[key]
    export_minari(folder, "pong-v0")
    dataset = minari.load_dataset("pong-v0")
    assert dataset.total_steps == 17 and dataset.storage.metadata["algorithm_name"] == "unknown"


def test_what_goes_wrong_on_the_way_leaves_nothing(minari, tmp_path):
    folder, _ = record(tmp_path / "recording")
    with h5py.File(folder / "shard-00001.h5", "r+") as file:
        file["rewards"][0] = np.nan
    with pytest.raises(DataError, match=r"rewards must be finite"):
        export_minari(folder, "pong-v0")
    assert not list((tmp_path / "minari").iterdir())


def test_a_dataset_that_is_there_is_left_alone(minari, tmp_path):
    folder, _ = record(tmp_path / "recording")
    export_minari(folder, "pong-v0")
    with pytest.raises(DataError, match=r"pong-v0 is there already and not empty"):
        export_minari(folder, "pong-v0")
    assert minari.load_dataset("pong-v0").total_steps == 17


def test_without_minari_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingExtraError, match=r"Install it: pip install 'genie-gym\[minari\]'"):
        export_minari(tmp_path, "pong-v0")
