import signal

import numpy as np
import pytest

from collectors.episodes import play_episode
from genie_gym.data.hdf5 import Recording

KEYS = ("frames", "actions", "rewards", "terminations", "truncations", "episode_ids")


@pytest.fixture(scope="session")
def assert_same_recording():
    """Return a function that compares two recordings, row for row."""

    def compare(first, second):
        first, second = Recording.open(first), Recording.open(second)
        assert first.episodes == second.episodes
        rows, other_rows = first.load(), second.load()
        for key in KEYS:
            np.testing.assert_array_equal(getattr(rows, key), getattr(other_rows, key))

    return compare


@pytest.fixture
def break_every_third_episode(monkeypatch):
    """Press Ctrl-C in the middle of every third episode; list what was begun."""
    begun = []

    def play_some(settings, episode_id, max_actions, *, should_stop):
        begun.append(episode_id)
        num_asked = 0

        def press_and_ask():
            nonlocal num_asked
            num_asked += 1
            if len(begun) % 3 == 0 and num_asked == 20:
                signal.raise_signal(signal.SIGINT)
            return should_stop()

        return play_episode(settings, episode_id, max_actions, should_stop=press_and_ask)

    monkeypatch.setattr("collectors.workers.play_episode", play_some)
    return begun
