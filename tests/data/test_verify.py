import json
import os

import h5py
import numpy as np
import pytest

from genie_gym.cli import main
from genie_gym.data.hdf5 import Recording
from genie_gym.data.manifest import read_manifest
from genie_gym.data.repair import repair
from genie_gym.data.verify import find_faults, find_notes
from genie_gym.errors import DataError


def rows(key, row, value):
    def change(file):
        file[key][row] = value

    return change


def attribute(key, value):
    def change(file):
        del file.attrs[key]
        if value is not None:
            file.attrs[key] = value

    return change


SEMANTIC = [
    (rows("actions", 3, -1), r"actions, row 3 from episode 0 must be in \[0, 3\) .*got -1"),
    (rows("actions", 4, 3), r"actions, row 4 .*must be in \[0, 3\).*got 3"),
    (rows("actions", 9, 0), "actions, row 9 from episode 0 must be -1 on a last row, got 0"),
    (rows("rewards", 12, np.nan), "rewards, row 12 from episode 1 must be finite, got nan"),
    (rows("rewards", 9, 1), r"rewards, row 9 .*must be 0 on a last row, got 1.0"),
    (rows("terminations", 2, True), "terminations, row 2 .*must be False except on a last action"),
    (rows("truncations", 19, True), "truncations, row 19 .*must be False except on a last action"),
    (rows("terminations", 8, False), "terminations, row 8 .*or truncations must be True"),
    (rows("episode_ids", slice(10, 20), 4), "episode_ids, row 10 .*must rise by 1, got 4"),
    (rows("episode_ids", 9, 1), "row 10 from|row 9 from|row 8 from"),
    (attribute("frame_skip", None), "attribute 'frame_skip' must be int.*got None"),
    (attribute("sticky", np.nan), "attribute 'sticky' must be int or float, 0 or more.*got nan"),
    (attribute("seed", "3"), "attribute 'seed' must be int.*got '3'"),
    (attribute("action_meanings", 5), "'action_meanings' must be a list of names, got 5"),
    (attribute("format_version", 2), "has format version 2; this genie_gym reads 1"),
    (lambda file: file["episode_ids"].attrs.pop("1"), "attribute 'policy', episode 1 must be str"),
    (
        lambda file: file["episode_ids"].attrs.modify("1", "[]"),
        "attribute '1' of episode_ids must be a JSON object, got '\\[\\]'",
    ),
]


def texts(path):
    return [str(fault) for fault in find_faults(path)]


def test_a_whole_recording_has_no_faults(whole):
    assert find_faults(whole) == [] and find_notes(whole) == []
    assert find_faults(whole / "shard-00001.h5") == []


@pytest.mark.parametrize("change, text", SEMANTIC)
def test_a_wrong_value_is_named_without_any_hash(whole, change, text):
    shard = whole / "shard-00000.h5"
    with h5py.File(shard, "r+") as file:
        change(file)
    faults = "\n".join(texts(shard))
    assert str(shard) in faults and "Copy it again, or record it again" in faults
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(faults)


def test_all_faults_are_listed_and_neighbouring_rows_share_a_line(whole):
    shard = whole / "shard-00000.h5"
    with h5py.File(shard, "r+") as file:
        file["rewards"][2:5] = np.inf
        file["rewards"][7] = np.nan
        file["actions"][0] = 8
    first, second, third = texts(shard)
    assert "actions, row 0 from episode 0" in first
    assert "rewards, rows 2 to 4 from episode 0 must be finite, got inf" in second
    assert "rewards, row 7" in third
    [fault] = texts(whole)  # what the hash tells is not opened: HDF5 may crash on it
    assert "changed since it was written: SHA-256" in fault


def test_one_flipped_pixel_is_caught_by_the_hash(whole):
    with h5py.File(whole / "shard-00001.h5", "r+") as file:
        file["frames"][5, 0, 0, 0] ^= 1
    [fault] = find_faults(whole)
    assert fault.file == whole / "shard-00001.h5"
    assert fault.cure.endswith(f"genie-gym data repair {whole}")


def test_files_that_cannot_be_opened_are_faults_of_their_own(whole):
    (whole / "shard-00000.h5").write_bytes(b"no HDF5")
    (whole / "shard-00001.h5").unlink()
    os.symlink("shard-00002.h5", whole / "shard-00001.h5.link")
    os.rename(whole / "shard-00002.h5", whole / "elsewhere")
    os.symlink("shard-00002.h5", whole / "shard-00002.h5")
    text = "\n".join(texts(whole))
    assert "shard-00000.h5: changed since it was written" in text
    assert "shard-00000.h5: cannot be read as HDF5" in texts(whole / "shard-00000.h5")[0]
    assert "shard-00001.h5: cannot be read: No such file or directory" in text
    assert "shard-00002.h5: cannot be read: Too many levels of symbolic links" in text


@pytest.mark.parametrize("name", ["loop", "whole"])
def test_a_loop_of_links_is_refused_or_named(whole, name):
    loop = whole / "manifest.json" if name == "whole" else whole.parent / "loop"
    loop.unlink(missing_ok=True)
    os.symlink(loop.name, loop)
    assert "Too many levels of symbolic links" in texts(whole.parent / name)[0]
    with pytest.raises(DataError, match="Too many levels of symbolic links"):
        Recording.open(whole.parent / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(whole):
    (whole / "shard-00001.h5").chmod(0)
    assert "shard-00001.h5: cannot be read: Permission denied" in texts(whole)[0]


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("rows", 21, "rows, of shard-00001.h5 must be 20, got 21"),
        ("episodes", 3, "episodes, of shard-00001.h5 must be 2, got 3"),
        ("reward_classes", {"0": 18}, "reward_classes, of shard-00001.h5 must be"),
        ("rows", "20", "manifest.json: is not a manifest .*rows must be int, got '20'"),
        ("file", "../shard-00001.h5", "a shard is named like shard-00000.h5"),
        ("file", "shard-00000.h5", "must be listed in order and once each"),
    ],
)
def test_a_wrong_manifest_is_named(whole, key, value, text):
    content = json.loads((whole / "manifest.json").read_text())
    content["shards"][1][key] = value
    (whole / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(AssertionError, match=text):
        raise AssertionError("\n".join(texts(whole)))


def test_shards_that_do_not_follow_each_other_are_named(whole):
    (whole / "manifest.json").unlink()
    os.rename(whole / "shard-00002.h5", whole / "shard-00001.h5")
    [fault] = texts(whole)
    assert "shard-00001.h5: episode_ids, row 0 must go on with 2 after the shard before" in fault


def test_repair_sets_bad_shards_aside_and_never_overwrites(whole):
    bad = whole / "shard-00001.h5"
    aside = whole / "set-aside"
    aside.mkdir()
    (aside / bad.name).write_text("of an earlier repair")
    content = bad.read_bytes()[:-1]
    bad.write_bytes(content)
    lines = repair(whole)
    assert lines[0] == f"{bad} was set aside as {aside / 'shard-00001.h5.1'}"
    assert "now lists 2 whole shards of 3, 36 actions" in lines[1]
    assert (aside / "shard-00001.h5.1").read_bytes() == content
    assert (aside / bad.name).read_text() == "of an earlier repair"
    assert find_faults(whole) == [] and repair(whole) == []
    [note] = find_notes(whole)
    assert "shard-00001.h5 is not there: genie-gym collect --resume records it again" in note
    assert not read_manifest(whole).is_finished
    assert Recording.open(whole).num_episodes == 4


def test_repair_counts_a_manifest_again(whole):
    path = whole / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"rows": 20', '"rows": 19').replace("true", "false"))
    assert len(find_faults(whole)) == 3
    repair(whole)
    assert path.read_text() == text and find_faults(whole) == []


def test_a_file_is_not_repaired(whole):
    with pytest.raises(DataError, match="is a file; only a recording folder can be repaired"):
        repair(whole / "shard-00000.h5")


def test_the_commands_exit_with_1_for_faults_and_0_after_repair(whole, capsys):
    (whole / ".shard-00003.h5.part").touch()
    assert main(["data", "verify", str(whole)]) == 0
    note, ok = capsys.readouterr().out.splitlines()
    assert "is a shard that was still open" in note and ok == f"{whole}: ok, 3 shards"
    with h5py.File(whole / "shard-00002.h5", "r+") as file:
        file["rewards"][0] = 5
    assert main(["data", "verify", str(whole)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["data", "repair", str(whole)]) == 0
    assert main(["data", "verify", str(whole)]) == 0
    assert main(["data", "repair", str(whole)]) == 0
    assert f"{whole} is whole: nothing to do" in capsys.readouterr().out
    assert main(["data", "verify", str(whole / "absent")]) == 2
    assert "absent does not exist" in capsys.readouterr().err


def test_show_counts_and_draws(whole, tmp_path, capsys):
    assert main(["data", "show", str(whole), "--out", str(tmp_path / "out")]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rows", "60"] in words and ["1", "6", "11.11%"] in words
    actions = np.concatenate([Recording.open(whole).load_column("actions")])
    assert ["FIRE", str((actions == 1).sum()), f"{(actions == 1).sum() / 54:.2%}"] in words
    assert (tmp_path / "out" / "recording.png").stat().st_size > 0
    assert (tmp_path / "out" / "recording.mp4").stat().st_size > 0


def test_an_unfinished_recording_is_whole_but_noted(whole):
    last = read_manifest(whole).shards[-1].file
    (whole / last).write_bytes(b"spoilt")
    repair(whole)
    assert find_faults(whole) == []
    [note] = find_notes(whole)
    assert "is not finished: genie-gym collect --resume goes on with it" in note


def test_a_recording_with_a_missing_shard_is_opened_after_the_named_repair(whole):
    (whole / "shard-00001.h5").unlink()
    with pytest.raises(DataError, match=rf"genie-gym data repair {whole}, then collect --resume"):
        Recording.open(whole)
    assert main(["data", "repair", str(whole)]) == 0
    assert [episode.episode_id for episode in Recording.open(whole).episodes] == [0, 1, 4, 5]
