"""The table of contents of a recording folder, and files that are written whole or not at all."""

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_gym.config import from_dict
from genie_gym.data.reward_classes import count_signs, is_enough
from genie_gym.errors import DataError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
