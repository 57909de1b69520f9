"""Writing recordings, HDF5 format version 1: closed shards and the manifest that lists them."""

import errno
import hashlib
import importlib.metadata
import json
import os
import re
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

from genie_gym.config import from_dict
from genie_gym.data.reward_classes import (
    count_signs,
    is_enough,
    listed_classes,
    reward_classes,
)
from genie_gym.errors import DataError

FORMAT_VERSION = 1
FRAMES_PER_CHUNK = 16
MANIFEST_NAME = "manifest.json"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """What the manifest knows of one closed shard."""

    file: str
    """File name inside the recording's folder."""
    rows: int
    """Number of frames."""
    episodes: int
    """Number of episodes; no episode is in two shards."""
    sha256: str
    """Hash of the whole file."""
    reward_classes: dict[str, int]
    """Number of actions that earned each reward: {"-1": 7, "0": 9990, "1": 3}.

    Of more than 100 rewards it holds the signs alone: {"-": 7, "0": 9990, "+": 3}.
    """
    is_interrupted: bool = False
    """Whether Ctrl-C closed it before its time; resuming records it again from its beginning."""

    def __post_init__(self) -> None:
        """Refuse names that would lead out of the folder."""
        if self.index < 0:
            raise DataError(f"a shard is named like shard-00000.h5, got {self.file!r}")

    @property
    def index(self) -> int:
        """Number of the shard in its recording, from 0."""
        return shard_index(self.file)

    @property
    def num_actions(self) -> int:
        """Number of actions taken."""
        return self.rows - self.episodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Table of contents of a recording folder."""

    settings: dict[str, Any]
    """Everything the rows depend on, as the recorder was given it."""
    is_finished: bool
    """Whether all the actions asked for are in the shards."""
    shards: tuple[ShardEntry, ...]
    """Closed shards in order; `genie-gym data repair` leaves gaps, and resuming fills them."""

    def __post_init__(self) -> None:
        """Refuse shards that are listed twice or out of order."""
        indices = [shard.index for shard in self.shards]
        if indices != sorted(set(indices)):
            raise DataError(f"shards must be listed in order and once each, got {indices}")

    @property
    def num_actions(self) -> int:
        """Number of actions in all the closed shards."""
        return sum(shard.num_actions for shard in self.shards)

    @property
    def num_episodes(self) -> int:
        """Number of episodes in all the closed shards."""
        return sum(shard.episodes for shard in self.shards)

    @property
    def reward_signs(self) -> tuple[int, int]:
        """Number of positive and of negative rewards in all the closed shards."""
        signs = [count_signs(shard.reward_classes) for shard in self.shards]
        return sum(positive for positive, _ in signs), sum(negative for _, negative in signs)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to record: no gap, and all steps taken or the quota met."""
        entries = enumerate(self.shards)
        if any(shard.index != index or shard.is_interrupted for index, shard in entries):
            return False
        return is_enough(self.num_actions, *self.reward_signs, self.settings)


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


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write `manifest.json` in one step: readers see the old one or the new one, whole.

    Raises:
        DataError: the disk is full; the old one is as it was.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "settings": manifest.settings,
        "is_finished": manifest.is_finished,
        "shards": [
            {key: getattr(shard, key) for key in ShardEntry.__dataclass_fields__}
            for shard in manifest.shards
        ],
    }
    write_whole(Path(folder) / MANIFEST_NAME, (json.dumps(content, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a kill or a crash leaves the old one, or the new one on the disk.

    Raises:
        DataError: the disk is full; the old one is as it was.
    """
    temporary_path = path.with_name(f".{path.name}.part")
    try:
        temporary_path.write_bytes(content)
        sync_file(temporary_path)
        os.replace(temporary_path, path)
        sync_file(path.parent)
    except OSError as error:
        temporary_path.unlink(missing_ok=True)
        if error.errno not in FULL_DISK:
            raise
        raise DataError(
            f"{path} cannot be written: {error.strerror}, {len(content)} bytes are needed. All "
            "closed shards are whole: free some space and go on with --resume"
        ) from error


def read_manifest(folder: str | Path) -> Manifest | None:
    """Return the manifest of a recording folder; None if the folder has none.

    Raises:
        DataError: the file is not a manifest of format version 1.
    """
    path = Path(folder) / MANIFEST_NAME
    # A link that leads nowhere is no missing manifest: without one, nothing is compared.
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(path.read_text())
        version = content.pop("format_version")
        if version == FORMAT_VERSION:
            return from_dict(Manifest, content, "manifest")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Check where its links lead, and its rights"
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path} is not a manifest of format version {FORMAT_VERSION}: {error!r}. "
            "Delete it to read the shards without it, or record again"
        ) from error
    raise DataError(
        f"{path} has format version {version!r}; this genie_gym reads {FORMAT_VERSION}. "
        "Upgrade genie_gym or record again"
    )


def shard_name(index: int) -> str:
    """Return the file name of a closed shard.

    Example:
        >>> shard_name(7)
        'shard-00007.h5'
    """
    return f"shard-{index:05d}.h5"


def shard_index(name: str) -> int:
    """Return the number in a shard's file name; -1 for any other name.

    Example:
        >>> shard_index("shard-00007.h5"), shard_index("../shard-00007.h5")
        (7, -1)
    """
    match = re.fullmatch(r"shard-([0-9]{5,9})\.h5", name)
    return int(match[1]) if match else -1


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: str | Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
