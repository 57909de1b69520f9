"""Windows of neighbouring rows, none of which ever crosses from one episode into the next."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, Shaped

from genie_gym.data.hdf5 import Rows
from genie_gym.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A batch of windows: T frames and the T - 1 actions between them, oldest first.

    `actions[:, t]` leads from `frames[:, t]` to `frames[:, t + 1]`; rewards and terminations
    belong to that step. A video without actions has None for all three.
    """

    frames: Shaped[np.ndarray, "B T ..."]
    """uint8 (B, T, H, W, 3), or whatever else the rows hold per frame, for example tokens."""
    actions: Shaped[np.ndarray, "B T-1 ..."] | None
    """int64 indices (Discrete) or float32 vectors (Box)."""
    rewards: Float32[np.ndarray, "B T-1"] | None
    """Unclipped reward of each action."""
    terminations: Bool[np.ndarray, "B T-1"] | None
    """Whether the action ended the game."""


class EpisodeWindows:
    """Cuts windows from a recording, whether its frames are in memory or on disk.

    Args:
        rows: what `Recording.load` gives, or the same with `frames` replaced by tokens
            (`dataclasses.replace(rows, frames=tokens)`).

    Example:
        >>> rows = Rows(frames=np.arange(5), episode_ids=np.array([0, 0, 0, 1, 1]))
        >>> EpisodeWindows(rows).valid_starts(num_frames=2)
        array([0, 1, 3])
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        num_rows = len(rows.episode_ids)
        is_first = np.diff(rows.episode_ids, prepend=rows.episode_ids[0] - 1) != 0
        starts = np.flatnonzero(is_first)
        lengths = np.diff(starts, append=num_rows)
        self._episode_starts = np.repeat(starts, lengths)
        self._episode_ends = np.repeat(starts + lengths, lengths)

    def valid_starts(self, num_frames: int) -> Int64[np.ndarray, " starts"]:
        """Return every row at which a window of `num_frames` rows fits into its episode.

        Raises:
            DataError: no episode is that long.
        """
        rows_left = self._episode_ends - np.arange(len(self._episode_ends))
        starts: Int64[np.ndarray, " starts"] = np.flatnonzero(rows_left >= num_frames)
        if num_frames < 1 or not len(starts):
            raise DataError(
                f"windows of {num_frames} frames do not fit: the longest of the recording's "
                f"episodes has {rows_left.max()} frames. Take shorter windows, or record more"
            )
        return starts

    def starts_around(
        self, events: Int[np.ndarray, " events"], num_frames: int, generator: np.random.Generator
    ) -> Int64[np.ndarray, " starts"]:
        """Draw, for each event row, a window that holds the event's action and both its frames.

        Args:
            events: rows whose action did something of note: `np.flatnonzero(rows.rewards)`.
            num_frames: length of a window; at least 2.
            generator: draws where in its window each event lies.

        Returns:
            One start per event, in order, without the events whose episode is too short.
        """
        lowest = np.maximum(self._episode_starts[events], events + 2 - num_frames)
        highest = np.minimum(self._episode_ends[events] - num_frames, events)
        does_fit = lowest <= highest
        return np.asarray(generator.integers(lowest[does_fit], highest[does_fit] + 1))

    def sample(
        self,
        batch_size: int,
        num_frames: int,
        generator: np.random.Generator,
        *,
        around: Int[np.ndarray, " events"] | None = None,
    ) -> Clip:
        """Draw windows with replacement, uniformly over all that fit.

        Args:
            batch_size: number of windows.
            num_frames: frames per window.
            generator: draws the windows; the same state gives the same windows.
            around: rows of events; each window is then drawn around one of them.

        Raises:
            DataError: no window fits.
        """
        starts = self.valid_starts(num_frames)
        if around is None:
            return self.clip(generator.choice(starts, batch_size), num_frames)
        starts = self.starts_around(generator.choice(around, batch_size), num_frames, generator)
        if not len(starts):
            raise DataError(
                f"no event lies in an episode of {num_frames} frames. Take shorter windows"
            )
        # Events in short episodes drop out; the rest stand in for them.
        return self.clip(np.resize(starts, batch_size), num_frames)

    def clip(self, starts: Int[np.ndarray, " B"], num_frames: int) -> Clip:
        """Return the windows that begin at these rows.

        Raises:
            DataError: a window would leave its episode.
        """
        ends = self._episode_ends.take(starts, mode="clip")
        is_outside = (starts < 0) | (starts + num_frames > ends)
        if is_outside.any():
            start, end = starts[is_outside][0], ends[is_outside][0]
            raise DataError(
                f"a window of {num_frames} frames from row {start} would leave its episode, whose "
                f"rows end before {end}. Choose from valid_starts()"
            )
        rows = starts[:, None] + np.arange(num_frames)
        steps = rows[:, :-1]
        actions, rewards = self.rows.actions, self.rows.rewards
        terminations = self.rows.terminations
        if actions is not None:
            actions = actions[steps]
            actions = actions.astype(np.int64) if actions.dtype == np.int16 else actions
        return Clip(
            frames=self.rows.frames[rows],
            actions=actions,
            rewards=None if rewards is None else rewards[steps],
            terminations=None if terminations is None else terminations[steps],
        )
