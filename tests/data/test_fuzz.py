"""Thousands of damaged copies: each is refused or named, with typed errors, in bounded time."""

import multiprocessing
import shutil

import h5py
import numpy as np
import pytest

from genie_gym.data.hdf5 import Recording
from genie_gym.data.verify import find_faults
from genie_gym.errors import DataError


def flip_bits(content, rng):
    damaged = bytearray(content)
    for place in rng.choice(len(damaged), rng.integers(1, 4), replace=False):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def truncate(content, rng):
    return content[: rng.integers(len(content))]


def overwrite(content, rng):
    start = rng.integers(len(content))
    length = rng.integers(1, 64)
    damaged = content[:start] + rng.bytes(length) + content[start + length :]
    return damaged if damaged != content else content[:-1]


def spoil_rows(file, rng):
    """Break one invariant in a random row of an episode, rows 0-9 or 10-19."""
    row = 10 * rng.integers(2) + rng.integers(8)
    key, values = [
        ("actions", [-2, -1, 3, 32767]),
        ("rewards", [np.nan, np.inf, -np.inf]),
        ("terminations", [True]),
        ("truncations", [True]),
        ("episode_ids", [-1, 7, 2**62]),
    ][rng.integers(5)]
    file[key][row] = values[rng.integers(len(values))]


def spoil_dataset(file, rng):
    """Change the dtype or the shape of a dataset, or drop it."""
    key = sorted(file)[rng.integers(len(file))]
    values = file[key][:]
    del file[key]
    change = rng.integers(5)
    if change == 0:
        file[key] = values.astype(np.float64)
    elif change == 1:
        file[key] = values[:-1]
    elif change == 2:
        file[key] = values[None]
    elif change == 3:
        file[key] = h5py.Empty(values.dtype)


def spoil_attribute(file, rng):
    keys = ["format_version", "action_meanings", "frame_skip", "seed", "policy", "sticky"]
    key = keys[rng.integers(len(keys))]
    del file.attrs[key]
    change = rng.integers(3)
    if change == 1:
        file.attrs[key] = h5py.Empty("f4")
    elif change == 2:
        file.attrs[key] = -1


def fuzz(folder, num_copies):
    shard = folder / "shard-00001.h5"
    content = shard.read_bytes()
    changes = [flip_bits, truncate, overwrite, spoil_rows, spoil_dataset, spoil_attribute]
    for seed in range(num_copies):
        rng = np.random.default_rng(seed)
        change = changes[seed % len(changes)]
        if change in changes[:3]:
            shard.write_bytes(change(content, rng))
            assert find_faults(folder), (seed, change)
        else:
            shard.write_bytes(content)
            with h5py.File(shard, "r+") as file:
                change(file, rng)
            # One file has no hash: the invariants alone must catch it.
            assert find_faults(shard), (seed, change)
            # Bytes changed at random can crash HDF5 itself: those files are not opened.
            try:
                Recording.open(shard).load()
            except DataError:
                pass


@pytest.mark.parametrize("num_copies", [60, pytest.param(3000, marks=pytest.mark.slow)])
def test_no_damage_crashes_hangs_or_passes(whole, num_copies):
    # A process of its own: a crash or a hang inside of HDF5 must fail this test alone.
    process = multiprocessing.get_context("fork").Process(target=fuzz, args=(whole, num_copies))
    process.start()
    process.join(timeout=30 + num_copies)
    process.kill()
    process.join()
    assert process.exitcode == 0


def test_a_damaged_manifest_is_refused_or_named(whole, tmp_path):
    content = (whole / "manifest.json").read_bytes()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(whole / "shard-00000.h5", copy)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        change = [flip_bits, truncate, overwrite][seed % 3]
        (copy / "manifest.json").write_bytes(change(content, rng))
        assert all(str(fault) for fault in find_faults(copy))
