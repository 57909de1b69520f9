"""The benchmark that asks how many of a recording's points a world tells."""

import numpy as np
import pytest
import torch

from genie_gym.data.hdf5 import Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.errors import DataError
from genie_gym.models.reward import RewardPrediction

SIZE = 64


@pytest.fixture(scope="module")
def told_points(load_benchmark):
    return load_benchmark("told_points")


def windows(rewards):
    """Return the windows of one episode that earned these rewards."""
    num_rows = len(rewards)
    return EpisodeWindows(
        Rows(
            frames=np.zeros((num_rows, SIZE, SIZE, 3), np.uint8),
            episode_ids=np.zeros(num_rows, np.int64),
            actions=np.zeros(num_rows, np.int16),
            rewards=np.array(rewards, np.float32),
            terminations=np.zeros(num_rows, np.bool_),
        )
    )


def test_windows_hold_one_point_so_many_steps_after_their_context(told_points):
    rewards = np.zeros(200)
    rewards[[50, 90, 92, 150]] = -1, -1, 1, 1  # the middle two are too near to each other
    rng = np.random.default_rng(0)
    context = told_points.CONTEXT
    for sign, row in ((-1, 50), (1, 150)):
        starts = told_points.lonely_points(windows(rewards), sign, 4, 10, rng)
        assert starts.tolist() == [row - 4 - (context - 2)]


def test_no_point_of_a_sign_is_an_error_that_says_so(told_points):
    rewards = np.zeros(200)
    rewards[100] = 1
    with pytest.raises(DataError, match="no reward of sign -1 has 22 frames of its game before"):
        told_points.lonely_points(windows(rewards), -1, 4, 10, np.random.default_rng(0))


class Oracle:
    """A world that tells a point lost in its third step, in every other game."""

    reward_classes = torch.tensor([-1.0, 0.0, 1.0])

    def encode(self, frames, actions):
        """Begin to count steps."""
        assert frames.shape[1] == actions.shape[1] + 1
        return 0

    def imagine(self, state, actions, generator, *, temperature):
        """Say the point when it is time."""
        is_lost = (torch.arange(len(actions)) % 2 == 0) & (state == 2)
        probs = torch.nn.functional.one_hot(torch.where(is_lost, 0, 1), 3).float()
        prediction = RewardPrediction(probs, torch.zeros(len(actions)))
        return type("Imagined", (), {"state": state + 1, "prediction": prediction})


def test_what_a_world_tells_is_found_and_what_it_does_not_is_not(told_points):
    clip = windows(np.zeros(80)).clip(np.arange(6), told_points.CONTEXT + 4 + told_points.AFTER)
    lost, won = (told_points.told(Oracle(), clip, sign, 1.0, torch.Generator()) for sign in (-1, 1))
    assert lost.tolist() == [True, False] * 3
    assert not won.any()


def test_a_row_is_printed_for_every_number_of_steps(told_points, monkeypatch, capsys):
    # The last point won has no steps after it.
    rewards = np.tile([*[0.0] * 30, -1.0, *[0.0] * 30, 1.0], 4)
    monkeypatch.setattr(told_points, "EpisodeWindows", lambda rows: windows(rewards))
    monkeypatch.setattr(told_points, "load_world", lambda name: Oracle())

    class Recorded:
        def load(self, in_memory):
            """Hold nothing: the windows are made above."""

    monkeypatch.setattr(told_points.Recording, "open", lambda path: path)
    monkeypatch.setattr(told_points.Recording, "join", lambda recordings: Recorded())
    told_points.main(["--data", "a", "--ahead", "3", "5"])
    assert capsys.readouterr().out.splitlines() == [
        "  3 steps before:   50.0 +- 25.0 % of 4 lost,    0.0 +- 0.0 % of 3 won",
        "  5 steps before:   50.0 +- 25.0 % of 4 lost,    0.0 +- 0.0 % of 3 won",
    ]
