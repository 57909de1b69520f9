"""What the cache and few refinement steps are worth: the same weights, run without either.

    python benchmarks/textbook.py --world pong --threads 2 --data data/pong-tuning

The textbook way keeps nothing between passes: it recomputes the whole window at each of 25 MaskGIT
steps, with logits of every token of every frame. Two more rows take away what is easily saved: the
logits of the past frames, and then the steps beyond the world's own number, which leaves what the
cache is worth. All are given the same random window, and their logits must agree with the cache's
before anything is timed.

With `--data`, a recording of Pong that the world has not learned from, a second table shows what
fewer refinement steps cost: the ball's figures and the speed of free rollouts.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genie_gym.evaluation.object_figures import objects
from genie_gym.evaluation.rollout import open_heldout, roll_out
from genie_gym.models.bundle import load_world
from genie_gym.models.dynamics import Dynamics
from genie_gym.models.world import World
from genie_gym.nn.masking import confidence, draw_codes, num_hidden

TEXTBOOK_STEPS = 25
STEPS = (1, 2, 4, 8, TEXTBOOK_STEPS)
REPEATS = {1: 5, 64: 2}
"""Timed calls of every row by batch size, after one that warms up; their median is printed."""
TOLERANCE = 1e-4
CONTEXT, HORIZON = 8, 20


def textbook_logits(
    dynamics: Dynamics,
    past: Int[Tensor, "B T S"],
    actions: Int[Tensor, "B T+1"],
    tokens: Int[Tensor, "B S"],
    hidden: Bool[Tensor, "B S"],
    *,
    num_frames: int,
) -> Float[Tensor, "B frames S codes"]:
    """Return logits of the newest frames of a window whose last frame is partly hidden."""
    table = dynamics.code_embeddings()
    window = torch.cat([past, tokens[:, None]], dim=1)
    is_hidden = torch.cat([torch.zeros_like(past, dtype=torch.bool), hidden[:, None]], dim=1)
    last = torch.cat([past[:, :1], past], dim=1)
    shown = torch.where(is_hidden, last, window)
    embedded = F.embedding(shown, table) + is_hidden[..., None] * dynamics.mask_token
    joined = dynamics.join_group(dynamics.grid.join(embedded)) + dynamics.positions()
    features = dynamics.transformer(dynamics.add_action(joined, actions))[:, -num_frames:]
    return dynamics.to_logits(dynamics.split_groups(features), last[:, -num_frames:], table)


def textbook_sample(
    dynamics: Dynamics,
    past: Int[Tensor, "B T S"],
    actions: Int[Tensor, "B T+1"],
    *,
    num_frames: int,
    num_steps: int,
    generator: torch.Generator,
) -> Int[Tensor, "B S"]:
    """Return the next frame after some steps of MaskGIT, each of which computes everything anew."""
    tokens, hidden = past[:, -1], torch.ones_like(past[:, -1], dtype=torch.bool)
    for step in range(num_steps):
        logits = textbook_logits(dynamics, past, actions, tokens, hidden, num_frames=num_frames)
        logits, draws = logits[:, -1], torch.rand(tokens.shape, generator=generator)
        config = dynamics.config
        codes = draw_codes(logits, draws, config.temperature, config.least_odds)
        doubt = confidence(logits, codes).masked_fill(~hidden, torch.inf)
        tokens = torch.where(hidden, codes, tokens)
        order = doubt.argsort(-1).argsort(-1)
        hidden = hidden & (order < num_hidden(tokens.shape[1], step, num_steps))
    return tokens


def seconds(call: Callable[[], object], num_calls: int) -> float:
    """Return the median time of a call, after one that warms up."""
    times = []
    for _ in range(num_calls + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.inference_mode()
def compare(world: World, batch_size: int) -> None:
    """Check that all ways give the same logits, then print how long each takes for a frame."""
    dynamics, sampler, num_repeats = world.stack.dynamics, world.sampler, REPEATS[batch_size]
    generator = torch.Generator().manual_seed(0)
    # As many frames as the window holds, so that the cache remembers nothing that the window lacks.
    num_past = dynamics.config.transformer.temporal_window - 1
    num_codes, num_rows = len(sampler.table), dynamics.embed_action.num_embeddings
    shape = (batch_size, num_past + 1, dynamics.num_tokens)
    frames = torch.randint(num_codes, shape, generator=generator)
    past, tokens = frames[:, :-1], frames[:, -1]
    rows = torch.randint(num_rows, shape[:2], generator=generator)
    cache = dynamics.empty_cache(batch_size)
    for t in range(num_past - 1):
        cache = sampler.append(past[:, t], rows[:, t], cache)
    full = sampler.append(past[:, -1], rows[:, -2], cache)

    hidden = repeat(torch.arange(past.shape[2]) % 3 > 0, "S -> B S", B=batch_size)
    cached = sampler.logits(tokens, hidden, past[:, -1], rows[:, -1], full)
    difference = 0.0
    for num_frames in (num_past + 1, 1):
        logits = textbook_logits(dynamics, past, rows, tokens, hidden, num_frames=num_frames)
        difference = max(difference, (logits[:, -1] - cached).abs().max().item())
    if difference > TOLERANCE:
        raise SystemExit(f"logits differ by {difference:.1e}, allowed are {TOLERANCE:.0e}")
    print(f"batch {batch_size}, median of {num_repeats}: logits agree to {difference:.1e}")

    own_steps = dynamics.config.num_maskgit_steps
    textbook = partial(textbook_sample, dynamics, past, rows, generator=generator)
    by_cache = partial(
        sampler.sample,
        past[:, -1],
        rows[:, -2],
        rows[:, -1],
        cache,
        temperature=dynamics.config.temperature,
        generator=generator,
    )
    every, newest = num_past + 1, 1
    calls: dict[str, Callable[[], object]] = {
        f"window anew, {TEXTBOOK_STEPS:2} steps, logits of {every} frames": partial(
            textbook, num_frames=every, num_steps=TEXTBOOK_STEPS
        )
    }
    for num_steps in (TEXTBOOK_STEPS, own_steps):
        calls[f"window anew, {num_steps:2} steps, logits of the last frame"] = partial(
            textbook, num_frames=newest, num_steps=num_steps
        )
    for num_steps in sorted({*STEPS, own_steps}):
        mark = ", the world's own number" if num_steps == own_steps else ""
        calls[f"cached, {num_steps:2} steps{mark}"] = partial(by_cache, num_steps=num_steps)

    base = None
    for name, call in calls.items():
        taken = seconds(call, num_repeats)
        base = base or taken
        print(
            f"  {name:48} {1000 * taken:10.1f} ms {batch_size / taken:9.1f}/s "
            f"{base / taken:7.1f} times as fast",
            flush=True,
        )


def judge(world: World, data: str, num_windows: int) -> None:
    """Print the ball's figures and the speed of free rollouts for each number of steps."""
    heldout = open_heldout(world, data)
    possible = np.random.default_rng(0).permutation(heldout.windows.valid_starts(CONTEXT + HORIZON))
    starts = possible[:num_windows]
    print(f"Speed includes encoding {CONTEXT} frames a rollout of {HORIZON}, and decoding.")
    print("steps  within 2 px at 1      10      20   lost at 20   frames/s")
    for num_steps in STEPS:
        start = time.perf_counter()
        rollouts = roll_out(
            world,
            heldout,
            starts,
            context_length=CONTEXT,
            horizon=HORIZON,
            num_maskgit_steps=num_steps,
        )
        rate = len(starts) * HORIZON / (time.perf_counter() - start)
        by_step = objects(world, [rollouts], "not asked for")["by_step"]
        near = [100 * by_step[step]["ball_within_2px"] for step in (1, 10, 20)]
        lost = 100 * by_step[20]["ball_lost"]
        shares = "".join(f"{share:8.1f}" for share in near)
        print(f"{num_steps:5}         {shares} %{lost:11.1f} %{rate:12.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--data", help="recording to judge the ball by; left out without")
    parser.add_argument("--windows", type=int, default=400, help="free rollouts to judge by")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    world = load_world(options.world)
    for batch_size in REPEATS:
        compare(world, batch_size)
    if options.data:
        judge(world, options.data, options.windows)


if __name__ == "__main__":
    main()
