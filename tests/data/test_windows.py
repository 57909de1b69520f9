from dataclasses import replace

import numpy as np
import pytest

from genie_gym.data.hdf5 import Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError

LENGTHS = [7, 3, 12, 1, 5]


@pytest.fixture
def rows():
    """Number the rows in frames and actions, so that a value tells where it came from."""
    num_rows = sum(LENGTHS)
    ends = np.cumsum(LENGTHS)
    actions = np.arange(num_rows, dtype=np.int16)
    actions[ends - 1] = -1
    terminations = np.zeros(num_rows, bool)
    terminations[ends[[0, 2]] - 2] = True
    return Rows(
        frames=np.arange(num_rows, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), "u1"),
        episode_ids=np.repeat(np.arange(len(LENGTHS)), LENGTHS),
        actions=actions,
        rewards=np.arange(num_rows, dtype=np.float32) / 2,
        terminations=terminations,
        truncations=np.zeros(num_rows, bool),
    )


def test_windows_never_cross_an_episode(rows):
    windows = EpisodeWindows(rows)
    clip = windows.sample(500, 4, np.random.default_rng(0))
    seen = clip.frames[:, :, 0, 0, 0]
    episodes = rows.episode_ids[seen]
    assert (episodes == episodes[:, :1]).all()
    assert (clip.actions >= 0).all()


@pytest.mark.parametrize("num_frames", [1, 3, 4, 12])
def test_every_window_that_fits_is_listed_once(rows, num_frames):
    starts = EpisodeWindows(rows).valid_starts(num_frames)
    assert len(starts) == len(set(starts)) == sum(max(n - num_frames + 1, 0) for n in LENGTHS)


def test_an_action_leads_from_its_own_frame_to_the_next(rows):
    clip = EpisodeWindows(rows).sample(50, 4, np.random.default_rng(0))
    seen = clip.frames[:, :, 0, 0, 0]
    np.testing.assert_array_equal(clip.actions, seen[:, :-1])
    np.testing.assert_array_equal(clip.rewards, seen[:, :-1] / 2)
    np.testing.assert_array_equal(clip.terminations, rows.terminations[seen[:, :-1]])
    assert (clip.frames.dtype, clip.actions.dtype) == (np.uint8, np.int64)


def test_one_seed_draws_one_batch(rows):
    windows = EpisodeWindows(rows)
    first, second = (windows.sample(20, 3, np.random.default_rng(4)).frames for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_windows_around_an_event_hold_its_action_at_every_place(rows):
    events = np.array([4])
    clip = EpisodeWindows(rows).sample(200, 4, np.random.default_rng(0), around=events)
    places = np.argwhere(clip.actions == 4)
    np.testing.assert_array_equal(places[:, 0], np.arange(200))
    # Row 4 of seven rows: the window may start at rows 2 and 3 (at 1 the frame after is missing).
    assert set(places[:, 1]) == {1, 2}


def test_an_event_on_an_episodes_last_action_has_windows(rows):
    event = np.flatnonzero(rows.terminations)
    clip = EpisodeWindows(rows).sample(50, 5, np.random.default_rng(0), around=event)
    assert clip.terminations[:, -1].all()


def test_events_in_episodes_that_are_too_short_are_left_out(rows):
    events = np.array([8, 15])
    clip = EpisodeWindows(rows).sample(50, 4, np.random.default_rng(0), around=events)
    assert (clip.actions == 15).any(axis=1).all()
    with pytest.raises(DataError, match="no event lies in an episode of 4 frames"):
        EpisodeWindows(rows).sample(5, 4, np.random.default_rng(0), around=np.array([8]))


@pytest.mark.parametrize("num_frames", [0, 13])
def test_windows_that_fit_nowhere_are_refused(rows, num_frames):
    with pytest.raises(DataError, match=f"windows of {num_frames} frames do not fit.*12 frames"):
        EpisodeWindows(rows).valid_starts(num_frames)


@pytest.mark.parametrize("start", [-1, 5, 26])
def test_a_chosen_window_that_leaves_its_episode_is_refused(rows, start):
    with pytest.raises(DataError, match=f"from row {start} would leave"):
        EpisodeWindows(rows).clip(np.array([start]), 4)


def test_tokens_and_video_are_cut_in_the_same_way(rows):
    tokens = np.arange(len(rows.episode_ids) * 5).reshape(-1, 5)
    video = Rows(frames=tokens, episode_ids=rows.episode_ids)
    clip = EpisodeWindows(video).sample(8, 3, np.random.default_rng(0))
    assert clip.frames.shape == (8, 3, 5)
    assert clip.actions is None and clip.rewards is None and clip.terminations is None
    played = EpisodeWindows(replace(rows, frames=tokens)).sample(8, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(played.frames, clip.frames)
