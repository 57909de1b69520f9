import json
import shutil

import h5py
import pytest

from collectors import record
from genie_gym.cli import main
from genie_gym.data.manifest import MANIFEST_NAME
from genie_gym.errors import DataError
from genie_gym.evaluation.real_replay import find_replay_faults

SMALL = {"steps": 330, "shard_steps": 150, "max_episode_steps": 100, "progress": False}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    record("Breakout", folder, policy="random", **SMALL)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {"sticky": 0.25, "policy": "repeat"},
        {"frame_size": None, "frame_skip": 3, "max_pool": False, "noop_max": 0},
        {"game": "Pong", "policy": "mixed", "frame_size": 84},
    ],
)
def test_every_recorded_transition_is_the_real_games(tmp_path, options):
    record(**{"game": "Breakout", "out": tmp_path, **SMALL, **options})
    assert find_replay_faults(tmp_path) == []


def test_whole_games_are_played_again_to_their_end(tmp_path):
    summary = record("Breakout", tmp_path, steps=800, policy="random", progress=False)
    assert summary.num_episodes >= 3
    assert find_replay_faults(tmp_path) == []


def changed(recording, folder, change):
    """Copy a recording without its hashes, and change its second shard."""
    shutil.copytree(recording, folder, dirs_exist_ok=True)
    (folder / MANIFEST_NAME).unlink()
    with h5py.File(folder / "shard-00001.h5", "r+") as file:
        change(file)
    return folder


def brighten(file):
    frame = file["frames"][7]
    frame[3, 4] ^= 1
    file["frames"][7] = frame


def reward(file):
    file["rewards"][7] += 1


def end(file):
    file["terminations"][7] = True


def act_beyond(file):
    file["actions"][7] = 9


def forget_seed(file):
    about = json.loads(file["episode_ids"].attrs["2"])
    file["episode_ids"].attrs["2"] = json.dumps({**about, "reset_seed": None})


@pytest.mark.parametrize(
    "change, text",
    [
        (brighten, "frames, row 7 of episode 2 must be the game's, but 3 values are not"),
        (reward, "rewards, row 7 of episode 2 must be 0.0, got 1.0"),
        (end, "terminations, row 7 of episode 2 must be False, got True"),
        (act_beyond, "actions, row 7 of episode 2 must be one of the game's, got 9"),
        (forget_seed, "reset_seed, row 0 of episode 2 is not stated"),
    ],
)
def test_the_first_row_that_comes_out_otherwise_is_named(recording, tmp_path, change, text):
    [fault] = find_replay_faults(changed(recording, tmp_path, change))
    assert fault.file.name == "shard-00001.h5"
    assert f"shard-00001.h5: {text}" in str(fault) and "install that version" in str(fault)


def test_another_action_shows_in_a_later_row(recording, tmp_path):
    def act_otherwise(file):
        file["actions"][0:40] = 2

    [fault] = find_replay_faults(changed(recording, tmp_path, act_otherwise))
    assert fault.key in ("frames", "rewards")


def test_the_command_compares_hashes_first_and_then_plays(recording, tmp_path, capsys):
    assert main(["data", "verify", str(recording), "--replay"]) == 0
    assert "ok, 2 shards" in capsys.readouterr().out
    folder = changed(recording, tmp_path, reward)
    assert main(["data", "verify", str(folder)]) == 0
    assert main(["data", "verify", str(folder), "--replay"]) == 1
    assert "rewards, row 7 of episode 2 must be 0.0, got 1.0" in capsys.readouterr().out


def test_what_is_no_recording_of_ale_is_refused(recording, tmp_path):
    def rename(file):
        file.attrs["env_id"] = "CartPole-v1"

    def misset(file):
        file.attrs["env_kwargs"] = json.dumps({"colour": "blue"})

    for name, change, text in [
        ("other", rename, r"recorded in 'CartPole-v1'; only recordings of ALE games"),
        ("unset", misset, r"'env_kwargs' must hold the options of RealEnv as JSON, got .*colour"),
    ]:
        folder = changed(recording, tmp_path / name, change)
        with h5py.File(folder / "shard-00000.h5", "r+") as file:
            change(file)
        with pytest.raises(DataError, match=text):
            find_replay_faults(folder)
