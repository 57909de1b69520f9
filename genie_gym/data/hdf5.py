"""Reading recordings, HDF5 format version 1, and foreign files that hold only frames."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

from genie_gym.data.layout import Layout, list_shards, opened, read_layout
from genie_gym.data.manifest import read_manifest
from genie_gym.data.reward_classes import listed_classes, reward_classes
from genie_gym.data.stored_frames import StoredFrames, read_frames
from genie_gym.errors import DataError

COLUMNS = ("actions", "rewards", "terminations", "truncations")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A recording; row t holds a frame and the action taken on seeing it.

    A video without actions has None for everything but `frames` and `episode_ids`; so has a
    recording for what it was allowed to lack.
    """

    frames: Shaped[np.ndarray, "rows ..."] | StoredFrames
    """uint8 (rows, H, W, 3), in memory or on disk, or what has been computed of each frame, for
    example tokens."""
    episode_ids: Int64[np.ndarray, " rows"]
    """Number of each row's episode; rows of one episode are neighbours."""
    actions: Shaped[np.ndarray, "rows ..."] | None = None
    """int16 indices (Discrete) or float32 vectors (Box); -1 or NaN on an episode's last row."""
    rewards: Float32[np.ndarray, " rows"] | None = None
    """Unclipped reward of each action; 0 on an episode's last row."""
    terminations: Bool[np.ndarray, " rows"] | None = None
    """Whether the action ended the game."""
    truncations: Bool[np.ndarray, " rows"] | None = None
    """Whether the recording stopped after the action although the game went on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """Where one episode lies in a recording, and who played it."""

    episode_id: int
    """Number of the episode in the recording."""
    shard: int
    """Index of its file in `Recording.shards`."""
    start: int
    """First row, counted over the whole recording."""
    length: int
    """Number of rows: one more than there are actions."""
    policy: str | None
    """Description of the policy that played; None if the file does not say."""
    policy_seed: int | None
    """Seed of the policy's random generator."""
    reset_seed: int | None
    """Seed given to the environment's reset."""


class Recording:
    """A recording on disk, checked when it is opened; rows are read by `load`.

    Use `Recording.open`.
    """

    def __init__(self, path: Path, shards: list[Path], layouts: list[Layout]) -> None:
        self.path = path
        self.shards = shards
        self.attributes: dict[str, Any] = layouts[0].attributes
        """HDF5 attributes of the first shard."""
        self.episodes: list[Episode] = []
        """All episodes in order."""
        self._layouts = layouts
        start = 0
        for index, layout in enumerate(layouts):
            self.episodes += _find_episodes(layout, index, start)
            start += layout.num_rows
        if not self.has_actions:
            # Foreign files all begin at episode 0; windows must not run from one into the next.
            self._number_episodes()

    @classmethod
    def open(cls, path: str | Path, *, may_lack: Collection[str] = ()) -> "Recording":
        """Open a recording folder or one HDF5 file, and check that it is laid out as it should be.

        Foreign files that hold only `frames` or `images`, (T, H, W, C) or (T, C, H, W), uint8 or
        float in [0, 1], are read as video without actions: one episode a file, unless the file
        holds `episode_ids` too.

        Args:
            path: the folder or the file.
            may_lack: those of the `COLUMNS` that need not be there; `load` then gives None.

        Raises:
            DataError: a file is missing, truncated, or not laid out as the format says.
        """
        path = Path(path)
        shards = list_shards(path)
        layouts = [read_layout(shard, may_lack) for shard in shards]
        _check_kinds(shards, layouts, "put this file into a folder of its own")
        _check_manifest(path, shards, layouts)
        return cls(path, shards, layouts)

    @classmethod
    def join(cls, recordings: Sequence["Recording"]) -> "Recording":
        """Return one recording of all episodes of several ones of the same game, in order.

        Its episodes are numbered anew; its path and attributes are those of the first.

        Raises:
            DataError: their shapes, games or actions differ.
        """
        first = recordings[0]
        if len(recordings) == 1:
            return first
        shards = [shard for recording in recordings for shard in recording.shards]
        layouts = [layout for recording in recordings for layout in recording._layouts]
        _check_kinds(shards, layouts, "use this recording alone")
        for other in recordings[1:]:
            if other._game != first._game:
                raise DataError(
                    f"{other.path} is of {other._game}, but {first.path} is of {first._game}. "
                    "Recordings that are used together have the same game and actions"
                )
        joined = cls(first.path, shards, layouts)
        joined._number_episodes()
        return joined

    @property
    def num_frames(self) -> int:
        """Number of rows."""
        return sum(layout.num_rows for layout in self._layouts)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels (3) of a loaded frame."""
        return self._layouts[0].frame_shape

    @property
    def action_shape(self) -> tuple[int, ...]:
        """() for Discrete actions, (A,) for Box actions, and () where there are none."""
        return self._layouts[0].action_shape

    @property
    def has_actions(self) -> bool:
        """Whether actions and rewards were recorded; False for video."""
        return not self._layouts[0].is_video

    @property
    def action_meanings(self) -> list[str] | None:
        """Name of each action; None if the file does not say."""
        meanings = self.attributes.get("action_meanings")
        return None if meanings is None else [str(meaning) for meaning in meanings]

    def _number_episodes(self) -> None:
        numbered = enumerate(self.episodes)
        self.episodes = [replace(episode, episode_id=index) for index, episode in numbered]

    @property
    def _game(self) -> tuple[object, list[str] | None]:
        return self.attributes.get("env_id"), self.action_meanings

    def load(self, *, in_memory: bool = True) -> Rows:
        """Read all rows into memory, shard by shard: 12 KiB per 64x64 frame.

        Args:
            in_memory: False leaves the frames in their files; they are read when they are indexed,
                with the same values.

        Raises:
            DataError: a value is not finite or out of its range, or a file cannot be read.
        """
        columns: dict[str, Any] = {
            key: self.load_column(key) for key in COLUMNS if key in self._layouts[0].keys
        }
        return Rows(
            frames=(
                self.load_frames(0, self.num_frames)
                if in_memory
                else StoredFrames(self.shards, self._layouts)
            ),
            episode_ids=self._episode_ids(),
            **columns,
        )

    def load_frames(self, start: int, stop: int) -> UInt8[np.ndarray, "rows H W C"]:
        """Read the frames of some neighbouring rows, counted over the whole recording.

        Raises:
            DataError: a value is not finite or out of its range, or a file cannot be read.
        """
        frames = np.empty((stop - start, *self.frame_shape), np.uint8)
        first = 0
        for shard, layout in zip(self.shards, self._layouts, strict=True):
            begin, end = max(start, first), min(stop, first + layout.num_rows)
            if begin < end:
                target = frames[begin - start : end - start]
                with opened(shard) as file:
                    read_frames(file[layout.frames_key], layout, shard, begin - first, target)
            first += layout.num_rows
        return frames

    def load_column(self, key: str) -> Shaped[np.ndarray, "rows ..."]:
        """Read one of the `COLUMNS`, all rows.

        Raises:
            DataError: a reward is not finite, or a file cannot be read.
        """
        parts = []
        for shard in self.shards:
            with opened(shard) as file:
                parts.append(file[key][:])
        values = np.concatenate(parts)
        if key == "rewards" and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise DataError(f"{self.path}: rewards must be finite, row {row} is {values[row]}")
        return values

    def count_rewards(self, rewards: Float32[np.ndarray, " rows"]) -> dict[str, int]:
        """Count how often an action earned each of the rewards, given the whole column."""
        is_last = np.zeros(len(rewards), bool)
        is_last[[episode.start + episode.length - 1 for episode in self.episodes]] = True
        return listed_classes(reward_classes(rewards[~is_last]))

    def class_table(self) -> str:
        """Return a table of how often each reward was earned, and of the returns per policy.

        Of more than 100 different rewards only the signs are counted. Mean returns are those of
        whole games: truncated episodes are left out.
        """
        if not self.has_actions:
            return f"{self.num_frames} frames of video without actions or rewards"
        rewards = self.load_column("rewards")
        classes = self.count_rewards(rewards)
        num_actions = max(sum(classes.values()), 1)
        lines = ["reward      steps   share"]
        lines += [
            f"{name:>6} {count:>10d} {count / num_actions:>7.2%}" for name, count in classes.items()
        ]
        return "\n".join([*lines, "", *self._policy_table(rewards)])

    def _policy_table(self, rewards: Float32[np.ndarray, " rows"]) -> list[str]:
        terminations = self.load_column("terminations")
        num_steps: dict[str, int] = defaultdict(int)
        num_episodes: dict[str, int] = defaultdict(int)
        returns: dict[str, list[float]] = defaultdict(list)
        for episode in self.episodes:
            policy = episode.policy or "unknown"
            rows = slice(episode.start, episode.start + episode.length)
            num_steps[policy] += episode.length - 1
            num_episodes[policy] += 1
            if terminations[rows].any():
                returns[policy].append(float(rewards[rows].sum()))
        lines = ["policy                   episodes      steps  whole games  mean return"]
        for policy in sorted(num_steps):
            whole = returns[policy]
            mean = f"{np.mean(whole):.2f}" if whole else "-"
            lines.append(
                f"{policy:<24} {num_episodes[policy]:>8} {num_steps[policy]:>10} "
                f"{len(whole):>12} {mean:>12}"
            )
        return lines

    def _episode_ids(self) -> Int64[np.ndarray, " rows"]:
        ids = [episode.episode_id for episode in self.episodes]
        return np.repeat(np.array(ids, np.int64), [episode.length for episode in self.episodes])


def _check_kinds(shards: list[Path], layouts: list[Layout], cure: str) -> None:
    for shard, layout in zip(shards, layouts, strict=True):
        if layout.kind != layouts[0].kind:
            raise DataError(
                f"{shard} holds {layout.kind}, but {shards[0]} holds {layouts[0].kind}. Shards of "
                f"one recording have the same shapes: {cure}"
            )


def _check_manifest(path: Path, shards: list[Path], layouts: list[Layout]) -> None:
    manifest = read_manifest(path) if path.is_dir() else None
    if manifest is None:
        return
    for shard, layout, entry in zip(shards, layouts, manifest.shards, strict=True):
        if layout.num_rows != entry.rows:
            raise DataError(
                f"{shard} has {layout.num_rows} rows, but the manifest lists {entry.rows}. It is "
                "another recording's file: restore it, or record again"
            )


def _find_episodes(layout: Layout, shard: int, first_row: int) -> list[Episode]:
    starts = np.flatnonzero(np.diff(layout.episode_ids, prepend=layout.episode_ids[0] - 1))
    ends = [*starts[1:], layout.num_rows]
    episodes = []
    for start, end in zip(starts, ends, strict=True):
        episode_id = int(layout.episode_ids[start])
        about = layout.episode_attributes.get(str(episode_id), {})
        episodes.append(
            Episode(
                episode_id=episode_id,
                shard=shard,
                start=first_row + int(start),
                length=int(end - start),
                policy=about.get("policy"),
                policy_seed=about.get("policy_seed"),
                reset_seed=about.get("reset_seed"),
            )
        )
    return episodes
