"""Checking that HDF5 files are laid out as format version 1 says, before any row is read."""

import fnmatch
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from genie_gym.data.manifest import FORMAT_VERSION, read_manifest
from genie_gym.data.shards import ROW_KEYS
from genie_gym.errors import DataError, GenieError

SHARD_PATTERN = "shard-*.h5"
VIDEO_KEYS = ("frames", "images")
DTYPES = {
    "frames": ("uint8",),
    "actions": ("int16", "float32"),
    "rewards": ("float32",),
    "terminations": ("bool",),
    "truncations": ("bool",),
    "episode_ids": ("int64",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """What a checked file holds."""

    num_rows: int
    """Number of frames."""
    frame_shape: tuple[int, int, int]
    """Height, width and 3 channels of a frame once it is read."""
    frames_key: str
    """Name of the dataset that holds the frames."""
    keys: tuple[str, ...]
    """Those of the format's keys that the file holds."""
    is_video: bool
    """Whether there are frames without actions."""
    is_channels_first: bool
    """Whether the file's frames are (T, C, H, W)."""
    action_shape: tuple[int, ...]
    """() for Discrete, (A,) for Box."""
    episode_ids: Int64[np.ndarray, " rows"]
    """Episode of each row; all 0 in a video that does not say."""
    episode_attributes: dict[str, dict[str, Any]]
    """What the file says of each episode, by its number as text."""
    attributes: dict[str, Any]
    """HDF5 attributes of the file."""

    @property
    def kind(self) -> str:
        """What all shards of one recording must have in common, as text."""
        if self.is_video:
            return f"video frames {self.frame_shape}"
        lacking = [key for key in ROW_KEYS if key not in self.keys]
        without = f", without {lacking}" if lacking else ""
        return f"frames {self.frame_shape} with actions {self.action_shape}{without}"


def list_shards(path: Path) -> list[Path]:
    """Return the files of a recording in order: itself, or the closed shards of a folder.

    Raises:
        DataError: there is nothing there, or a shard of the manifest is missing.
    """
    # A link that leads nowhere is there: opening it says what is wrong with it.
    if not os.path.lexists(path):
        raise DataError(
            f"recording {path} does not exist. Record one: genie-gym collect ALE/Pong-v5 "
            f"--out {path} --steps 10000"
        )
    if not path.is_dir():
        return [path]
    manifest = read_manifest(path)
    if manifest is None:
        shards = find_shards(path)
    else:
        shards = [path / shard.file for shard in manifest.shards]
    if not shards:
        raise DataError(f"{path} holds no closed shard (shard-*.h5). Record one, or --resume it")
    for shard in shards:
        if not os.path.lexists(shard):
            raise DataError(
                f"{shard} is missing, but the manifest lists it. Restore it, or go on without it: "
                f"genie-gym data repair {path}, then collect --resume"
            )
    return shards


def find_shards(folder: Path) -> list[Path]:
    """Return all closed shards that lie in a folder, by number, whatever the manifest lists.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. Check its rights") from error
    return [folder / name for name in sorted(fnmatch.filter(names, SHARD_PATTERN), key=_order)]


def _order(name: str) -> tuple[bool, int, str]:
    """Rank shards by number, for from 100000 on it is longer; other names come last."""
    number = re.fullmatch(r"shard-(\d+)\.h5", name)
    return (number is None, int(number[1]) if number else 0, name)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read.

    Raises:
        DataError: the file is no HDF5 file, or is truncated; also when that shows later.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Check where its links lead, and its rights"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except GenieError:
        raise
    # What h5py raises on a damaged file depends on where the damage lies.
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, MemoryError) as error:
        raise DataError(
            f"{path} cannot be read as HDF5: {' '.join(str(error).split())}. It is truncated or "
            "no HDF5 file: copy it again, or record it again"
        ) from error


def read_layout(path: Path, may_lack: Collection[str] = ()) -> Layout:
    """Check one file and return what it holds.

    Args:
        path: the file.
        may_lack: keys of a recording that need not be there.

    Raises:
        DataError: the file is not laid out as the format says; the text names file and key.
    """
    with opened(path) as file:
        problems = find_problems(file, may_lack)
        if problems:
            raise DataError(f"{path}: {problems[0]}")
        attributes = _plain_attributes(file)
        if key := _video_key(file):
            return _video_layout(file, key, attributes)
        return Layout(
            num_rows=len(file["frames"]),
            frame_shape=file["frames"].shape[1:],
            frames_key="frames",
            keys=tuple(key for key in ROW_KEYS if key in file),
            is_video=False,
            is_channels_first=False,
            action_shape=file["actions"].shape[1:],
            episode_ids=file["episode_ids"][:],
            episode_attributes=_episode_attributes(file),
            attributes=attributes,
        )


def _episode_attributes(file: h5py.File) -> dict[str, dict[str, Any]]:
    return {key: json.loads(value) for key, value in file["episode_ids"].attrs.items()}


def find_problems(file: h5py.File, may_lack: Collection[str] = ()) -> list[str]:
    """Return every way in which a file is not laid out as the format says, as sentences."""
    problems = list(_link_problems(file))
    if problems:
        return problems
    attributes = _plain_attributes(file)
    if key := _video_key(file):
        if "format_version" in attributes:
            problems = list(_attribute_problems(attributes))
        problems += _video_problems(file, key)
    else:
        problems = [*_attribute_problems(attributes), *_key_problems(file, may_lack)]
    if problems or "episode_ids" not in file:
        return problems
    return list(_episode_problems(file["episode_ids"]))


def _plain_attributes(file: h5py.File) -> dict[str, Any]:
    return {
        key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for key, value in file.attrs.items()
    }


def _link_problems(file: h5py.File) -> Iterator[str]:
    for key in file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            yield (
                f"{key!r} is a link to elsewhere, and links are not followed. Copy the rows into "
                "the file"
            )
        elif not isinstance(file[key], h5py.Dataset):
            yield f"{key!r} is a group. Allowed: datasets {list(ROW_KEYS)}"
        elif file[key].external or file[key].is_virtual:
            yield (
                f"{key!r} is stored in another file, which is not followed. Copy the rows into "
                "the file"
            )


def _attribute_problems(attributes: dict[str, Any]) -> Iterator[str]:
    version = attributes.get("format_version")
    if version is None:
        yield (
            "has no attribute 'format_version', so it is no recording of genie-gym. A foreign "
            f"file is read as video if it holds one of {list(VIDEO_KEYS)}, and beside it nothing "
            "but 'episode_ids'"
        )
    elif version != FORMAT_VERSION:
        yield (
            f"has format version {version!r}; this genie_gym reads {FORMAT_VERSION}. Upgrade "
            "genie_gym or record again"
        )
    meanings = attributes.get("action_meanings", [])
    if not isinstance(meanings, list) or not all(isinstance(name, str) for name in meanings):
        yield f"attribute 'action_meanings' must be a list of names, got {meanings!r}"


def _key_problems(file: h5py.File, may_lack: Collection[str]) -> Iterator[str]:
    for key in ROW_KEYS:
        if key not in file and key not in may_lack:
            yield f"has no dataset {key!r}. Needed: {list(ROW_KEYS)}"
    for key in file:
        if key not in ROW_KEYS:
            yield f"has an unknown key {key!r}. Allowed: {list(ROW_KEYS)}. Delete it"

    shapes: dict[str, tuple[int, ...]] = {
        key: file[key].shape or () for key in ROW_KEYS if key in file
    }
    for key, shape in shapes.items():
        dtype = str(file[key].dtype)
        if dtype not in DTYPES[key]:
            yield f"{key} must be {' or '.join(DTYPES[key])}, got {dtype}"
        num_axes = {"frames": 4, "actions": 1 if dtype == "int16" else 2}.get(key, 1)
        if len(shape) != num_axes or (key == "frames" and (shape[-1] != 3 or 0 in shape[1:])):
            expected = "(rows, H, W, 3)" if key == "frames" else f"{num_axes} axes, rows first"
            yield f"{key} must be {expected}, got shape {shape}"
        elif not shape[0] or shape[0] != (shapes.get("frames") or shape)[0]:
            yield (
                f"{key} has {shape[0]} rows, and frames {(shapes.get('frames') or shape)[0]}. "
                "Every key has one row per frame, and at least one. Record it again"
            )


def _episode_problems(dataset: h5py.Dataset) -> Iterator[str]:
    episode_ids = dataset[:]
    if 1 + np.count_nonzero(np.diff(episode_ids)) != len(np.unique(episode_ids)):
        yield (
            "rows of one episode must be neighbours, but an episode_ids value comes back after "
            "another. Sort the rows by episode"
        )
    for key, value in dataset.attrs.items():
        try:
            about = json.loads(value)
        except (TypeError, ValueError):
            about = None
        if not isinstance(about, dict):
            yield f"attribute {key!r} of episode_ids must be a JSON object, got {value!r:.60}"


def _video_key(file: h5py.File) -> str | None:
    """Return the name of the frames in a video, which holds nothing else but `episode_ids`."""
    keys = [key for key in file if key != "episode_ids"]
    return keys[0] if len(keys) == 1 and keys[0] in VIDEO_KEYS else None


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis of 1 or 3 channels in a video, last or second; None if there is none."""
    if len(shape) != 4 or 0 in shape:
        return None
    return next((axis for axis in (3, 1) if shape[axis] in (1, 3)), None)


def _video_problems(file: h5py.File, key: str) -> Iterator[str]:
    dtype, shape = file[key].dtype, file[key].shape
    if _channel_axis(shape or ()) is None or (dtype != np.uint8 and dtype.kind != "f"):
        yield (
            f"{key} must be uint8 or float, (T, H, W, C) or (T, C, H, W) with 1 or 3 channels, "
            f"got {dtype} {shape}"
        )
    if "episode_ids" in file:
        ids = file["episode_ids"]
        if str(ids.dtype) not in DTYPES["episode_ids"] or ids.shape != (shape or ())[:1]:
            yield (
                f"episode_ids must be int64 with one row per frame, {(shape or ())[:1]}, got "
                f"{ids.dtype} {ids.shape}"
            )


def _video_layout(file: h5py.File, key: str, attributes: dict[str, Any]) -> Layout:
    shape = file[key].shape
    is_channels_first = _channel_axis(shape) == 1
    has_ids = "episode_ids" in file
    height, width = shape[2:] if is_channels_first else shape[1:3]
    return Layout(
        num_rows=shape[0],
        frame_shape=(height, width, 3),
        frames_key=key,
        keys=(),
        is_video=True,
        is_channels_first=is_channels_first,
        action_shape=(),
        episode_ids=file["episode_ids"][:] if has_ids else np.zeros(shape[0], np.int64),
        episode_attributes=_episode_attributes(file) if has_ids else {},
        attributes=attributes,
    )
