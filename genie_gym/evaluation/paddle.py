"""Whether the own paddle of an imagined Pong goes where it is sent.

Measured on 20,000 recorded steps of mixed play (64 x 64 frames, skip 4):
- the paddle's centre lies between rows 10.6 and 58.0, and moves at most 7.31 rows a step;
- the first step of a new command may still go the old way, by up to 3.8 rows (the console's lag
  and the paddle's momentum); from the second one on it never does;
- of three equal commands with room to move, the last two move it by 5.1 to 7.2 rows a step, the
  right way in all of 525 windows; left alone for as long, it drifts by at most 1.1 rows a step.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, UInt8

from genie_gym.errors import DataError
from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, estimate
from genie_gym.evaluation.objects import find_objects
from genie_gym.evaluation.rollout import Heldout, roll_out
from genie_gym.models.world import ActionSource, World

WAYS = ("up", "still", "down")
"""Where the paddle can go."""
UP, STILL, DOWN = range(3)
COMMANDS = {
    "NOOP": STILL, "FIRE": STILL, "RIGHT": UP, "LEFT": DOWN, "RIGHTFIRE": UP, "LEFTFIRE": DOWN
}  # fmt: skip
"""Where Pong's actions send the own paddle."""
NUM_STEPS, LAG = 3, 1
"""Steps that a command is held, and the first ones of them that are not judged."""
MIN_STRIDE = 2.0
"""Rows a step that count as a move: more than drift, less than half of a commanded stride."""
TOP, BOTTOM, MAX_STRIDE = 10.6, 58.0, 7.4
"""Where the paddle's centre can be, and the most it moves in a step, in rows."""
TRIES = 10
"""Contexts looked at for each one with room; about half have it."""


def why_unseen(world: World) -> str | None:
    """Return why the paddle of a world's game cannot be followed; None if it can."""
    config = world.config
    if config.game != "Pong" or (config.height, config.width) != (64, 64):
        return (
            f"paddles are found in Pong at 64 x 64 only; this is {config.game} at "
            f"{config.height} x {config.width}"
        )
    names = world.card.get("action_meanings")
    if names is None or set(names) != set(COMMANDS):
        return f"the world's card must name Pong's actions, {list(COMMANDS)}; it says {names}"
    return None


def commands(world: World) -> Int64[np.ndarray, " actions"]:
    """Return where each action of a Pong world sends the paddle."""
    return np.array([COMMANDS[name] for name in world.card["action_meanings"]])


def own_row(frames: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " N"]:
    """Return the row of Pong's own paddle; NaN where it is not found."""
    return find_objects(frames, "Pong").paddles["own"]


def way(rows_a_step: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return UP, STILL or DOWN; NaN where the paddle was not found."""
    is_move = np.abs(rows_a_step) > MIN_STRIDE
    return np.asarray(STILL + np.sign(rows_a_step) * is_move, np.float64)


def way_between(
    before: UInt8[np.ndarray, "N H W C"], after: UInt8[np.ndarray, "N H W C"]
) -> Float[np.ndarray, " N"]:
    """Return where the paddle went between two neighbouring frames."""
    return way(own_row(after) - own_row(before))


def held_way(frames: UInt8[np.ndarray, "N T H W C"]) -> Float[np.ndarray, " N"]:
    """Return where the paddle went under a command held for NUM_STEPS, once the lag was over."""
    first, last = (own_row(frames[:, index]) for index in (LAG - 1, -1))
    return way((last - first) / (NUM_STEPS - LAG))


def has_room(
    row: Float[np.ndarray, " N"], command: Int[np.ndarray, " N"] | int
) -> Bool[np.ndarray, " N"]:
    """Return whether a paddle there cannot reach the field's end under a held command."""
    end = row + (np.asarray(command) - STILL) * MAX_STRIDE * NUM_STEPS
    return np.asarray((end >= TOP) & (end <= BOTTOM))  # NaN, a paddle not seen, has no room


def hold(
    world: World,
    heldout: Heldout,
    actions: Int64[np.ndarray, " held"],
    ways: Int64[np.ndarray, " held"],
    source: ActionSource,
    config: EvaluationConfig,
) -> tuple[Int64[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Hold each of some actions for NUM_STEPS, from contexts in which the paddle has room.

    Args:
        world: the world.
        heldout: where the contexts lie.
        actions: what to hold; the rollouts are shared out evenly.
        ways: where each action should send the paddle; it has room that way.
        source: whether the actions are of the game or latent.
        config: how many rollouts, and how they are drawn.

    Returns:
        For each rollout the index of its action in `actions`, and the way the paddle went, NaN if
        it was lost.

    Raises:
        DataError: no episode is long enough, or no context leaves the paddle room.
    """
    rng = np.random.default_rng(config.seed)
    count = max(config.num_windows // len(actions), 1)
    found = [_starts_with_room(heldout, int(way), count, config, rng) for way in ways]
    starts, held = np.concatenate(found), np.repeat(np.arange(len(actions)), [*map(len, found)])
    if len(starts) == 0:
        raise DataError("in no context has the paddle room to move. Record longer play")
    rollouts = roll_out(
        world,
        heldout,
        starts,
        context_length=config.context_length,
        horizon=NUM_STEPS,
        seed=config.seed,
        actions=np.repeat(actions[held, None], NUM_STEPS, axis=1),
        source=source,
        temperature=config.temperature,
        num_maskgit_steps=config.num_maskgit_steps,
    )
    return held, held_way(rollouts.imagined)


def obedience(world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return the share of rollouts in which the paddle goes the commanded way where it has room.

    A command is one UP- or DOWN-like action, held for three steps; the paddle obeys if the last
    two move it by more than two rows each, on average, the commanded way. `recorded` is the same
    for recorded play that happens to hold a command: what a perfect world scores.

    Raises:
        DataError: no episode is long enough, or no context leaves the paddle room.
    """
    command_of = commands(world)
    moving = np.flatnonzero(command_of != STILL)
    held, went = hold(world, heldout, moving, command_of[moving], "real", config)
    is_obeyed = went == command_of[moving][held]
    names = [world.card["action_meanings"][action] for action in moving]
    return {
        **estimate(is_obeyed),
        "by_action": {name: estimate(is_obeyed[held == i]) for i, name in enumerate(names)},
        "recorded": _recorded_obedience(heldout, command_of, config),
    }


def _starts_with_room(
    heldout: Heldout,
    command: int,
    count: int,
    config: EvaluationConfig,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " starts"]:
    """Draw windows whose last context frame leaves the paddle room to follow a command."""
    starts = heldout.windows.valid_starts(config.context_length + NUM_STEPS)
    starts = rng.choice(starts, min(TRIES * count, len(starts)), replace=False)
    now = heldout.rows.frames[starts + config.context_length - 1]
    chosen = starts[has_room(own_row(now), command)][:count]
    return np.asarray(chosen, np.int64)


def _recorded_obedience(
    heldout: Heldout, command_of: Int64[np.ndarray, " actions"], config: EvaluationConfig
) -> Report:
    starts = heldout.windows.valid_starts(1 + NUM_STEPS)
    assert heldout.rows.actions is not None
    held = command_of[heldout.rows.actions[starts[:, None] + np.arange(NUM_STEPS)]]
    is_held = (held == held[:, :1]).all(axis=1) & (held[:, 0] != STILL)
    starts, command = starts[is_held], held[is_held, 0]
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(len(starts))[: TRIES * config.num_windows]
    starts, command = starts[chosen], command[chosen]
    room = has_room(own_row(np.asarray(heldout.rows.frames[starts])), command)
    shown = heldout.windows.clip(starts[room], 1 + NUM_STEPS).frames[:, 1:]
    return estimate(held_way(np.asarray(shown)) == command[room])
