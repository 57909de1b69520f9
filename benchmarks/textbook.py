"""What the cache and few refinement steps are worth: the same weights, run as open Genie code does.

    python benchmarks/textbook.py --world pong --threads 2 --data data/pong-tuning

The textbook way keeps nothing between passes: for each of 25 MaskGIT steps it embeds the whole
window, runs all of its frames through the network, and computes the logits of every token of every
frame. Both ways are given the same frames, and their logits must agree before anything is timed.

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
BATCH_SIZES = (1, 64)
TOLERANCE = 1e-4
CONTEXT, HORIZON = 8, 20


def textbook_logits(
    dynamics: Dynamics,
    past: Int[Tensor, "B T S"],
    actions: Int[Tensor, "B T+1"],
    tokens: Int[Tensor, "B S"],
    hidden: Bool[Tensor, "B S"],
) -> Float[Tensor, "B T+1 S codes"]:
    """Return logits of every token of a window whose last frame is partly hidden."""
    table = dynamics.code_embeddings()
    window = torch.cat([past, tokens[:, None]], dim=1)
    is_hidden = torch.cat([torch.zeros_like(past, dtype=torch.bool), hidden[:, None]], dim=1)
    last = torch.cat([past[:, :1], past], dim=1)
    shown = torch.where(is_hidden, last, window)
    embedded = F.embedding(shown, table) + is_hidden[..., None] * dynamics.mask_token
    joined = dynamics.join_group(dynamics.grid.join(embedded)) + dynamics.positions()
    features = dynamics.transformer(dynamics.add_action(joined, actions))
    return dynamics.to_logits(dynamics.split_groups(features), last, table)


def textbook_sample(
    dynamics: Dynamics,
    past: Int[Tensor, "B T S"],
    actions: Int[Tensor, "B T+1"],
    temperature: float,
    generator: torch.Generator,
) -> Int[Tensor, "B S"]:
    """Return the next frame after 25 steps of MaskGIT, each of which computes everything anew."""
    tokens, hidden = past[:, -1], torch.ones_like(past[:, -1], dtype=torch.bool)
    for step in range(TEXTBOOK_STEPS):
        logits = textbook_logits(dynamics, past, actions, tokens, hidden)[:, -1]
        codes = draw_codes(logits, torch.rand(tokens.shape, generator=generator), temperature)
        doubt = confidence(logits, codes).masked_fill(~hidden, torch.inf)
        tokens = torch.where(hidden, codes, tokens)
        order = doubt.argsort(-1).argsort(-1)
        hidden = hidden & (order < num_hidden(tokens.shape[1], step, TEXTBOOK_STEPS))
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
    """Check that both ways give the same logits, then print how long each takes for a frame."""
    dynamics, sampler = world.stack.dynamics, world.sampler
    # As many frames as the window holds, so that the cache remembers nothing that the window lacks.
    num_past = dynamics.config.transformer.temporal_window - 1
    starts = torch.arange(batch_size) % len(world.starts)
    past = world.starts.tokens[starts, :num_past]
    rows = dynamics.real_action_rows(world.starts.actions[starts, :num_past])
    rows = F.pad(rows, (1, 0))
    cache = dynamics.empty_cache(batch_size)
    for t in range(num_past - 1):
        cache = sampler.append(past[:, t], rows[:, t], cache)
    full = sampler.append(past[:, -1], rows[:, -2], cache)

    hidden = repeat(torch.arange(past.shape[2]) % 3 > 0, "S -> B S", B=batch_size)
    tokens = world.starts.tokens[starts, num_past]
    textbook = textbook_logits(dynamics, past, rows, tokens, hidden)[:, -1]
    cached = sampler.logits(tokens, hidden, past[:, -1], rows[:, -1], full)
    difference = (textbook - cached).abs().max().item()
    if difference > TOLERANCE:
        raise SystemExit(f"logits differ by {difference:.1e}, allowed are {TOLERANCE:.0e}")

    temperature, generator = dynamics.config.temperature, torch.Generator().manual_seed(0)

    def by_textbook() -> None:
        textbook_sample(dynamics, past, rows, temperature, generator)

    def by_cache(num_steps: int) -> None:
        sampler.sample(
            past[:, -1],
            rows[:, -2],
            rows[:, -1],
            cache,
            num_steps=num_steps,
            temperature=temperature,
            generator=generator,
        )

    base = seconds(by_textbook, 1 if batch_size > 1 else 5)
    print(f"batch {batch_size}: logits agree to {difference:.1e}")
    print(f"  textbook, {TEXTBOOK_STEPS:2} steps {1000 * base:10.1f} ms {batch_size / base:9.1f}/s")
    for num_steps in STEPS:
        time_taken = seconds(partial(by_cache, num_steps), 5)
        mark = " (the world's default)" if num_steps == dynamics.config.num_maskgit_steps else ""
        print(
            f"  cached, {num_steps:4} steps {1000 * time_taken:10.1f} ms "
            f"{batch_size / time_taken:9.1f}/s {base / time_taken:7.1f} times as fast{mark}"
        )


def judge(world: World, data: str, num_windows: int) -> None:
    """Print the ball's figures and the speed of free rollouts for each number of steps."""
    heldout = open_heldout(world, data)
    possible = np.random.default_rng(0).permutation(heldout.windows.valid_starts(CONTEXT + HORIZON))
    starts = possible[:num_windows]
    print("steps  within 2 px at 1      10      20   lost at 20   frames/s, decoded")
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
    for batch_size in BATCH_SIZES:
        compare(world, batch_size)
    if options.data:
        judge(world, options.data, options.windows)


if __name__ == "__main__":
    main()
