from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_gym.data.hdf5 import Rows
from genie_gym.data.windows import EpisodeWindows
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.events import match
from genie_gym.evaluation.game_length import finished_games, game_length
from genie_gym.evaluation.reward_figures import calibration, f1_score, game_ends, rewards
from genie_gym.evaluation.rollout import Heldout, roll_out
from genie_gym.evaluation.section_charts import find_charts
from genie_gym.models.reward import RewardPrediction
from genie_gym.models.world import Imagined, World

GAME = 200
LOST, WON = [45, 90, 199], [30, 120]
"""Steps of each game that make a point; the last one ends it."""
CONFIG = EvaluationConfig(context_length=4, horizon=10, num_events=4, forced_windows=3)


@pytest.fixture(scope="module")
def heldout():
    """Two games whose frames are black but for the number of their row, in the first pixel."""
    frames = np.zeros((2 * (GAME + 1), 64, 64, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = divmod(np.arange(len(frames)), 256)
    points, ends = np.zeros(GAME + 1, np.float32), np.zeros(GAME + 1, bool)
    points[LOST], points[WON], ends[GAME - 1] = -1, 1, True
    actions = np.ones(GAME + 1, np.int16)
    actions[-1] = -1
    rows = Rows(
        frames=frames,
        episode_ids=np.repeat([0, 1], GAME + 1),
        actions=np.tile(actions, 2),
        rewards=np.tile(points, 2),
        terminations=np.tile(ends, 2),
        truncations=np.zeros(len(frames), bool),
    )
    return Heldout(Path("made-up"), rows, EpisodeWindows(rows), 2)


class TellingWorld(World):
    """Reads the row off the frame and tells what happens there, late or twice if it is told to."""

    def know(self, heldout, *, late=0, times=1):
        """Take the real game, and how it is to be told."""
        size = len(heldout.rows.rewards) + GAME  # rollouts may go on after the last game
        self.told, self.ended = np.zeros(size), np.zeros(size)
        for shift in range(late, late + times):
            at = np.arange(len(heldout.rows.rewards)) + shift
            self.told[at] += heldout.rows.rewards
            self.ended[at] += heldout.rows.terminations
        return self

    def encode(self, frames, actions, source="real"):
        """Remember the rows of the newest frames."""
        self.at = frames[:, -1, 0, 0, 0].long() * 256 + frames[:, -1, 0, 0, 1].long()
        return self.start(torch.zeros(len(frames), dtype=torch.long))

    def imagine(self, state, actions, generator=None, **options):
        """Go to the next row; the state stands still."""
        told, ended = torch.from_numpy(self.told[self.at]), torch.from_numpy(self.ended[self.at])
        probs = torch.nn.functional.one_hot(told.long() + 1, 3).float()
        self.at = self.at + 1
        return Imagined(state, RewardPrediction(probs, ended.float().clamp(max=1)))

    def decode(self, state):
        """Return black frames."""
        return torch.zeros(len(self.at), 64, 64, 3, dtype=torch.uint8)


def figures(world, heldout, config=CONFIG, **how):
    telling = TellingWorld(world.stack, world.starts, parts=world.parts, card=world.card)
    telling.know(heldout, **how)
    # A window at every other row of both games: nothing is left to chance.
    starts = heldout.windows.valid_starts(config.context_length + config.horizon)[::2]
    uniform = roll_out(telling, heldout, starts, context_length=4, horizon=config.horizon)
    return rewards(telling, heldout, uniform, config)


def test_a_world_that_knows_the_game_finds_everything_and_is_unbiased(world, heldout):
    report = figures(world, heldout, replace(CONFIG, forced_windows=20))
    assert list(report["by_step"]) == [1, 5, 10]
    for part in (report["teacher_forced"], *report["by_step"].values()):
        for kind, events in {"-1": 4, "+1": 4, "terminated": 2}.items():
            assert (part[kind]["events"], part[kind]["recall"]) == (events, 1)
            # The first 20 windows, which are teacher-forced, hold no end.
            assert (part[kind]["precision"] == part[kind]["f1"] == 1) == (part[kind]["told"] > 0)
        assert (part["bias"], part["bias_standard_error"]) == (0, 0)
        assert part["calibration"]["expected_calibration_error"] == 0


@pytest.mark.parametrize(("late", "recall"), [(2, 1), (3, 0)])
def test_an_event_may_be_told_two_steps_late_but_not_three(world, heldout, late, recall):
    report = figures(world, heldout, late=late)
    for part in report["by_step"].values():
        assert {part[kind]["recall"] for kind in ("-1", "+1", "terminated")} == {recall}
    assert report["by_step"][10]["-1"]["precision"] == recall


def test_of_an_event_told_twice_one_half_is_wrong(world, heldout):
    part = figures(world, heldout, times=2)["by_step"][10]["+1"]
    assert part["recall"] == 1
    # A window that begins or ends between the two shows but one of them, and takes it for right.
    assert 0.5 <= part["precision"] <= 0.6
    assert part["f1"] == pytest.approx(2 * part["precision"] / (1 + part["precision"]))


def test_a_world_that_tells_nothing_has_no_precision_and_the_bias_of_the_game(world, heldout):
    silent = replace(heldout, rows=replace(heldout.rows, rewards=0 * heldout.rows.rewards))
    telling = TellingWorld(world.stack, world.starts, parts=world.parts, card=world.card)
    telling.know(silent)
    starts = np.array([40, 41, 100])
    uniform = roll_out(telling, heldout, starts, context_length=4, horizon=10)
    part = rewards(telling, heldout, uniform, CONFIG)["by_step"][10]
    assert (part["-1"]["recall"], part["-1"]["precision"], part["-1"]["f1"]) == (0, None, None)
    assert part["-1"]["reason"] == "the world told none in uniformly drawn play"
    # The point lost at step 45 lies in two of the three windows of ten steps.
    assert part["bias"] == pytest.approx(2 / 30)
    assert part["bias_standard_error"] == pytest.approx(np.std([0.1, 0.1, 0], ddof=1) / 3**0.5)


def test_a_game_without_points_or_ends_says_so(world, heldout):
    rows = replace(
        heldout.rows,
        rewards=0 * heldout.rows.rewards,
        terminations=np.zeros_like(heldout.rows.terminations),
    )
    calm = replace(heldout, rows=rows, windows=EpisodeWindows(rows))
    report = figures(world, calm, replace(CONFIG, forced_windows=0))
    assert report["teacher_forced"] == {"reason": "forced_windows is 0"}
    for kind in ("-1", "+1", "terminated"):
        part = report["by_step"][10][kind]
        assert (part["events"], part["recall"], part["precision"]) == (0, None, None)
        assert part["reason"] == f"no {kind} in the recording has 12 steps around it"
    reason = "no finished game ends within 1000 steps"
    assert report["episode_length"] == {"value": None, "reason": reason}


def test_a_games_end_is_followed_by_stills_without_a_point(heldout):
    ends, rows = game_ends(heldout, length=5)
    assert rows.tolist() == [3, 13]
    assert ends.rows.frames[:10, 0, 0, 1].tolist() == [196, 197, 198, 199, *[200] * 6]
    assert np.flatnonzero(ends.rows.terminations).tolist() == [3, 13]
    assert np.flatnonzero(ends.rows.rewards).tolist() == [3, 13]
    assert ends.rows.actions[:10].tolist() == [1, 1, 1, 1, *[0] * 6]


def test_events_are_matched_once_and_as_many_as_can_be():
    real = np.array([[0, 0, 0, 1, 0, 1, 0, 0]], bool)
    told = np.array([[0, 1, 0, 0, 0, 1, 0, 0]], bool)
    found, right = match(real, told)
    assert found.tolist() == real.tolist() and right.tolist() == told.tolist()
    found, right = match(real, np.array([[1, 0, 0, 0, 1, 0, 0, 0]], bool))
    assert (found.sum(), right.sum()) == (1, 1)
    assert right[0, 4]


def test_calibration_is_the_mean_gap_between_told_and_observed():
    prob = np.array([0.25, 0.25, 0.25, 0.25, 1.0])
    report = calibration(prob, np.array([True, False, False, False, False]))
    assert report["bins"] == [
        {"steps": 4, "told": 0.25, "observed": 0.25},
        {"steps": 1, "told": 1.0, "observed": 0.0},
    ]
    assert report["expected_calibration_error"] == pytest.approx(1 / 5)
    [chart] = find_charts(report)
    assert "observed" in chart


def test_f1_is_the_harmonic_mean():
    assert f1_score(0.5, 1.0) == pytest.approx(2 / 3)
    assert f1_score(0.0, 0.0) == 0
    assert f1_score(None, 1.0) is None


@pytest.mark.parametrize(("late", "ratio"), [(0, 1), (4, 1.02)])
def test_imagined_games_are_as_long_as_the_world_makes_them(world, heldout, late, ratio):
    report = figures(world, heldout, replace(CONFIG, forced_windows=0), late=late)["episode_length"]
    assert (report["games"], report["longer_games"], report["not_ended"]) == (2, 0, 0)
    assert report["real"] == {"mean": GAME, "p10": GAME, "p90": GAME}
    assert report["imagined"]["mean"] == GAME + late
    assert report["imagined_to_real"]["value"] == pytest.approx(ratio)


def test_a_game_that_the_world_never_ends_counts_as_long_as_it_was_played(world, heldout):
    telling = TellingWorld(world.stack, world.starts, parts=world.parts, card=world.card)
    telling.told = telling.ended = np.zeros(1000)
    report = game_length(telling, heldout, replace(CONFIG, long_horizon=250))
    assert (report["not_ended"], report["imagined"]["mean"]) == (2, 253)


def test_games_too_long_to_be_imagined_say_so(world, heldout):
    report = game_length(world, heldout, replace(CONFIG, long_horizon=100))
    reason = "no finished game ends within 100 steps: here 200 steps in the median"
    assert report == {"value": None, "reason": reason}
    report = game_length(world, heldout, replace(CONFIG, long_windows=0))
    assert report == {"value": None, "reason": "long_windows is 0"}


def test_finished_games_are_found_by_their_last_action(heldout):
    first, lengths = finished_games(heldout)
    assert (first.tolist(), lengths.tolist()) == ([0, GAME + 1], [GAME, GAME])
