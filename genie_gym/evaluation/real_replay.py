"""Playing a recording again in the real game: the same seeds and actions, the same rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from tqdm import tqdm

from genie_gym.data.hdf5 import COLUMNS, Episode, Recording
from genie_gym.data.verify import Fault
from genie_gym.envs.real import RealEnv
from genie_gym.errors import DataError, GenieError

CURE = (
    "Another version of ale-py or of genie_gym recorded it, or the rows were changed: install that "
    "version, or record again"
)


def find_replay_faults(path: str | Path, *, progress: bool = False) -> list[Fault]:
    """Step the real game with the stored seeds and actions, and compare every row.

    About 2,500 rows a second.

    Returns:
        The first row of each episode that comes out otherwise; nothing if all rows are the game's.

    Raises:
        DataError: the recording cannot be read, or does not say how its game was set.
    """
    recording = Recording.open(path)
    env = _make_env(recording)
    columns = {key: recording.load_column(key) for key in COLUMNS}
    faults: list[Fault] = []
    with tqdm(total=recording.num_frames, unit="row", disable=not progress) as bar:
        for episode in recording.episodes:
            faults += _first_difference(recording, columns, episode, env)
            bar.update(episode.length)
    env.close()
    return faults


def _make_env(recording: Recording) -> RealEnv:
    attributes = recording.attributes
    env_id = str(attributes.get("env_id"))
    if not env_id.startswith("ALE/"):
        raise DataError(
            f"{recording.path} was recorded in {env_id!r}; only recordings of ALE games can be "
            "played again here. Leave --replay away"
        )
    try:
        options: dict[str, Any] = json.loads(attributes["env_kwargs"])
        return RealEnv(env_id, **options)
    except (LookupError, TypeError, ValueError, GenieError) as error:
        raise DataError(
            f"{recording.path}: attribute 'env_kwargs' must hold the options of RealEnv as JSON, "
            f"got {attributes.get('env_kwargs')!r:.200} ({error}). Record it again"
        ) from error


def _first_difference(
    recording: Recording,
    columns: dict[str, Shaped[np.ndarray, "rows ..."]],
    episode: Episode,
    env: RealEnv,
) -> list[Fault]:
    """Play an episode until a row comes out otherwise: those behind it may follow from it."""
    frames = recording.load_frames(episode.start, episode.start + episode.length)
    rows = slice(episode.start, episode.start + episode.length)
    own = {key: column[rows] for key, column in columns.items()}

    def fault(key: str, row: int, problem: str) -> list[Fault]:
        where = f"row {row} of episode {episode.episode_id}"
        file = recording.shards[episode.shard]
        return [Fault(file=file, key=key, where=where, problem=problem, cure=CURE)]

    if episode.reset_seed is None:
        return fault("reset_seed", 0, "is not stated, so the game cannot be begun again")
    obs, _ = env.reset(seed=episode.reset_seed)
    for row, (frame, action) in enumerate(zip(frames, own["actions"], strict=True)):
        if num_other := np.count_nonzero(obs != frame):
            return fault("frames", row, f"must be the game's, but {num_other} values are not")
        if row == episode.length - 1:
            break
        if not env.action_space.contains(action):
            return fault("actions", row, f"must be one of the game's, got {action}")
        obs, reward, terminated, truncated, _ = env.step(action)
        for key, value in {"rewards": reward, "terminations": terminated}.items():
            if own[key][row] != value:
                return fault(key, row, f"must be {value}, got {own[key][row]}")
        if (terminated or truncated) and row < episode.length - 2:
            return fault("episode_ids", row, "must change, because the game is over")
    return []
