"""Rewards and ends: found, told for nothing, biased, calibrated.

An event is told where a reward other than 0 is the world's likeliest class, or the end likelier
than not; it is found if it is told within two steps of the real one. Over rollouts of k steps,
- recall is measured in windows laid around events, each at a step drawn uniformly from 1 to k;
- precision, bias and calibration are measured in windows drawn uniformly from all play, so that
  quiet play has its true weight.
Teacher-forced, every step is imagined from real frames alone.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int64

from genie_gym.data.windows import EpisodeWindows
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, mean_or_none
from genie_gym.evaluation.events import (
    END,
    TOLERANCE,
    event_kinds,
    match,
    real_events,
    reward_rows,
    told_events,
)
from genie_gym.evaluation.game_length import game_length
from genie_gym.evaluation.rollout import Heldout, Rollouts, roll_out
from genie_gym.models.world import World

HORIZONS = (1, 5, 10, 20)
"""Lengths of the free rollouts that are looked at."""
NUM_BINS = 10
STEP_FIELDS = (
    "actions real imagined tokens rewards terminations reward_probs terminated_prob".split()
)

Roll = Callable[[Heldout, Int64[np.ndarray, " N"], int], Rollouts]
"""From a held-out recording, first rows and a number of steps to rollouts."""


def rewards(world: World, heldout: Heldout, uniform: Rollouts, config: EvaluationConfig) -> Report:
    """Return the figures teacher-forced and over rollouts of 1, 5, 10 and 20 steps.

    Args:
        world: the world.
        heldout: the real game.
        uniform: free rollouts of `config.horizon` steps from contexts drawn uniformly.
        config: how much to measure.
    """
    if reason := heldout.why_no_rewards:
        return {"reason": reason}

    def free(heldout: Heldout, starts: Int64[np.ndarray, " N"], num_steps: int) -> Rollouts:
        return roll_out(
            world,
            heldout,
            starts,
            context_length=config.context_length,
            horizon=num_steps,
            seed=config.seed,
            temperature=config.temperature,
            num_maskgit_steps=config.num_maskgit_steps,
        )

    def forced(heldout: Heldout, starts: Int64[np.ndarray, " N"], num_steps: int) -> Rollouts:
        every = (starts[:, None] + np.arange(num_steps)).ravel()
        return join_steps(free(heldout, every, 1), num_steps)

    report: Report = {"teacher_forced": {"reason": "forced_windows is 0"}, "by_step": {}}
    if config.forced_windows:
        some = forced(heldout, uniform.starts[: config.forced_windows], config.horizon)
        middle = range(TOLERANCE + 1, TOLERANCE + 2)
        report["teacher_forced"] = _figures(world, heldout, some, forced, middle, config)
    for k in sorted({k for k in HORIZONS if k < config.horizon} | {config.horizon}):
        some = first_steps(uniform, k)
        report["by_step"][k] = _figures(world, heldout, some, free, range(1, k + 1), config)
    report["episode_length"] = game_length(world, heldout, config)
    return report


def join_steps(singles: Rollouts, num_steps: int) -> Rollouts:
    """Make windows of single steps into rollouts of which every step was imagined on its own."""
    joined = {
        name: rearrange(getattr(singles, name), "(N T) 1 ... -> N T ...", T=num_steps)
        for name in STEP_FIELDS
    }
    starts, context = singles.starts[::num_steps], singles.context[::num_steps]
    return replace(singles, starts=starts, context=context, **joined)


def first_steps(rollouts: Rollouts, num_steps: int) -> Rollouts:
    """Return the beginning of rollouts."""
    return replace(
        rollouts, **{name: getattr(rollouts, name)[:, :num_steps] for name in STEP_FIELDS}
    )


def game_ends(heldout: Heldout, length: int) -> tuple[Heldout, Int64[np.ndarray, " ends"]]:
    """Return the last `length` rows of finished games, each followed by as many stills.

    Nothing is recorded after a game's end, but a world may tell it late: so that its rollouts can
    go on, the last frame is repeated, under action 0.

    Returns:
        These rows, a game an episode, and the row of the action that ended each.
    """
    rows = heldout.rows
    assert rows.actions is not None and rows.rewards is not None and rows.terminations is not None
    last = np.flatnonzero(rows.terminations) + 1
    last = last[fits(heldout, last + 1 - length, length)]
    if not len(last):
        return heldout, last
    offsets = np.arange(1 - length, length + 1)
    at = (last[:, None] + np.minimum(offsets, 0)).ravel()
    is_still = np.tile(offsets >= 0, len(last))
    tails = replace(
        rows,
        frames=rows.frames[at],
        episode_ids=np.repeat(np.arange(len(last)), len(offsets)),
        actions=np.where(is_still, 0, rows.actions[at]).astype(np.int16),
        rewards=rows.rewards[at],
        terminations=rows.terminations[at],
        truncations=None,
    )
    ends = len(offsets) * np.arange(len(last)) + length - 2
    return Heldout(heldout.path, tails, EpisodeWindows(tails), len(last)), ends


def fits(
    heldout: Heldout, starts: Int64[np.ndarray, " N"], num_frames: int
) -> Bool[np.ndarray, " N"]:
    """Return which windows lie in one episode whole."""
    ids = heldout.rows.episode_ids
    ends = starts + num_frames - 1
    inside = (starts >= 0) & (ends < len(ids))
    return np.asarray(inside & (ids[starts.clip(0)] == ids[ends.clip(0, len(ids) - 1)]))


def _figures(
    world: World,
    heldout: Heldout,
    uniform: Rollouts,
    roll: Roll,
    steps: range,
    config: EvaluationConfig,
) -> Report:
    """Return the figures of one way to roll out.

    Args:
        world: the world.
        heldout: the real game.
        uniform: rollouts from contexts drawn uniformly from it.
        roll: makes the rollouts around events.
        steps: at which of their steps events may lie.
        config: how much to measure.
    """
    first = uniform.starts + uniform.context.shape[1] - 1
    real = real_events(world, heldout, first, uniform.actions.shape[1])
    told = told_events(world, uniform)
    report: Report = {}
    for kind in event_kinds(world):
        _, right = match(real[kind], told[kind])
        precision = mean_or_none(right[told[kind]])
        recall = _recall(world, heldout, kind, roll, steps, config)
        report[kind] = {
            "told": int(told[kind].sum()),
            "precision": precision,
            **recall,
            "f1": f1_score(precision, recall["recall"]),
        }
        if precision is None:
            report[kind].setdefault("reason", "the world told none in uniformly drawn play")

    classes = world.reward_classes.cpu().numpy()
    assert uniform.rewards is not None
    bias = (uniform.reward_probs @ classes - uniform.rewards).mean(1)
    # Steps of one rollout hang together; rollouts hardly do.
    error = float(bias.std(ddof=1) / len(bias) ** 0.5) if len(bias) > 1 else None
    report |= {"windows": len(bias), "bias": float(bias.mean()), "bias_standard_error": error}
    prob = 1 - uniform.reward_probs[..., classes == 0].sum(-1)
    report["calibration"] = calibration(prob.ravel(), uniform.rewards.ravel() != 0)
    return report


def _recall(
    world: World,
    heldout: Heldout,
    kind: str,
    roll: Roll,
    steps: range,
    config: EvaluationConfig,
) -> Report:
    """Return how many real events of a kind were looked for, and the share that was found."""
    num_steps = steps[-1] + TOLERANCE
    length = config.context_length + num_steps
    rng = np.random.default_rng(config.seed)
    if kind == END:
        source, rows = game_ends(heldout, length)
    else:
        source, rows = heldout, reward_rows(world, heldout, float(kind))
    rows = rng.permutation(rows)
    at = rng.integers(steps[0], steps[-1] + 1, len(rows))
    starts = rows - config.context_length + 2 - at
    chosen = np.flatnonzero(fits(source, starts, length))[: config.num_events]
    if not len(chosen):
        reason = f"no {kind} in the recording has {num_steps} steps around it"
        return {"events": 0, "recall": None, "reason": reason}
    starts, at = starts[chosen], at[chosen]
    real = real_events(world, source, starts + config.context_length - 1, num_steps)
    told = told_events(world, roll(source, starts, num_steps))
    found, _ = match(real[kind], told[kind])
    recall = float(found[np.arange(len(at)), TOLERANCE + at - 1].mean())
    return {"events": len(at), "recall": recall}


def calibration(prob: Float[np.ndarray, " steps"], happened: Bool[np.ndarray, " steps"]) -> Report:
    """Return how often a reward other than 0 came at steps that were told to earn one so likely.

    The expected calibration error is the mean distance of told and observed share over all steps.

    Source:
        Guo et al. 2017, "On calibration of modern neural networks", section 2; ten equal bins.
    """
    bins = np.minimum((prob * NUM_BINS).astype(int), NUM_BINS - 1)
    report: Report = {"bins": [], "expected_calibration_error": 0.0}
    for index in np.unique(bins):
        told = float(prob[bins == index].mean())
        observed = float(happened[bins == index].mean())
        steps = int((bins == index).sum())
        report["bins"].append({"steps": steps, "told": told, "observed": observed})
        report["expected_calibration_error"] += abs(told - observed) * steps / len(prob)
    return report


def f1_score(precision: float | None, recall: float | None) -> float | None:
    """Return the harmonic mean of the two; None where one is not known."""
    if precision is None or recall is None:
        return None
    return 2 * precision * recall / max(precision + recall, 1e-12)
