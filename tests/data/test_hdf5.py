import json
import shutil

import h5py
import numpy as np
import pytest

from genie_gym.data.hdf5 import Recording
from genie_gym.data.layout import find_shards
from genie_gym.data.manifest import Manifest, read_manifest, write_manifest
from genie_gym.data.shards import EpisodeRows, ShardWriter
from genie_gym.errors import DataError


def make_episode(episode_id, num_actions, *, reward=1.0):
    rng = np.random.default_rng(episode_id)
    num_rows = num_actions + 1
    ends = np.arange(num_rows) == num_actions - 1
    return EpisodeRows(
        episode_id=episode_id,
        frames=rng.integers(256, size=(num_rows, 8, 6, 3), dtype=np.uint8),
        actions=np.append(rng.integers(6, size=num_actions), -1).astype(np.int16),
        rewards=np.where(ends, np.float32(reward), np.float32(0)),
        terminations=ends,
        truncations=np.zeros(num_rows, bool),
        policy=f"policy {episode_id % 2}",
        policy_seed=10 + episode_id,
        reset_seed=20 + episode_id,
    )


EPISODES = [make_episode(0, 20), make_episode(1, 5, reward=-1.0), make_episode(2, 40)]


@pytest.fixture
def folder(tmp_path):
    """Hold three episodes in two shards."""
    entries = []
    for index, episodes in enumerate([EPISODES[:2], EPISODES[2:]]):
        attributes = {"action_meanings": ["NOOP", "FIRE"], "sticky": 0.25, "max_pool": True}
        with ShardWriter(tmp_path, index, attributes) as writer:
            for episode in episodes:
                writer.append(episode)
            entries.append(writer.close())
    manifest = Manifest(settings={"seed": 0}, is_finished=True, shards=tuple(entries))
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_what_is_written_is_what_is_read(folder):
    rows = Recording.open(folder).load()
    for key in ("frames", "actions", "rewards", "terminations", "truncations"):
        written = np.concatenate([getattr(episode, key) for episode in EPISODES])
        np.testing.assert_array_equal(getattr(rows, key), written)
        assert getattr(rows, key).dtype == written.dtype
    np.testing.assert_array_equal(rows.episode_ids, np.repeat([0, 1, 2], [21, 6, 41]))


def test_what_a_recording_may_lack_is_none_and_all_shards_lack_the_same(folder):
    shards = find_shards(folder)
    with h5py.File(shards[0], "r+") as file:
        del file["rewards"]
    with pytest.raises(DataError, match="has no dataset 'rewards'"):
        Recording.open(folder)
    with pytest.raises(DataError, match=r"with actions \(\), without \['rewards'\]"):
        Recording.open(folder, may_lack=["rewards"])
    rows = Recording.open(shards[0], may_lack=["rewards"]).load()
    assert rows.rewards is None
    written = np.concatenate([episode.actions for episode in EPISODES[:2]])
    np.testing.assert_array_equal(rows.actions, written)


def test_episodes_know_where_they_lie_and_who_played(folder):
    recording = Recording.open(folder)
    assert (recording.num_frames, recording.num_episodes) == (68, 3)
    assert [(e.shard, e.start, e.length) for e in recording.episodes] == [
        (0, 0, 21),
        (0, 21, 6),
        (1, 27, 41),
    ]
    last = recording.episodes[-1]
    assert (last.episode_id, last.policy, last.policy_seed, last.reset_seed) == (
        2,
        "policy 0",
        12,
        22,
    )


def test_recordings_of_other_actions_are_not_joined(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "manifest.json").unlink()
    for shard in find_shards(other):
        with h5py.File(shard, "r+") as file:
            file.attrs["action_meanings"] = ["NOOP", "UP"]
    text = "'UP'.*, but .* is of .*'FIRE'.* have the same game and actions"
    with pytest.raises(DataError, match=text):
        Recording.join([Recording.open(folder), Recording.open(other)])


def test_attributes_come_back_as_plain_values(folder):
    recording = Recording.open(folder)
    assert recording.attributes["sticky"] == 0.25
    assert recording.attributes["max_pool"] is True
    assert recording.attributes["format_version"] == 1
    assert {"ale_py_version", "genie_gym_version"} <= set(recording.attributes)
    assert recording.action_meanings == ["NOOP", "FIRE"]


def test_the_file_has_the_keys_chunks_and_compression_of_the_format(folder):
    with h5py.File(folder / "shard-00000.h5") as file:
        assert set(file) == {
            "frames",
            "actions",
            "rewards",
            "terminations",
            "truncations",
            "episode_ids",
        }
        assert file["frames"].chunks == (16, 8, 6, 3)
        assert (file["frames"].compression, file["frames"].compression_opts) == ("gzip", 1)


def test_one_shard_alone_is_a_recording(folder):
    recording = Recording.open(folder / "shard-00001.h5")
    assert (recording.num_frames, recording.num_episodes) == (41, 1)
    np.testing.assert_array_equal(recording.load().frames, EPISODES[2].frames)


def test_the_class_table_counts_actions_and_averages_whole_games(folder):
    table = [line.split() for line in Recording.open(folder).class_table().splitlines()]
    assert ["-1", "1", "1.54%"] in table
    assert ["0", "62", "95.38%"] in table
    assert ["policy", "0", "2", "60", "2", "1.00"] in table


def test_a_shard_appears_only_when_it_is_whole(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path, 0, {}) as writer:
        writer.append(EPISODES[0])
        assert not list(tmp_path.glob("shard-*.h5"))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_recording_that_does_not_exist_is_refused_with_the_command_that_makes_one(tmp_path):
    with pytest.raises(DataError, match=r"does not exist. Record one: genie-gym collect"):
        Recording.open(tmp_path / "nothing")


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no closed shard"):
        Recording.open(tmp_path)


def test_a_missing_shard_is_named(folder):
    (folder / "shard-00000.h5").unlink()
    cure = rf"Restore it, .*: genie-gym data repair {folder}, then collect --resume"
    with pytest.raises(DataError, match=rf"shard-00000.h5 is missing, but the manifest .*{cure}"):
        Recording.open(folder)


def test_shards_are_ordered_by_number(tmp_path):
    names = ["shard-00002.h5", "shard-99999.h5", "shard-100000.h5", "shard-a.h5", "shard-b.h5"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in find_shards(tmp_path)] == names


def test_a_shard_of_another_recording_is_refused(folder):
    shutil.copy(folder / "shard-00001.h5", folder / "shard-00000.h5")
    with pytest.raises(DataError, match="has 41 rows, but the manifest lists 27"):
        Recording.open(folder)


def test_shards_of_different_shapes_are_refused(folder):
    (folder / "manifest.json").unlink()
    with h5py.File(folder / "shard-00001.h5", "r+") as file:
        del file["frames"]
        file["frames"] = np.zeros((41, 9, 9, 3), np.uint8)
    with pytest.raises(DataError, match=r"frames \(9, 9, 3\).*but.*frames \(8, 6, 3\)"):
        Recording.open(folder)


@pytest.mark.parametrize("text", ["{", '{"format_version": 1}', "[]"])
def test_a_broken_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest.json is not a manifest of format version 1"):
        Recording.open(folder)


def test_a_manifest_of_a_later_format_is_refused(folder):
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "format_version": 2}))
    with pytest.raises(DataError, match=r"format version 2; this genie_gym reads 1. Upgrade"):
        read_manifest(folder)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_truncated_file_is_refused(folder, size):
    path = folder / "shard-00000.h5"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"shard-00000.h5 cannot be read as HDF5.*truncated"):
        Recording.open(path)


def _replace(key, values):
    def change(file):
        del file[key]
        file[key] = values

    return change


def _soft_link(file):
    del file["rewards"]
    file["rewards"] = h5py.SoftLink("/frames")


def _external_link(file):
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink("/etc/hostname", "/rewards")


def _external_storage(file):
    del file["rewards"]
    file.create_dataset("rewards", (27,), np.float32, external=[("/etc/hostname", 0, 108)])


def _virtual(file):
    del file["rewards"]
    layout = h5py.VirtualLayout(shape=(27,), dtype=np.float32)
    layout[:] = h5py.VirtualSource("elsewhere.h5", "rewards", shape=(27,))
    file.create_virtual_dataset("rewards", layout)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda file: file.__delitem__("rewards"), "has no dataset 'rewards'. Needed: "),
        (lambda file: file.create_dataset("notes", data=[1]), "has an unknown key 'notes'"),
        (lambda file: file.create_group("notes"), "'notes' is a group. Allowed: datasets"),
        (lambda file: file.attrs.pop("format_version"), "has no attribute 'format_version'"),
        (lambda file: file.attrs.modify("format_version", 3), "has format version 3; this"),
        (_replace("rewards", np.zeros(27)), "rewards must be float32, got float64"),
        (
            _replace("actions", np.zeros(27, np.int64)),
            "actions must be int16 or float32, got int64",
        ),
        (_replace("frames", np.zeros((27, 8, 6), np.uint8)), r"frames must be \(rows, H, W, 3\)"),
        (
            _replace("frames", np.zeros((27, 8, 6, 4), np.uint8)),
            r"frames must be \(rows, H, W, 3\)",
        ),
        (_replace("rewards", np.zeros((27, 1), np.float32)), "rewards must be 1 axes"),
        (_replace("rewards", np.zeros(26, np.float32)), "rewards has 26 rows, and frames 27"),
        (_replace("episode_ids", np.arange(27) % 2), "rows of one episode must be neighbours"),
        (_soft_link, "'rewards' is a link to elsewhere"),
        (_external_link, "'rewards' is a link to elsewhere"),
        (_external_storage, "'rewards' is stored in another file"),
        (_virtual, "'rewards' is stored in another file"),
    ],
)
def test_a_file_that_is_not_laid_out_as_the_format_says_is_refused(folder, change, text):
    path = folder / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=f"shard-00000.h5.*{text}"):
        Recording.open(path)


def test_a_reward_that_is_not_finite_is_refused(folder):
    path = folder / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        file["rewards"][7] = np.nan
    with pytest.raises(DataError, match="rewards must be finite, row 7 is nan"):
        Recording.open(path).load()


VIDEO = np.random.default_rng(0).integers(256, size=(5, 8, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("key", ["frames", "images"])
@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("is_channels_first", [False, True])
def test_a_foreign_file_is_read_as_video_without_actions(
    tmp_path, key, is_float, is_channels_first
):
    values = np.moveaxis(VIDEO, -1, 1) if is_channels_first else VIDEO
    values = (values / 255).astype(np.float32) if is_float else values
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file[key] = values
    recording = Recording.open(tmp_path / "video.h5")
    assert not recording.has_actions and recording.frame_shape == (8, 6, 3)
    rows = recording.load()
    np.testing.assert_array_equal(rows.frames, VIDEO)
    assert rows.actions is None and not rows.episode_ids.any()
    assert "without actions" in recording.class_table()


def test_video_may_say_which_rows_belong_together(tmp_path):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["images"] = VIDEO
        file["episode_ids"] = np.array([7, 7, 3, 3, 3])
    recording = Recording.open(tmp_path / "video.h5")
    assert [(one.episode_id, one.start, one.length) for one in recording.episodes] == [
        (0, 0, 2),
        (1, 2, 3),
    ]
    rows = recording.load()
    np.testing.assert_array_equal(rows.episode_ids, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(rows.frames, VIDEO)
    assert rows.actions is None


def test_two_foreign_files_of_a_folder_are_two_episodes(tmp_path):
    for name in ("shard-00000.h5", "shard-00001.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["frames"] = VIDEO
    rows = Recording.open(tmp_path).load()
    np.testing.assert_array_equal(rows.episode_ids, np.repeat([0, 1], 5))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (np.zeros(4, np.int64), r"episode_ids must be int64 with one row per frame, \(5,\), got"),
        (np.zeros(5, np.float32), r"episode_ids must be int64 with one row per frame"),
        (np.array([0, 0, 1, 0, 0]), "rows of one episode must be neighbours"),
    ],
)
def test_video_with_other_episode_ids_is_refused(tmp_path, ids, text):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"], file["episode_ids"] = VIDEO, ids
    with pytest.raises(DataError, match=f"video.h5: {text}"):
        Recording.open(tmp_path / "video.h5")


def test_video_of_a_later_format_is_refused(tmp_path):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"] = VIDEO
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match=r"video.h5: has format version 2; this genie_gym reads 1"):
        Recording.open(tmp_path / "video.h5")


def test_grey_video_gets_three_equal_channels(tmp_path):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"] = VIDEO[..., :1]
    frames = Recording.open(tmp_path / "video.h5").load().frames
    np.testing.assert_array_equal(frames, np.repeat(VIDEO[..., :1], 3, axis=-1))


@pytest.mark.parametrize(
    "values",
    [np.zeros((5, 8, 6), np.uint8), np.zeros((5, 8, 6, 3), np.int32), np.zeros((0, 8, 6, 3), "u1")],
)
def test_video_of_another_type_or_shape_is_refused(tmp_path, values):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"] = values
    with pytest.raises(DataError, match=r"frames must be uint8 or float, \(T, H, W, C\) or"):
        Recording.open(tmp_path / "video.h5")


@pytest.mark.parametrize("value", [2.0, -0.1, np.nan])
def test_float_video_outside_of_0_to_1_is_refused(tmp_path, value):
    with h5py.File(tmp_path / "video.h5", "w") as file:
        file["frames"] = np.full((5, 8, 6, 3), value, np.float32)
    with pytest.raises(DataError, match=r"float frames must lie in \[0, 1\]"):
        Recording.open(tmp_path / "video.h5").load()
