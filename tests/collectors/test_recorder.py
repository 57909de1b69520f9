import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from collectors import record
from collectors.episodes import RecordingSettings, cut_episode, play_episode
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import read_manifest
from genie_gym.data.repair import repair
from genie_gym.data.verify import find_faults
from genie_gym.errors import ConfigError, DataError, GameError

KEYS = ("frames", "actions", "rewards", "terminations", "truncations", "episode_ids")
# Episodes of 100 actions and shards of 200 or more: several of both in a second.
SMALL = {"steps": 650, "shard_steps": 150, "max_episode_steps": 100, "progress": False}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    record("Pong", folder, seed=3, **SMALL)
    return folder


def test_the_recording_holds_exactly_the_steps_asked_for(unbroken):
    recording = Recording.open(unbroken)
    rows = recording.load()
    assert recording.num_frames - recording.num_episodes == 650
    assert [episode.length - 1 for episode in recording.episodes] == [100] * 6 + [50]
    assert len(recording.shards) == 4
    last_rows = [episode.start + episode.length - 1 for episode in recording.episodes]
    assert (rows.actions[last_rows] == -1).all() and (rows.rewards[last_rows] == 0).all()
    assert (np.delete(rows.actions, last_rows) >= 0).all()
    np.testing.assert_array_equal(np.flatnonzero(rows.truncations), np.array(last_rows) - 1)
    assert not rows.terminations.any()


def test_attributes_say_how_the_emulator_was_set(unbroken):
    attributes = Recording.open(unbroken).attributes
    expected = {
        "env_id": "ALE/Pong-v5",
        "fps": 15.0,
        "frame_skip": 4,
        "max_pool": True,
        "sticky": 0.0,
        "noop_max": 30,
        "policy": "mixed",
        "seed": 3,
    }
    assert {key: attributes[key] for key in expected} == expected
    assert json.loads(attributes["env_kwargs"])["frame_size"] == 64
    assert attributes["action_meanings"][:4] == ["NOOP", "FIRE", "RIGHT", "LEFT"]


def test_an_episode_can_be_played_again_from_its_number_alone(unbroken):
    settings = RecordingSettings(**read_manifest(unbroken).settings)
    recording = Recording.open(unbroken)
    rows, episode = recording.load(), recording.episodes[4]
    again = play_episode(settings, 4, max_actions=1000)
    part = slice(episode.start, episode.start + episode.length)
    np.testing.assert_array_equal(again.frames, rows.frames[part])
    np.testing.assert_array_equal(again.actions, rows.actions[part])
    assert (again.policy, again.reset_seed) == (episode.policy, episode.reset_seed)


def test_a_cut_episode_is_one_that_was_played_with_the_limit(unbroken):
    settings = RecordingSettings(**read_manifest(unbroken).settings)
    cut = cut_episode(play_episode(settings, 0, max_actions=40), 25)
    played = play_episode(settings, 0, max_actions=25)
    for key in KEYS[:-1]:
        np.testing.assert_array_equal(getattr(cut, key), getattr(played, key))


def test_two_workers_record_what_one_does(unbroken, tmp_path, assert_same_recording):
    record("Pong", tmp_path, seed=3, num_envs=2, **SMALL)
    assert_same_recording(unbroken, tmp_path)


@pytest.mark.usefixtures("break_every_third_episode")
def test_a_resumed_recording_equals_an_unbroken_one(unbroken, tmp_path, assert_same_recording):
    num_runs = 0
    while not (tmp_path / "manifest.json").exists() or not read_manifest(tmp_path).is_finished:
        num_runs += 1
        try:
            record("Pong", tmp_path, seed=3, resume=True, **SMALL)
        except KeyboardInterrupt:
            assert not list(tmp_path.glob("*.part"))
    assert num_runs > 1
    assert_same_recording(unbroken, tmp_path)


def test_a_killed_recording_can_be_resumed(unbroken, tmp_path, assert_same_recording):
    code = f"import collectors; collectors.record('Pong', {str(tmp_path)!r}, seed=3, **{SMALL!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("shard-*.h5")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for shard in tmp_path.glob("shard-*.h5"):
        Recording.open(shard).load()

    record("Pong", tmp_path, seed=3, resume=True, **SMALL)
    assert_same_recording(unbroken, tmp_path)


def test_resuming_starts_what_is_absent_and_leaves_what_is_finished(tmp_path):
    options = {**SMALL, "steps": 120, "policy": "repeat", "resume": True}
    assert record("Pong", tmp_path / "new", **options).num_steps == 120
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").iterdir()}
    summary = record("Pong", tmp_path / "new", **options)
    assert (summary.num_steps, summary.steps_per_second) == (120, 0.0)
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "new").iterdir()}


def test_an_existing_recording_is_not_overwritten(unbroken):
    with pytest.raises(DataError, match=r"already holds a recording of 650 steps. Continue it"):
        record("Pong", unbroken, seed=3, **SMALL)


def test_resuming_with_other_settings_is_refused_with_both_values(unbroken):
    with pytest.raises(
        DataError, match=r"recorded with sticky=0.0, but is resumed with sticky=0.5"
    ):
        record("Pong", unbroken, seed=3, sticky=0.5, resume=True, **SMALL)


def test_resuming_on_a_changed_shard_is_refused(unbroken, tmp_path):
    for path in unbroken.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "shard-00001.h5").write_bytes(b"other")
    with pytest.raises(DataError, match=r"shard-00001.h5 is changed since it was written"):
        record("Pong", tmp_path, seed=3, resume=True, **SMALL)
    (tmp_path / "shard-00001.h5").unlink()
    with pytest.raises(DataError, match=r"shard-00001.h5 is missing"):
        record("Pong", tmp_path, seed=3, resume=True, **SMALL)


def test_resuming_with_another_emulator_is_refused(unbroken, tmp_path, monkeypatch):
    folder = damaged_copy(unbroken, tmp_path, 3)
    versions = {"ale_py_version": "9.9", "gymnasium_version": "9.9"}
    monkeypatch.setattr("collectors.resuming.package_versions", lambda: versions)
    with pytest.raises(DataError, match=r"with ale_py_version [0-9.]+, and this is 9.9: the same"):
        record("Pong", folder, seed=3, resume=True, **SMALL)


def damaged_copy(recording, folder, *indices):
    shutil.copytree(recording, folder, dirs_exist_ok=True)
    for index in indices:
        (folder / f"shard-{index:05d}.h5").write_bytes(b"other")
    repair(folder)
    return folder


@pytest.mark.parametrize("indices", [(0,), (1, 2), (3,), (0, 2), (0, 1, 2, 3)])
def test_resuming_after_a_repair_fills_the_gaps_with_the_same_rows(
    unbroken, tmp_path, indices, assert_same_recording
):
    folder = damaged_copy(unbroken, tmp_path, *indices)
    assert find_faults(folder) == []
    record("Pong", folder, seed=3, resume=True, **SMALL)
    assert_same_recording(unbroken, folder)
    assert read_manifest(folder) == read_manifest(unbroken)
    assert find_faults(folder) == []


def test_a_gap_that_other_play_does_not_fill_is_left_open(unbroken, tmp_path, monkeypatch):
    folder = damaged_copy(unbroken, tmp_path, 1)

    def play_shorter(settings, episode_id, max_actions, *, should_stop):
        return play_episode(settings, episode_id, 40)

    monkeypatch.setattr("collectors.workers.play_episode", play_shorter)
    with pytest.raises(DataError, match=r"shard-00002.h5 cannot be filled: .* lead to 6"):
        record("Pong", folder, seed=3, resume=True, **SMALL)
    assert not (folder / "shard-00001.h5").exists() and find_faults(folder) == []


def test_shards_without_a_manifest_are_left_alone(tmp_path):
    (tmp_path / "shard-00000.h5").touch()
    with pytest.raises(DataError, match=r"holds shard-00000.h5 but no manifest.json"):
        record("Pong", tmp_path, resume=True, **SMALL)
    with pytest.raises(DataError, match="is a file; a recording is a folder"):
        record("Pong", tmp_path / "shard-00000.h5", **SMALL)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"steps": 0}, ConfigError, "steps must be at least 1, got 0"),
        ({"num_envs": 0}, ConfigError, "num_envs must be at least 1, got 0"),
        ({"shard_steps": 0}, ConfigError, "shard_steps must be at least 1, got 0"),
        ({"policy": "scriptd"}, ConfigError, "Did you mean 'scripted'"),
        ({"sticky": 2.0}, ConfigError, "sticky must be a probability"),
        ({"game": "Pomg"}, GameError, "Did you mean 'Pong'"),
        ({"game": "Alien", "policy": "scripted"}, GameError, "plays only Breakout, Freeway"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        record(**{"game": "Pong", "out": tmp_path / "new", **SMALL, **options})
    assert not (tmp_path / "new").exists()


def test_no_held_out_episode_repeats_a_training_episodes_actions(unbroken, tmp_path):
    record("Pong", tmp_path, seed=4, **SMALL)

    def actions(folder):
        recording = Recording.open(folder)
        rows = recording.load()
        return {rows.actions[e.start : e.start + e.length].tobytes() for e in recording.episodes}

    assert len(actions(unbroken)) == len(actions(tmp_path)) == 7
    assert not actions(unbroken) & actions(tmp_path)


def test_a_recording_is_small_and_its_summary_says_so(unbroken, tmp_path):
    summary = record("Breakout", tmp_path, **{**SMALL, "policy": "random"})
    assert 0 < summary.num_bytes < 650 * 1000
    assert summary.num_episodes == Recording.open(tmp_path).num_episodes
    assert "random" in summary.class_table


def test_a_gap_that_longer_play_fills_ends_in_an_error_and_not_in_empty_shards(
    unbroken, tmp_path, monkeypatch
):
    folder = damaged_copy(unbroken, tmp_path, 1)
    monkeypatch.setattr("collectors.filling.play_episodes", lambda *_, **__: (_ for _ in ()))
    with pytest.raises(DataError, match=r"cannot be filled: all .* steps are taken before its end"):
        record("Pong", folder, seed=3, resume=True, **SMALL)
    assert find_faults(folder) == []
