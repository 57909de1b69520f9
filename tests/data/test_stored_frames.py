import pickle
import time
import tracemalloc
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from genie_gym.data.hdf5 import Recording
from genie_gym.data.shards import EpisodeRows, ShardWriter
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError

LENGTHS = [[40, 3, 17], [16], [50, 33]]
"""Rows of each episode, by shard: some end inside of a chunk of 16, some with it."""


def make_episode(episode_id, num_rows):
    rng = np.random.default_rng(episode_id)
    return EpisodeRows(
        episode_id=episode_id,
        frames=rng.integers(256, size=(num_rows, 8, 6, 3), dtype=np.uint8),
        actions=np.append(rng.integers(6, size=num_rows - 1), -1).astype(np.int16),
        rewards=rng.random(num_rows, np.float32),
        terminations=np.zeros(num_rows, bool),
        truncations=np.zeros(num_rows, bool),
        policy="random",
        policy_seed=0,
        reset_seed=0,
    )


@pytest.fixture
def folder(tmp_path):
    """Hold six episodes in three shards."""
    episode_id = 0
    for index, lengths in enumerate(LENGTHS):
        with ShardWriter(tmp_path, index, {}) as writer:
            for num_rows in lengths:
                writer.append(make_episode(episode_id, num_rows))
                episode_id += 1
            writer.close()
    return tmp_path


@pytest.mark.parametrize("num_frames", [1, 2, 16, 40])
def test_every_window_on_disk_equals_the_one_in_memory(folder, num_frames):
    recording = Recording.open(folder)
    memory = EpisodeWindows(recording.load())
    disk = EpisodeWindows(recording.load(in_memory=False))
    starts = disk.valid_starts(num_frames)
    np.testing.assert_array_equal(starts, memory.valid_starts(num_frames))
    starts = np.random.default_rng(0).permutation(starts)
    read, kept = disk.clip(starts, num_frames), memory.clip(starts, num_frames)
    for key in ("frames", "actions", "rewards", "terminations"):
        np.testing.assert_array_equal(getattr(read, key), getattr(kept, key))
        assert getattr(read, key).dtype == getattr(kept, key).dtype
    rows = starts[:, None] + np.arange(num_frames)
    episodes = memory.rows.episode_ids[rows]
    assert (episodes == episodes[:, :1]).all()


def test_one_seed_draws_the_same_windows_from_disk_and_memory(folder):
    recording = Recording.open(folder)
    drawn = [
        EpisodeWindows(recording.load(in_memory=in_memory)).sample(
            20, 5, np.random.default_rng(1), around=np.array([20, 80])
        )
        for in_memory in (True, False)
    ]
    np.testing.assert_array_equal(drawn[0].frames, drawn[1].frames)
    np.testing.assert_array_equal(drawn[0].actions, drawn[1].actions)


@pytest.mark.parametrize(
    "index",
    [7, -1, slice(None), slice(3, 100, 9), slice(5, 5), ..., np.array([[150, 0], [0, 59]])],
    ids=str,
)
def test_frames_on_disk_are_indexed_like_an_array(folder, index):
    recording = Recording.open(folder)
    frames, stored = recording.load().frames, recording.load(in_memory=False).frames
    assert len(stored) == len(frames) and stored.shape == frames.shape
    np.testing.assert_array_equal(stored[index], frames[index])
    with pytest.raises(IndexError, match="out of bounds"):
        stored[np.array([len(frames)])]


def test_frames_on_disk_survive_pickling(folder):
    stored = Recording.open(folder).load(in_memory=False).frames
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stored))[30:90], stored[30:90])


def _rewrite_frames(path, key="frames", transform=lambda frames: frames, **settings):
    with h5py.File(path, "r+") as file:
        frames = transform(file["frames"][:])
        del file["frames"]
        file.create_dataset(key, data=frames, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunks": (16, 8, 6, 3)},
        {"chunks": (7, 8, 6, 3), "compression": "gzip"},
        {"chunks": (16, 4, 6, 3), "compression": "gzip"},
        {"chunks": (16, 8, 6, 3), "compression": "gzip", "shuffle": True},
        {"chunks": (16, 8, 6, 3), "compression": "lzf"},
    ],
    ids=str,
)
def test_frames_that_others_chunked_or_compressed_are_read_too(folder, settings):
    _rewrite_frames(folder / "shard-00001.h5", **settings)
    recording = Recording.open(folder)
    rows = recording.load(in_memory=False)
    np.testing.assert_array_equal(rows.frames[50:90], recording.load().frames[50:90])


def test_chunks_that_were_never_written_or_are_not_compressed_are_read_too(folder):
    path = folder / "shard-00002.h5"
    with h5py.File(path, "r+") as file:
        frames = file["frames"][:]
        del file["frames"]
        settings = {"dtype": "u1", "chunks": (16, 8, 6, 3), "compression": "gzip"}
        dataset = file.create_dataset("frames", frames.shape, **settings)
        dataset[:16] = frames[:16]
        dataset.id.write_direct_chunk((16, 0, 0, 0), frames[16:32].tobytes(), filter_mask=1)
    recording = Recording.open(path)
    stored = recording.load(in_memory=False).frames
    np.testing.assert_array_equal(stored[:32], frames[:32])
    assert not stored[32:].any()


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize("is_channels_first", [False, True])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_foreign_video_is_read_too(tmp_path, is_float, is_channels_first, num_channels):
    shape = (40, 8, 6, num_channels)
    values = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    expected = np.broadcast_to(values, (40, 8, 6, 3))
    values = np.moveaxis(values, -1, 1) if is_channels_first else values
    with h5py.File(tmp_path / "video.h5", "w") as file:
        stored = (values / 255).astype(np.float32) if is_float else values
        settings = {"chunks": (16, *values.shape[1:]), "compression": "gzip"}
        file.create_dataset("images", data=stored, **settings)
    rows = Recording.open(tmp_path / "video.h5").load(in_memory=False)
    assert rows.actions is None
    clip = EpisodeWindows(rows).clip(np.array([0, 13, 24]), 16)
    np.testing.assert_array_equal(
        clip.frames, expected[np.array([0, 13, 24])[:, None] + np.arange(16)]
    )


def test_a_shard_that_was_cut_off_or_removed_is_named(folder):
    rows = Recording.open(folder).load(in_memory=False)
    path = folder / "shard-00002.h5"
    content = path.read_bytes()
    damage = r"shard-00002.h5: the frames of rows 0 to 15 cannot be read: .*genie-gym data verify"
    path.write_bytes(content[:4000])
    with pytest.raises(DataError, match=damage):
        rows.frames[80]
    path.unlink()
    with pytest.raises(DataError, match=damage):
        rows.frames[80]
    np.testing.assert_array_equal(rows.frames[:1], make_episode(0, 40).frames[:1])


def test_a_flipped_bit_in_compressed_frames_is_noticed(folder):
    path = folder / "shard-00001.h5"
    stored = Recording.open(folder).load(in_memory=False).frames
    [piece] = [piece for piece in stored._pieces if piece.shard == 1]
    offset, size = piece.place
    content = bytearray(path.read_bytes())
    content[offset + size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00001.h5: the frames of rows 0 to 15 cannot be"):
        stored[60]


def _store(path, content):
    """Put the bytes where the first chunk of a file's frames lies compressed."""
    with h5py.File(path, "r+") as file:
        file["frames"].id.write_direct_chunk((0, 0, 0, 0), content)


@pytest.mark.parametrize(
    "content",
    [
        zlib.compress(bytes(2**26)),
        zlib.compress(bytes(16 * 8 * 6 * 3 + 1)),
        zlib.compress(bytes(16 * 8 * 6 * 3 - 1)),
        zlib.compress(bytes(16 * 8 * 6 * 3))[:-1],
    ],
    ids=["bomb", "a byte more", "a byte less", "checksum cut off"],
)
def test_a_chunk_of_another_size_is_noticed_and_never_inflated_whole(folder, content):
    path = folder / "shard-00001.h5"
    _store(path, content)
    stored = Recording.open(path).load(in_memory=False).frames
    tracemalloc.start()
    with pytest.raises(DataError, match=r"rows 0 to 15 .*: they are no whole stream of 2304 bytes"):
        stored[3]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_wrong_checksum_is_noticed(folder):
    content = bytearray(zlib.compress(bytes(16 * 8 * 6 * 3)))
    content[-1] ^= 1
    _store(folder / "shard-00001.h5", bytes(content))
    stored = Recording.open(folder / "shard-00001.h5").load(in_memory=False).frames
    with pytest.raises(DataError, match=r"rows 0 to 15 .*checksum"):
        stored[3]


def test_opening_takes_time_in_proportion_to_the_length(tmp_path):
    num_rows = 2**18
    with h5py.File(tmp_path / "long.h5", "w") as file:
        settings = {"chunks": (16, 1, 1, 3), "maxshape": (None, 1, 1, 3), "compression": "gzip"}
        file.create_dataset("frames", data=np.zeros((num_rows, 1, 1, 3), np.uint8), **settings)
    recording = Recording.open(tmp_path / "long.h5")
    start = time.perf_counter()
    stored = recording.load(in_memory=False).frames
    # 0.2 s; it was 9 s when each chunk was asked for.
    assert time.perf_counter() - start < 3
    assert all(piece.place for piece in stored._pieces)


def test_a_window_of_tokens_needs_no_frames_on_disk(folder):
    recording = Recording.open(folder)
    rows = recording.load(in_memory=False)
    for path in folder.iterdir():
        path.unlink()
    tokens = np.arange(len(rows.frames) * 5).reshape(-1, 5)
    clip = EpisodeWindows(replace(rows, frames=tokens)).clip(np.array([3]), 2)
    assert clip.frames[0, :, 0].tolist() == [15, 20]
