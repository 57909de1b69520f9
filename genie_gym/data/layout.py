"""Checking that HDF5 files are laid out as format version 1 says, before any row is read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int64

from genie_gym.data.shards import FORMAT_VERSION, ROW_KEYS, read_manifest
from genie_gym.errors import DataError

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
        return f"frames {self.frame_shape} with actions {self.action_shape}"


def list_shards(path: Path) -> list[Path]:
    """Return the files of a recording in order: itself, or the closed shards of a folder.

    Raises:
        DataError: there is nothing there, or a shard of the manifest is missing.
    """
    if not path.exists():
        raise DataError(
            f"recording {path} does not exist. Record one: genie-gym collect ALE/Pong-v5 "
            f"--out {path} --steps 10000"
        )
    if path.is_file():
        return [path]
    manifest = read_manifest(path)
    if manifest is None:
        shards = sorted(path.glob("shard-*.h5"))
    else:
        shards = [path / shard.file for shard in manifest.shards]
    if not shards:
        raise DataError(f"{path} holds no closed shard (shard-*.h5). Record one, or --resume it")
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{shard} is missing, but the manifest lists it. Restore it")
    return shards


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read.

    Raises:
        DataError: the file is no HDF5 file, or is truncated; also when that shows later.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path} cannot be read as HDF5: {' '.join(str(error).split())}. It is truncated or "
            "no HDF5 file: copy it again, or record it again"
        ) from error


def read_layout(path: Path) -> Layout:
    """Check one file and return what it holds.

    Raises:
        DataError: the file is not laid out as the format says; the text names file and key.
    """
    with opened(path) as file:
        _check_links(file, path)
        attributes = {
            key: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
            for key, value in file.attrs.items()
        }
        frames_keys = [key for key in file if key != "episode_ids"]
        if len(frames_keys) == 1 and frames_keys[0] in VIDEO_KEYS:
            return _video_layout(file, path, frames_keys[0], attributes)
        _check_version(attributes, path)
        _check_keys(file, path)
        episode_ids, episode_attributes = _read_episodes(file, path)
        return Layout(
            num_rows=len(episode_ids),
            frame_shape=file["frames"].shape[1:],
            frames_key="frames",
            is_video=False,
            is_channels_first=False,
            action_shape=file["actions"].shape[1:],
            episode_ids=episode_ids,
            episode_attributes=episode_attributes,
            attributes=attributes,
        )


def _read_episodes(
    file: h5py.File, path: Path
) -> tuple[Int64[np.ndarray, " rows"], dict[str, dict[str, Any]]]:
    """Return the episode of each row, and what the file says of each episode."""
    episode_ids = file["episode_ids"][:]
    if 1 + np.count_nonzero(np.diff(episode_ids)) != len(np.unique(episode_ids)):
        raise DataError(
            f"{path}: rows of one episode must be neighbours, but an episode_ids value comes "
            "back after another. Sort the rows by episode"
        )
    about = file["episode_ids"].attrs.items()
    return episode_ids, {key: json.loads(value) for key, value in about}


def _check_links(file: h5py.File, path: Path) -> None:
    for key in file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            raise DataError(
                f"{path}: {key!r} is a link to elsewhere, and links are not followed. Copy the "
                "rows into the file"
            )
        if not isinstance(file[key], h5py.Dataset):
            raise DataError(f"{path}: {key!r} is a group. Allowed: datasets {list(ROW_KEYS)}")
        if file[key].external or file[key].is_virtual:
            raise DataError(
                f"{path}: {key!r} is stored in another file, which is not followed. Copy the rows "
                "into the file"
            )


def _check_version(attributes: dict[str, Any], path: Path) -> None:
    version = attributes.get("format_version")
    if version is None:
        raise DataError(
            f"{path} has no attribute 'format_version', so it is no recording of genie-gym. A "
            f"foreign file is read as video if it holds one of {list(VIDEO_KEYS)}, and beside it "
            "nothing but 'episode_ids'"
        )
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version!r}; this genie_gym reads {FORMAT_VERSION}. "
            "Upgrade genie_gym or record again"
        )


def _check_keys(file: h5py.File, path: Path) -> None:
    for key in ROW_KEYS:
        if key not in file:
            raise DataError(f"{path} has no dataset {key!r}. Needed: {list(ROW_KEYS)}")
    for key in file:
        if key not in ROW_KEYS:
            raise DataError(
                f"{path} has an unknown key {key!r}. Allowed: {list(ROW_KEYS)}. Delete it"
            )

    for key, dtypes in DTYPES.items():
        dtype, shape = str(file[key].dtype), file[key].shape
        if dtype not in dtypes:
            raise DataError(f"{path}: {key} must be {' or '.join(dtypes)}, got {dtype}")
        num_axes = {"frames": 4, "actions": 1 if dtype == "int16" else 2}.get(key, 1)
        if len(shape) != num_axes or (key == "frames" and shape[-1] != 3):
            expected = "(rows, H, W, 3)" if key == "frames" else f"{num_axes} axes, rows first"
            raise DataError(f"{path}: {key} must be {expected}, got shape {shape}")
        if shape[0] != file["frames"].shape[0] or not shape[0]:
            raise DataError(
                f"{path}: {key} has {shape[0]} rows, and frames {file['frames'].shape[0]}. Every "
                "key has one row per frame, and at least one. Record it again"
            )


def _video_layout(file: h5py.File, path: Path, key: str, attributes: dict[str, Any]) -> Layout:
    if "format_version" in attributes:
        _check_version(attributes, path)
    dtype, shape = file[key].dtype, file[key].shape
    is_channels_last = len(shape) == 4 and shape[3] in (1, 3)
    is_channels_first = len(shape) == 4 and shape[1] in (1, 3) and not is_channels_last
    has_frames = (is_channels_last or is_channels_first) and shape[0] > 0
    if not has_frames or (dtype != np.uint8 and dtype.kind != "f"):
        raise DataError(
            f"{path}: {key} must be uint8 or float, (T, H, W, C) or (T, C, H, W) with 1 or 3 "
            f"channels, got {dtype} {shape}"
        )
    episode_ids = np.zeros(shape[0], np.int64)
    episode_attributes: dict[str, dict[str, Any]] = {}
    if "episode_ids" in file:
        ids = file["episode_ids"]
        if str(ids.dtype) not in DTYPES["episode_ids"] or ids.shape != shape[:1]:
            raise DataError(
                f"{path}: episode_ids must be int64 with one row per frame, ({shape[0]},), got "
                f"{ids.dtype} {ids.shape}"
            )
        episode_ids, episode_attributes = _read_episodes(file, path)
    height, width = shape[2:] if is_channels_first else shape[1:3]
    return Layout(
        num_rows=shape[0],
        frame_shape=(height, width, 3),
        frames_key=key,
        is_video=True,
        is_channels_first=is_channels_first,
        action_shape=(),
        episode_ids=episode_ids,
        episode_attributes=episode_attributes,
        attributes=attributes,
    )
