import json

import pytest

from genie_gym.evaluation.bars import BARS, bars, card_figures, table

EVENT = {"precision": 0.9, "recall": 0.95}
OBJECTS = {
    "by_step": {
        1: {"ball_within_2px": 0.96},
        10: {"ball_within_2px": 0.8},
        20: {"ball_within_2px": None, "own_paddle_within_2px": 1.0, "reason": "no ball"},
    },
    "lost_or_doubled_per_100": 4.0,
    "long": {"reason": "play is too short"},
}
REWARDS = {"-1": EVENT, "+1": {**EVENT, "recall": 0.4}, "terminated": EVENT, "bias": -0.003}
REPORT = {
    "data": {"recording": "play"},
    "reconstruction": {"mse": 1e-5, "ball_within_1px": 0.9},
    "objects": OBJECTS,
    "rewards": {"by_step": {20: REWARDS}},
}


@pytest.fixture
def rows():
    return {row["figure"]: row for row in bars(REPORT)}


def verdict(rows, figure):
    return rows[figure]["value"], rows[figure]["met"]


def test_every_figure_has_a_row_in_order():
    assert [row["figure"] for row in bars({})] == [bar.figure for bar in BARS]
    assert {row["met"] for row in bars({})} == {None}


def test_less_error_and_more_hits_meet_a_bar(rows):
    assert verdict(rows, "reconstruction MSE") == (1e-5, True)
    assert verdict(rows, "ball within 1 px after reconstruction") == (0.9, False)
    assert verdict(rows, "ball within 2 px at step 1") == (0.96, True)
    assert verdict(rows, "ball within 2 px at step 10") == (0.8, False)
    assert verdict(rows, "ball lost or doubled per 100 steps") == (4.0, True)


def test_of_two_signs_the_worse_counts(rows):
    assert verdict(rows, "precision of rewards over 20 steps, the worse sign") == (0.9, True)
    assert verdict(rows, "recall of rewards over 20 steps, the worse sign") == (0.4, False)


def test_a_bias_is_judged_by_its_size_and_shown_with_its_sign(rows):
    assert verdict(rows, "bias of the expected reward per step") == (-0.003, False)


def test_what_is_not_measured_says_why(rows):
    reasons = {
        "ball within 2 px at step 20": "no ball",
        "frames of long rollouts that are still Pong": "play is too short",
        "code gain": "section control is missing",
    }
    for figure, reason in reasons.items():
        assert verdict(rows, figure) == (None, None)
        assert rows[figure]["reason"] == reason
    short = bars({"objects": {"by_step": {1: {}}}})
    assert short[4]["reason"] == "objects.by_step.20.ball_within_2px was not measured"


def test_a_report_read_from_its_file_gives_the_same_bars():
    assert bars(json.loads(json.dumps(REPORT))) == bars(REPORT)


def test_the_table_has_a_line_for_every_bar():
    lines = table(bars(REPORT)).splitlines()
    assert len(lines) == 1 + len(BARS)
    assert lines[1].split() == "reconstruction MSE 1e-05 5e-05 1e-05 yes".split()
    assert lines[-1].split()[-7:] == "- 3 8 section control is missing".split()


def test_a_card_keeps_the_bars_and_where_they_were_measured():
    figures = card_figures({**REPORT, "bars": bars(REPORT)})
    assert set(figures) == {"data", "bars"}
    assert figures["bars"]["reconstruction MSE"] == {
        "value": 1e-5,
        "bar": 5e-5,
        "goal": 1e-5,
        "met": True,
    }
