"""Rewards and ends that a world tells, matched with those of the real game."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64

from genie_gym.evaluation.rollout import Heldout, Rollouts
from genie_gym.models.world import World

TOLERANCE = 2
"""Steps that a told event may be early or late."""
END = "terminated"

Events = Mapping[str, Bool[np.ndarray, "N T"]]
"""For every kind of event, whether it happens at a step."""


def event_kinds(world: World) -> list[str]:
    """Return the rewards other than 0 that a step can earn, as text, and the end."""
    return [*(f"{value:+g}" for value in world.reward_classes.tolist() if value != 0), END]


def told_rewards(world: World, rollouts: Rollouts) -> Float32[np.ndarray, "N T"]:
    """Return the likeliest class of reward at every imagined step."""
    classes = world.reward_classes.cpu().numpy()
    return np.asarray(classes[rollouts.reward_probs.argmax(-1)], np.float32)


def told_events(world: World, rollouts: Rollouts) -> Events:
    """Return what the world tells: a reward that is its likeliest class, an end likelier than not.

    Steps are those of the rollouts, with `TOLERANCE` empty ones before and after.
    """
    margin = ((0, 0), (TOLERANCE, TOLERANCE))
    rewards = np.pad(told_rewards(world, rollouts), margin)
    return _by_kind(world, rewards, np.pad(rollouts.terminated_prob > 0.5, margin))


def real_events(
    world: World, heldout: Heldout, first: Int64[np.ndarray, " N"], num_steps: int
) -> Events:
    """Return what the real game did at `num_steps` steps, and `TOLERANCE` more before and after.

    Args:
        world: knows the classes of reward.
        heldout: the real game.
        first: row whose action is the first of these steps.
        num_steps: number of steps.
    """
    rows = heldout.rows
    assert rows.rewards is not None and rows.terminations is not None
    at = first[:, None] + np.arange(-TOLERANCE, num_steps + TOLERANCE)
    inside = (at >= 0) & (at < len(rows.rewards))
    at = at.clip(0, len(rows.rewards) - 1)
    inside &= rows.episode_ids[at] == rows.episode_ids[first][:, None]
    rewards = np.where(inside, _class_of(world, rows.rewards[at]), 0)
    return _by_kind(world, rewards, rows.terminations[at] & inside)


def reward_rows(world: World, heldout: Heldout, reward: float) -> Int64[np.ndarray, " rows"]:
    """Return the rows whose action earned a reward of this class."""
    assert heldout.rows.rewards is not None
    return np.flatnonzero(np.isclose(_class_of(world, heldout.rows.rewards), reward))


def match(
    real: Bool[np.ndarray, "N T"], told: Bool[np.ndarray, "N T"]
) -> tuple[Bool[np.ndarray, "N T"], Bool[np.ndarray, "N T"]]:
    """Return which real events were told within `TOLERANCE` steps, and which told ones were real.

    Each is used once: of two told events, one point makes only one right. Taking the earliest told
    one for each real one in turn leaves as few as possible unmatched.

    Example:
        >>> real = np.array([[False, True, False, False]])
        >>> told = np.array([[True, False, True, False]])
        >>> found, right = match(real, told)
        >>> found.sum(), right
        (np.int64(1), array([[ True, False, False, False]]))
    """
    found, right = np.zeros_like(real), np.zeros_like(told)
    for row, step in np.argwhere(real):
        first = max(step - TOLERANCE, 0)
        free = (told & ~right)[row, first : step + TOLERANCE + 1]
        if free.any():
            found[row, step] = True
            right[row, first + free.argmax()] = True
    return found, right


def _class_of(world: World, rewards: Float32[np.ndarray, "*rows"]) -> Float32[np.ndarray, "*rows"]:
    """Return the nearest reward that the world knows."""
    classes = world.reward_classes.cpu()
    nearest = world.stack.reward.nearest_class(torch.from_numpy(rewards))
    return classes[nearest.cpu()].numpy()


def _by_kind(
    world: World, rewards: Float32[np.ndarray, "N T"], ends: Bool[np.ndarray, "N T"]
) -> Events:
    *values, _ = event_kinds(world)
    return {kind: np.isclose(rewards, float(kind)) for kind in values} | {END: ends}
