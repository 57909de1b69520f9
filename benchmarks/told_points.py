"""Share of a recording's points that a world tells, imagined from a few frames before each.

    python benchmarks/told_points.py --world pong --data data/agents --ahead 4 8 20

The recorded actions are played on from real frames, until some steps after the point. A world that
knows this play tells nearly all; where it tells fewer points lost than points won, it is kind to
the player, and an agent finds that. A point is told when its chances add up to more than a half.
Errors are the standard errors of a share.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from genie_gym.data.hdf5 import Recording
from genie_gym.data.windows import Clip, EpisodeWindows
from genie_gym.errors import DataError
from genie_gym.models.bundle import load_world
from genie_gym.models.world import World

CONTEXT = 18
"""Real frames before the first imagined one; the bundled world remembers 17."""
AFTER = 12
"""Steps after a point in which it may still be told: a serve takes longer."""


def lonely_points(
    windows: EpisodeWindows, sign: int, ahead: int, num_points: int, generator: np.random.Generator
) -> Int64[np.ndarray, " starts"]:
    """Draw windows whose steps after the context hold one point: of this sign, the `ahead`th.

    Raises:
        DataError: there is none.
    """
    rewards = windows.rows.rewards
    assert rewards is not None
    num_frames = CONTEXT + ahead + AFTER
    starts = np.flatnonzero(np.sign(rewards) == sign) - (CONTEXT + ahead - 2)
    starts = np.intersect1d(starts, windows.valid_starts(num_frames))
    around = rewards[starts[:, None] + np.arange(CONTEXT - 1, num_frames - 1)]
    starts = starts[(around != 0).sum(1) == 1]
    if not len(starts):
        raise DataError(
            f"no reward of sign {sign} has {CONTEXT + ahead} frames of its game before it and no "
            f"other reward near it. Name a recording with more points, or less than {ahead} --ahead"
        )
    return np.asarray(generator.permutation(starts)[:num_points])


@torch.inference_mode()
def told(
    world: World, clip: Clip, sign: int, temperature: float, generator: torch.Generator
) -> Bool[Tensor, " B"]:
    """Return which points are told when the clips are imagined from their contexts on."""
    frames, actions = torch.from_numpy(clip.frames[:, :CONTEXT]), torch.from_numpy(clip.actions)
    state = world.encode(frames, actions[:, : CONTEXT - 1])
    is_sign = world.reward_classes.sign() == sign
    chances = torch.zeros(len(frames))
    for step_actions in actions.T[CONTEXT - 1 :]:
        imagined = world.imagine(state, step_actions, generator, temperature=temperature)
        state = imagined.state
        chances += imagined.prediction.reward_probs[:, is_sign].sum(-1)
    return chances > 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Imagine, and print a row for every number of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="recordings")
    parser.add_argument("--ahead", type=int, nargs="+", default=[4, 8, 20], help="steps before it")
    parser.add_argument("--points", type=int, default=200, help="points of each sign, at most")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the imagined frames")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    world = load_world(options.world)
    recording = Recording.join([Recording.open(path) for path in options.data])
    windows = EpisodeWindows(recording.load(in_memory=False))
    for ahead in options.ahead:
        shares = []
        for sign, name in ((-1, "lost"), (1, "won")):
            generator = np.random.default_rng(0)
            starts = lonely_points(windows, sign, ahead, options.points, generator)
            clip = windows.clip(starts, CONTEXT + ahead + AFTER)
            draws = torch.Generator().manual_seed(0)
            share = told(world, clip, sign, options.temperature, draws).double().mean().item()
            error = (share * (1 - share) / len(starts)) ** 0.5
            shares.append(f"{100 * share:5.1f} +- {100 * error:.1f} % of {len(starts)} {name}")
        print(f"{ahead:3d} steps before:  {',  '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
