"""Recordings as Minari datasets, with every value as it was recorded."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from genie_gym.data.folders import new_folder
from genie_gym.data.hdf5 import Recording
from genie_gym.errors import ConfigError, DataError, MissingExtraError

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

ID_PATTERN = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


def export_minari(recording_path: Path, out: str) -> tuple[Path, str]:
    """Write a recording as a Minari dataset; it appears only when it is whole.

    Frames are stored as they are, not as JPEG, which Minari would do by default. One shard at a
    time is in memory. Episodes without an action, which Minari cannot hold, are left out.

    Args:
        recording_path: folder or file of the recording.
        out: id of the dataset, such as "pong/random-v0", to be written to Minari's own folder; or,
            if it is absolute or begins with a dot, a folder whose last part is the id.

    Returns:
        The folder of the dataset, and the id under which `minari.load_dataset` opens it, with the
        environment variable MINARI_DATASETS_PATH set to the folder less the id.

    Raises:
        MissingExtraError: Minari is not installed.
        ConfigError: the name is no id.
        DataError: the recording is damaged, has no actions, or something is at `out` already.
    """
    try:
        import minari
        from minari.dataset.minari_storage import MinariStorage
    except ImportError as error:
        raise MissingExtraError(
            "writing Minari datasets needs the package minari, which is not installed. Install "
            "it: pip install 'genie-gym[minari]'"
        ) from error

    folder, dataset_id = _place(out)
    recording = Recording.open(recording_path)
    if not recording.has_actions:
        raise DataError(
            f"{recording_path} is video without actions, and Minari datasets consist of actions. "
            "Export a recording that genie-gym collect made"
        )
    with new_folder(folder) as part:
        storage = MinariStorage.new(
            part / "data",
            observation_space=gym.spaces.Box(0, 255, recording.frame_shape, np.uint8),
            action_space=_action_space(recording),
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "algorithm_name": str(recording.attributes.get("policy", "unknown")),
                "description": f"{recording.attributes.get('env_id', 'unknown environment')}, "
                f"recorded by genie-gym: {recording.attributes.get('env_kwargs', {})}",
            }
        )
        storage.update_episodes(_episodes(recording, storage.action_space.dtype))
    return folder, dataset_id


def _place(out: str) -> tuple[Path, str]:
    """Return the folder of a dataset, and its id."""
    path = Path(out).expanduser()
    is_folder = path.is_absolute() or out.startswith(".")
    dataset_id = path.name if is_folder else out
    if not ID_PATTERN.fullmatch(dataset_id):
        raise ConfigError(
            f"a Minari id has the form name-v0 or namespace/name-v0, got {dataset_id!r}. Name "
            "--out so, or give an absolute path or one from ./ that ends so"
        )
    if is_folder:
        return path, dataset_id
    root = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    return Path(root) / dataset_id, dataset_id


def _action_space(recording: Recording) -> gym.Space[Any]:
    shape = recording.action_shape
    if shape:
        return gym.spaces.Box(-np.inf, np.inf, shape, np.float32)
    if recording.action_meanings is None:
        raise DataError(
            f"{recording.path} does not say how many actions there are: it has no attribute "
            "'action_meanings'. Add it, one text per action"
        )
    return gym.spaces.Discrete(len(recording.action_meanings))


def _episodes(recording: Recording, action_dtype: np.dtype[Any]) -> Iterator["EpisodeBuffer"]:
    from minari.data_collector import EpisodeBuffer

    for shard in recording.shards:
        part = Recording.open(shard)
        rows = part.load()
        assert rows.actions is not None and rows.rewards is not None
        assert rows.terminations is not None and rows.truncations is not None
        for episode in part.episodes:
            first, last = episode.start, episode.start + episode.length - 1
            if first == last:
                continue
            # T + 1 observations and T of everything else, here and in Minari.
            steps = slice(first, last)
            yield EpisodeBuffer(
                seed=episode.reset_seed,
                observations=rows.frames[first : last + 1],
                actions=rows.actions[steps].astype(action_dtype),
                rewards=rows.rewards[steps],
                terminations=rows.terminations[steps],
                truncations=rows.truncations[steps],
            )
