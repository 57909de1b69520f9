"""Writing recordings, HDF5 format version 1: episodes in, closed shards out."""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib
from jaxtyping import Bool, Float32, Shaped, UInt8

from genie_gym.data.manifest import FORMAT_VERSION, ShardEntry, shard_name, write_whole
from genie_gym.data.reward_classes import (
    listed_classes,
    reward_classes,
)

FRAMES_PER_CHUNK = 16
ROW_KEYS = ("frames", "actions", "rewards", "terminations", "truncations", "episode_ids")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeRows:
    """One episode as it is written: L actions and the L + 1 frames around them.

    Row t holds the frame seen, the action taken on seeing it, and what that action earned and
    ended. The last row's action is -1 (Discrete) or NaN (Box), its reward 0.
    """

    episode_id: int
    """Number of the episode in its recording, from 0."""
    frames: UInt8[np.ndarray, "rows H W C"]
    """What was seen, in [0, 255]."""
    actions: Shaped[np.ndarray, "rows ..."]
    """int16 indices (Discrete) or float32 vectors (Box)."""
    rewards: Float32[np.ndarray, " rows"]
    """Unclipped reward of each action."""
    terminations: Bool[np.ndarray, " rows"]
    """Whether the action ended the game."""
    truncations: Bool[np.ndarray, " rows"]
    """Whether the recording stopped after the action although the game went on."""
    policy: str
    """Description of the policy that played."""
    policy_seed: int
    """Seed of the policy's random generator."""
    reset_seed: int
    """Seed given to the environment's reset."""

    @property
    def num_actions(self) -> int:
        """Number of actions taken: one less than there are rows."""
        return len(self.actions) - 1


class ShardWriter:
    """Collects the episodes of one shard in memory, compressed, and writes it when it is whole.

    HDF5 itself crashes where a disk is full, so it never writes to one: `close` does, in one go.

    Args:
        folder: folder of the recording; must exist.
        index: number of the shard, from 0.
        attributes: HDF5 attributes of the shard beside the format's own; values are plain.
    """

    def __init__(self, folder: str | Path, index: int, attributes: Mapping[str, Any]) -> None:
        self.path = Path(folder) / shard_name(index)
        self._file = h5py.File(self.path.name, "w", driver="core", backing_store=False)
        self._file.attrs.update({"format_version": FORMAT_VERSION, **_versions(), **attributes})
        self._frames = _ChunkWriter()
        self._reward_classes: Counter[str] = Counter()
        self._num_rows = 0
        self._num_episodes = 0

    @property
    def num_rows(self) -> int:
        """Number of frames written so far."""
        return self._num_rows

    @property
    def num_actions(self) -> int:
        """Number of actions written so far."""
        return self._num_rows - self._num_episodes

    def __enter__(self) -> "ShardWriter":
        """Return the writer; leaving it without `close` discards the shard."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Free the memory of the shard."""
        self._file.close()

    def append(self, episode: EpisodeRows) -> None:
        """Add one whole episode."""
        rows = {
            "frames": episode.frames,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminations": episode.terminations,
            "truncations": episode.truncations,
        }
        about = {key: getattr(episode, key) for key in ("policy", "policy_seed", "reset_seed")}
        self.append_rows(episode.episode_id, rows, about)
        self._reward_classes.update(reward_classes(episode.rewards[:-1]))

    def append_rows(
        self,
        episode_id: int,
        rows: Mapping[str, Shaped[np.ndarray, "rows ..."]],
        about: Mapping[str, Any],
    ) -> None:
        """Add one whole episode of which only some keys are known: a video has `frames` alone.

        Args:
            episode_id: number of the episode in its recording, from 0.
            rows: values by key; every episode of a shard has the same keys.
            about: what the file says of the episode; values are plain.
        """
        num_rows = len(rows["frames"])
        rows = {**rows, "episode_ids": np.full(num_rows, episode_id, np.int64)}
        assert {len(values) for values in rows.values()} == {num_rows}
        for key, values in rows.items():
            if key not in self._file:
                _create_dataset(self._file, key, values)
            dataset = self._file[key]
            dataset.resize(self._num_rows + num_rows, axis=0)
            if key == "frames":
                self._frames.append(dataset, values)
            else:
                dataset[self._num_rows :] = values

        # One attribute per episode: a single attribute holds 64 KiB at most.
        self._file["episode_ids"].attrs[str(episode_id)] = json.dumps(dict(about))
        self._num_rows += num_rows
        self._num_episodes += 1

    def close(self) -> ShardEntry:
        """Write the shard to the disk, and return its manifest entry.

        Raises:
            DataError: the disk is full; nothing is left of the shard.
        """
        self._frames.write_rest(self._file["frames"])
        self._file.flush()
        image = self._file.id.get_file_image()
        write_whole(self.path, image)
        return ShardEntry(
            file=self.path.name,
            rows=self._num_rows,
            episodes=self._num_episodes,
            sha256=hashlib.sha256(image).hexdigest(),
            reward_classes=listed_classes(self._reward_classes),
        )


class _ChunkWriter:
    """Compresses frames chunk by chunk, with ISA-L: as small as zlib's level 3, 6 times as fast.

    HDF5's own filter would take zlib. What it reads is gzip either way.
    """

    def __init__(self) -> None:
        self._num_rows = 0
        self._chunk: UInt8[np.ndarray, "rows H W C"] | None = None

    def append(self, dataset: h5py.Dataset, frames: UInt8[np.ndarray, "rows H W C"]) -> None:
        """Write all chunks that are full now; the frames behind them wait for the next ones."""
        if self._chunk is None:
            self._chunk = np.zeros((FRAMES_PER_CHUNK, *frames.shape[1:]), np.uint8)
        while len(frames):
            place = self._num_rows % FRAMES_PER_CHUNK
            part, frames = np.split(frames, [FRAMES_PER_CHUNK - place])
            self._chunk[place : place + len(part)] = part
            self._num_rows += len(part)
            if self._num_rows % FRAMES_PER_CHUNK == 0:
                self._write(dataset)

    def write_rest(self, dataset: h5py.Dataset) -> None:
        """Write the last chunk; HDF5 keeps whole ones and shows only the rows there are."""
        if place := self._num_rows % FRAMES_PER_CHUNK:
            assert self._chunk is not None
            self._chunk[place:] = 0
            self._write(dataset)

    def _write(self, dataset: h5py.Dataset) -> None:
        assert self._chunk is not None
        start = (self._num_rows - 1) // FRAMES_PER_CHUNK * FRAMES_PER_CHUNK
        data = isal_zlib.compress(self._chunk.data, level=1)
        dataset.id.write_direct_chunk((start, 0, 0, 0), data)


def _create_dataset(file: h5py.File, key: str, values: Shaped[np.ndarray, "rows ..."]) -> None:
    is_frames = key == "frames"
    file.create_dataset(
        key,
        shape=(0, *values.shape[1:]),
        maxshape=(None, *values.shape[1:]),
        dtype=values.dtype,
        chunks=(FRAMES_PER_CHUNK if is_frames else 4096, *values.shape[1:]),
        compression="gzip",
        compression_opts=1,
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("ale-py", "genie-gym", "gymnasium"):
        try:
            versions[f"{package.replace('-', '_')}_version"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout, not installed
            versions[f"{package.replace('-', '_')}_version"] = "unknown"
    return versions
