"""Ball and paddles of imagined games beside the real game's: what pixel averages hide.

A serve cannot be known from the frames, so ball figures count windows that show the ball in at
least 2 of the last 4 context frames, up to the next point of the real game; where no point ends a
rally, as in Breakout, or points were not recorded, until the real ball is gone for two frames in a
row. Paddle figures count all windows.

Pong's pause, measured on 60,000 steps of held-out play (frame skip 4): after each of 506 points the
ball is gone for 15 or 16 frames, of which the first is the point's or the one after it. Outside of
these pauses and those at a game's start, one frame in 350, on its own, shows no ball, none shows
two, and both paddles are always there; in a pause the opponent's may be off the field. In
Breakout, in 18,000 steps, a lost ball was gone for 2 frames or more, until the next serve.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from genie_gym.evaluation.blobs import Objects
from genie_gym.evaluation.estimates import Report, mean_or_none, missing
from genie_gym.evaluation.events import TOLERANCE, told_rewards
from genie_gym.evaluation.objects import find_objects, why_no_objects
from genie_gym.evaluation.prediction import divide
from genie_gym.evaluation.rollout import Rollouts
from genie_gym.models.world import World

SERVE_PAUSE = 16
"""Frames without a ball after a point."""


def objects(world: World, rollouts: Sequence[Rollouts], long: Rollouts | str) -> Report:
    """Return where ball and paddles are after 1, 2, 5, ... imagined steps, and how long they last.

    Args:
        world: the world that imagined.
        rollouts: free rollouts, the shortest first; a step is measured on the first that reach it.
        long: rollouts that are asked whether they still show Pong, or why there are none.
    """
    if reason := why_no_objects(world):
        return {"reason": reason}
    game = world.config.game
    report: Report = {"by_step": {}}
    for some, steps in divide(rollouts):
        counts = in_play(some, game)
        for step in steps:
            report["by_step"][step] = _at_step(some, counts[:, step - 1], step, game)
    report |= _lost_or_doubled(rollouts[0], game)
    if game != "Pong":
        report["opponent_paddle"] = missing(f"{game} has one paddle, the player's own")
        long = f"what every frame of a game must show is known of Pong alone, not of {game}"
    report["long"] = {"reason": long} if isinstance(long, str) else _still_pong(world, long)
    return report


def shows_ball(context: UInt8[np.ndarray, "N context H W C"], game: str) -> Bool[np.ndarray, " N"]:
    """Return which contexts show the ball in at least 2 of their last 4 frames."""
    seen = _ball_seen(context[:, -4:], game)
    return np.asarray(seen.sum(1) >= min(2, seen.shape[1]))


def in_play(rollouts: Rollouts, game: str) -> Bool[np.ndarray, "N T"]:
    """Return which steps count: the context shows the ball, and the rally goes on."""
    if game == "Pong" and rollouts.rewards is not None:
        is_before = np.cumsum(rollouts.rewards != 0, axis=1) == 0
    else:
        is_before = before_loss(_ball_seen(rollouts.real, game))
    return np.asarray(shows_ball(rollouts.context, game)[:, None] & is_before)


def before_loss(ball_seen: Bool[np.ndarray, "N T"]) -> Bool[np.ndarray, "N T"]:
    """Return which steps come before the ball is gone for two frames in a row.

    Example:
        >>> before_loss(np.array([[True, False, True, False, False, True]])).sum()
        np.int64(3)
    """
    is_lost = np.zeros_like(ball_seen)
    is_lost[:, :-1] = ~(ball_seen[:, :-1] | ball_seen[:, 1:])
    return np.asarray(np.cumsum(is_lost, axis=1) == 0)


def _ball_seen(frames: UInt8[np.ndarray, "N T H W C"], game: str) -> Bool[np.ndarray, "N T"]:
    flat = frames.reshape(-1, *frames.shape[2:])
    return np.asarray(find_objects(flat, game).ball_seen.reshape(frames.shape[:2]))


def ball_error(real: Objects, guess: Objects) -> Float[np.ndarray, " N"]:
    """Return the distance of the balls in pixels; NaN where one of them is not seen."""
    return np.asarray(np.linalg.norm(real.ball_yx - guess.ball_yx, axis=-1))


def share_near(
    error: Float[np.ndarray, " N"], is_shown: Bool[np.ndarray, " N"], limit: int
) -> float | None:
    """Return the share of shown objects within so many pixels; one not found is a miss."""
    return mean_or_none(np.nan_to_num(error[is_shown], nan=np.inf) <= limit)


def _at_step(rollouts: Rollouts, counts: Bool[np.ndarray, " N"], step: int, game: str) -> Report:
    real = find_objects(rollouts.real[:, step - 1], game)
    guess = find_objects(rollouts.imagined[:, step - 1], game)
    last = find_objects(rollouts.context[:, -1], game)
    shown = counts & real.ball_seen
    error = ball_error(real, guess)
    report: Report = {
        "scored": int(counts.sum()),
        "ball_within_2px": share_near(error, shown, 2),
        "copy_ball_within_2px": share_near(ball_error(real, last), shown, 2),
        "ball_lost": mean_or_none(~guess.ball_seen[shown]),
        "ball_doubled": mean_or_none(guess.num_balls[counts] > 1),
        **_median_and_mean("ball", error[counts]),
    }
    if not shown.any():
        report["reason"] = "no window shows the ball here before the next serve"
    for name, place in real.paddles.items():
        guessed, stays = guess.paddles[name], last.paddles[name]
        is_there = ~np.isnan(place)
        report[f"{name}_paddle_within_2px"] = share_near(np.abs(place - guessed), is_there, 2)
        report[f"copy_{name}_paddle_within_2px"] = share_near(np.abs(place - stays), is_there, 2)
        report |= _median_and_mean(f"{name}_paddle", np.abs(place - guessed))
    return report


def _median_and_mean(name: str, error: Float[np.ndarray, " N"]) -> Report:
    """Return the errors in pixels where the object is found in both frames."""
    found = error[~np.isnan(error)]
    median = float(np.median(found)) if len(found) else None
    return {f"{name}_median_error": median, f"{name}_mean_error": mean_or_none(found)}


def _lost_or_doubled(rollouts: Rollouts, game: str) -> Report:
    """Return how many of 100 imagined frames have no ball or several, where the game shows its own.

    A point, or a lost ball, that the world makes on its own is no excuse.
    """
    counts = in_play(rollouts, game)
    real = find_objects(rollouts.real[counts], game)
    guess = find_objects(rollouts.imagined[counts], game)
    wrong = (guess.num_balls != 1)[real.ball_seen]
    if not len(wrong):
        return {"lost_or_doubled_per_100": None, "reason": "the real game shows no ball"}
    return {"lost_or_doubled_per_100": 100 * float(wrong.mean()), "frames_in_play": len(wrong)}


def _still_pong(world: World, long: Rollouts) -> Report:
    """Return the share of frames that could be of a game of Pong, up to the game's imagined end."""
    told = told_rewards(world, long)
    has_ended = np.cumsum(long.terminated_prob > 0.5, axis=1) > 0
    games = np.flatnonzero(shows_ball(long.context, "Pong"))  # others may begin in a pause
    ticks = np.concatenate(
        [_ticks(long.imagined[game], told[game])[~has_ended[game]] for game in games]
    )
    points = (told[games] != 0)[~has_ended[games]].sum()
    report: dict[str, Any] = {
        "rollouts": len(games),
        "steps": long.real.shape[1],
        "frames": len(ticks),
        "games_ended": int(has_ended[games, -1].sum()),
        "still_pong": mean_or_none(np.asarray(ticks.all(1))),
        "real_still_pong": None,
        "ball_or_pause": mean_or_none(ticks[:, 0]),
        "both_paddles": mean_or_none(np.asarray(ticks[:, 1:].all(1))),
        "points_per_1000": 1000 * float(points) / max(len(ticks), 1),
        "real_points_per_1000": None,
    }
    if not len(ticks):
        report["reason"] = "the world ended every game at its first step"
    if long.rewards is None:
        return {**report, "reason": "the recording has no rewards, so its pauses are not known"}
    real = [_ticks(long.real[game], long.rewards[game]) for game in games]
    report["real_still_pong"] = mean_or_none(np.asarray(np.concatenate(real).all(1)))
    report["real_points_per_1000"] = 1000 * float((long.rewards[games] != 0).mean())
    return report


def _ticks(
    frames: UInt8[np.ndarray, "T H W C"], rewards: Float[np.ndarray, " T"]
) -> Bool[np.ndarray, "T 3"]:
    return could_be_pong(find_objects(frames, "Pong"), rewards != 0)


def could_be_pong(found: Objects, is_point: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, "T 3"]:
    """Tick off what every frame of a game needs: ball or serve pause, own and opponent's paddle.

    A pause is at most `SERVE_PAUSE` frames without a ball, the first within 2 steps of a point; in
    a pause, the opponent's paddle may be off the field.

    Args:
        found: the game's objects, frame by frame.
        is_point: which of the steps that led to these frames made a point.
    """
    num_frames = len(is_point)
    is_pause = np.zeros(num_frames, bool)
    edges = np.flatnonzero(np.diff(~found.ball_seen, prepend=False, append=False))
    for start, end in edges.reshape(-1, 2):
        if is_point[max(start - TOLERANCE, 0) : start + TOLERANCE + 1].any():
            is_pause[start : min(end, start + SERVE_PAUSE)] = True
    has_ball = (found.num_balls == 1) | is_pause
    has_own, has_opponent = (~np.isnan(found.paddles[name]) for name in ("own", "opponent"))
    return np.stack([has_ball, has_own, has_opponent | is_pause], axis=1)
