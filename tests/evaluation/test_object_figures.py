from dataclasses import replace

import numpy as np
import pytest

from genie_gym.evaluation.object_figures import before_loss, could_be_pong, objects, shows_ball
from genie_gym.evaluation.objects import find_objects
from genie_gym.evaluation.rollout import Rollouts
from genie_gym.models.world import World

BALL, PADDLES = (100, 80), {"own": 60, "opponent": 120}
PIXEL_Y = 210 / 64
"""Raw rows in one of the small frame."""


@pytest.fixture(scope="module")
def steady(draw):
    """Two rollouts of two steps in which nothing moves, imagined as they are."""
    frame = draw(BALL, **PADDLES)
    context, steps = (np.broadcast_to(frame, (2, count, 64, 64, 3)).copy() for count in (4, 2))
    return Rollouts(
        starts=np.zeros(2, np.int64),
        context=context,
        actions=np.zeros((2, 2), np.int64),
        real=steps,
        imagined=steps.copy(),
        tokens=np.zeros((2, 2, 16), np.int64),
        rewards=np.zeros((2, 2), np.float32),
        terminations=np.zeros((2, 2), bool),
        reward_probs=np.tile(np.float32([0, 1, 0]), (2, 2, 1)),
        terminated_prob=np.zeros((2, 2), np.float32),
    )


def change(rollouts, **changes):
    """Return rollouts with some frames drawn anew: imagined={(window, step): frame}."""
    arrays = {name: getattr(rollouts, name).copy() for name in changes}
    for name, values in changes.items():
        for place, value in values.items():
            arrays[name][place] = value
    return replace(rollouts, **arrays)


def test_a_game_imagined_as_it_was_has_no_errors(world, steady):
    report = objects(world, [steady], "none")
    for step in (1, 2):
        figures = report["by_step"][step]
        assert figures["scored"] == 2
        for name in ("ball", "own_paddle", "opponent_paddle"):
            assert figures[f"{name}_within_2px"] == figures[f"copy_{name}_within_2px"] == 1
            assert figures[f"{name}_median_error"] == figures[f"{name}_mean_error"] == 0
        assert figures["ball_lost"] == figures["ball_doubled"] == 0
    assert (report["lost_or_doubled_per_100"], report["frames_in_play"]) == (0, 4)
    assert report["long"] == {"reason": "none"}


def test_errors_are_distances_in_small_pixels(world, steady, draw):
    moved = draw((100 + 12, 80), own=60, opponent=120)
    report = objects(world, [change(steady, imagined={(0, 1): moved})], "none")["by_step"][2]
    distance = 12 / PIXEL_Y
    assert report["ball_within_2px"] == 0.5
    assert report["ball_mean_error"] == pytest.approx(distance / 2, abs=0.1)
    assert report["ball_median_error"] == pytest.approx(distance / 2, abs=0.1)
    assert report["own_paddle_within_2px"] == 1

    sunk = draw(BALL, own=60 + 20, opponent=120)
    report = objects(world, [change(steady, imagined={(1, 1): sunk})], "none")["by_step"][2]
    assert report["own_paddle_within_2px"] == 0.5
    assert report["own_paddle_mean_error"] == pytest.approx(20 / PIXEL_Y / 2, abs=0.1)
    assert report["opponent_paddle_within_2px"] == 1


def test_a_lost_ball_and_a_doubled_one_are_both_wrong(world, steady, draw):
    lost, doubled = draw(**PADDLES), draw(BALL, (40, 110), **PADDLES)
    some = change(steady, imagined={(0, 0): lost, (1, 0): doubled})
    report = objects(world, [some], "none")
    first = report["by_step"][1]
    assert (first["ball_lost"], first["ball_doubled"]) == (0.5, 0.5)
    assert report["by_step"][2]["ball_lost"] == 0
    assert report["lost_or_doubled_per_100"] == 50


def test_after_a_point_the_ball_is_no_longer_judged_but_the_paddles_are(world, steady, draw):
    gone = draw(**PADDLES)
    some = change(steady, rewards={(0, 1): -1}, imagined={(0, 1): gone})
    report = objects(world, [some], "none")
    assert report["by_step"][1]["scored"] == 2
    last = report["by_step"][2]
    assert (last["scored"], last["ball_lost"]) == (1, 0)
    assert last["own_paddle_within_2px"] == 1
    assert (report["lost_or_doubled_per_100"], report["frames_in_play"]) == (0, 3)


def test_without_recorded_points_the_ball_is_judged_until_the_real_one_is_lost(world, steady, draw):
    gone = draw(**PADDLES)
    some = change(steady, real={(0, 0): gone, (0, 1): gone}, imagined={(0, 0): gone})
    some = replace(some, rewards=None)
    report = objects(world, [some], "none")
    for step in (1, 2):
        figures = report["by_step"][step]
        assert (figures["scored"], figures["ball_lost"]) == (1, 0)
        assert figures["own_paddle_within_2px"] == 1
    assert (report["lost_or_doubled_per_100"], report["frames_in_play"]) == (0, 2)


def test_a_ball_counts_until_it_is_gone_for_two_frames_and_not_after_the_next_serve():
    seen = [[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    counts = before_loss(np.array(seen, bool)).sum(axis=1)
    assert counts.tolist() == [3, 6, 0]


def test_frames_in_which_the_real_game_shows_no_ball_do_not_count(world, steady, draw):
    empty = draw(**PADDLES)
    some = change(steady, real={(0, 0): empty, (1, 0): empty}, imagined={(0, 0): empty})
    report = objects(world, [some], "none")
    assert report["by_step"][1]["ball_within_2px"] is None
    assert "no window shows the ball here" in report["by_step"][1]["reason"]
    assert report["frames_in_play"] == 2


def test_a_context_shows_the_ball_if_two_of_its_last_four_frames_do(draw):
    ball, empty = draw(BALL), draw()
    contexts = [
        [ball, ball, empty, empty, empty, empty],
        [empty, empty, ball, empty, ball, empty],
        [ball, ball, ball, empty, empty, empty],
    ]
    assert shows_ball(np.array(contexts), "Pong").tolist() == [False, True, False]
    assert shows_ball(np.array([[ball]]), "Pong").tolist() == [True]


def ticks(draw, frames, points=()):
    is_point = np.isin(np.arange(len(frames)), points)
    return could_be_pong(find_objects(np.array(frames), "Pong"), is_point).tolist()


def test_a_frame_without_a_ball_needs_a_point_two_steps_away_or_nearer(draw):
    play, empty = draw(BALL, **PADDLES), draw(own=60)
    frames = [play] * 3 + [empty] * 2 + [play]
    fine = [True, True, True]
    for point in (1, 5):
        assert ticks(draw, frames, [point]) == [fine] * 6
    for points in ([0], []):
        assert ticks(draw, frames, points) == [fine] * 3 + [[False, True, False]] * 2 + [fine]


def test_a_pause_lasts_no_longer_than_sixteen_frames(draw):
    empty = draw(**PADDLES)
    found = ticks(draw, [draw(BALL, **PADDLES)] + [empty] * 20, [0])
    assert [has_ball for has_ball, _, _ in found] == [True] * 17 + [False] * 4


def test_two_balls_or_a_missing_paddle_are_no_pong(draw):
    frames = [draw(BALL, (40, 110), **PADDLES), draw(BALL, own=60), draw(BALL, opponent=120)]
    expected = [[False, True, True], [True, True, False], [True, False, True]]
    assert ticks(draw, frames) == expected


def test_a_long_rollout_counts_until_the_game_ends(world, steady, draw):
    lost = draw(**PADDLES)
    some = change(
        steady, imagined={(0, 0): lost, (1, 1): lost}, terminated_prob={(1, 1): np.float32(0.9)}
    )
    long = objects(world, [steady], some)["long"]
    assert (long["rollouts"], long["steps"], long["games_ended"]) == (2, 2, 1)
    assert long["frames"] == 3
    assert long["still_pong"] == pytest.approx(2 / 3)
    assert long["real_still_pong"] == 1
    assert long["points_per_1000"] == long["real_points_per_1000"] == 0


def test_without_rewards_the_real_game_cannot_be_told_to_be_pong(world, steady):
    long = objects(world, [steady], replace(steady, rewards=None))["long"]
    assert (long["still_pong"], long["real_still_pong"], long["real_points_per_1000"]) == (
        1,
        None,
        None,
    )
    assert long["reason"] == "the recording has no rewards, so its pauses are not known"


def other_world(world, **changes):
    other = World(world.stack, world.starts, parts=world.parts, card=world.card)
    other.config = replace(world.config, **changes)
    return other


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"game": "Boxing"}, "Boxing at 64 x 64"), ({"height": 84, "width": 84}, "Pong at 84 x 84")],
)
def test_other_games_and_sizes_say_why_they_have_no_objects(world, steady, changes, what):
    reason = f"objects are found in Breakout and Pong at 64 x 64 only; this is {what}"
    assert objects(other_world(world, **changes), [steady], "none") == {"reason": reason}


def test_breakout_has_one_paddle_and_says_what_it_lacks(world, steady):
    report = objects(other_world(world, game="Breakout"), [steady], "none")
    assert "own_paddle_within_2px" in report["by_step"][1]
    assert "opponent_paddle_within_2px" not in report["by_step"][1]
    assert report["opponent_paddle"] == {
        "value": None,
        "reason": "Breakout has one paddle, the player's own",
    }
    reason = "what every frame of a game must show is known of Pong alone, not of Breakout"
    assert report["long"] == {"reason": reason}
