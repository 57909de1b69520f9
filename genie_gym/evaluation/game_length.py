"""How long whole games last in the world, beside the real ones that began in the same way."""

import numpy as np
import torch
from jaxtyping import Bool, Int64

from genie_gym.evaluation.config import EvaluationConfig
from genie_gym.evaluation.estimates import Report, missing, ratio, spread
from genie_gym.evaluation.rollout import Heldout
from genie_gym.models.world import World


def game_length(world: World, heldout: Heldout, config: EvaluationConfig) -> Report:
    """Return the steps of real and imagined games, from their first action to their end.

    Measured on at most `long_windows` finished games that end within `long_horizon` steps of their
    context. The world sees the first `context_length` frames; then it is played with the recorded
    actions, and behind the real end with others of the same game, drawn anew. A game that it has
    not ended after `long_horizon` steps counts as that long, and as one of `not_ended`.
    """
    if not config.long_windows:
        return missing("long_windows is 0")
    first, lengths = finished_games(heldout)
    past = config.context_length - 1
    is_short = (lengths > past) & (lengths <= past + config.long_horizon)
    if not is_short.any():
        median = f": here {np.median(lengths):.0f} steps in the median" if len(lengths) else ""
        return missing(f"no finished game ends within {config.long_horizon} steps{median}")
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(np.flatnonzero(is_short))[: config.long_windows]
    real = lengths[chosen]
    imagined, has_ended = _play(world, heldout, first[chosen], real, config)
    return {
        "games": len(chosen),
        "longer_games": int((lengths > past + config.long_horizon).sum()),
        "real": spread(real.astype(float)),
        "imagined": spread(imagined.astype(float)),
        "imagined_to_real": ratio(imagined.astype(float), real.astype(float)),
        "not_ended": int((~has_ended).sum()),
    }


def finished_games(heldout: Heldout) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """Return the first row and the number of actions of every game that was played to its end."""
    rows = heldout.rows
    assert rows.terminations is not None
    starts = np.flatnonzero(np.diff(rows.episode_ids, prepend=rows.episode_ids[0] - 1))
    last = np.flatnonzero(rows.terminations)
    first = starts[np.searchsorted(starts, last, side="right") - 1]
    return first, last - first + 1


def _play(
    world: World,
    heldout: Heldout,
    first: Int64[np.ndarray, " N"],
    real: Int64[np.ndarray, " N"],
    config: EvaluationConfig,
) -> tuple[Int64[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Return how long each imagined game lasted, and whether it came to its end."""
    past = config.context_length - 1
    most = past + config.long_horizon
    rng, generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    assert heldout.rows.actions is not None
    actions = np.empty((len(first), most), np.int64)
    for row, start, num_actions in zip(actions, first, real, strict=True):
        taken = heldout.rows.actions[start : start + num_actions]
        row[:num_actions], row[num_actions:] = taken, rng.choice(taken, most - num_actions)
    frames = np.stack([heldout.rows.frames[row : row + past + 1] for row in first])
    state = world.encode(torch.from_numpy(frames), torch.from_numpy(actions[:, :past]))
    lengths = np.full(len(first), most)
    has_ended = np.zeros(len(first), bool)
    for step in range(past, most):
        state, _, terminated_prob = world.step(
            state,
            torch.from_numpy(actions[:, step]),
            generator,
            temperature=config.temperature,
            num_maskgit_steps=config.num_maskgit_steps,
        )
        is_end = (terminated_prob.cpu().numpy() > 0.5) & ~has_ended
        lengths[is_end] = step + 1
        has_ended |= is_end
        if has_ended.all():
            break
    return lengths, has_ended
