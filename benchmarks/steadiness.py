"""Whether a long game stays as fast and as small as it began: Linux only, by /proc.

    python benchmarks/steadiness.py                                  # tiny world, minutes
    python benchmarks/steadiness.py --world pong --steps 10051

Games of 10,051 steps are played one after another, without regard to their ends. The cost of a step
is the median over it and the 50 steps after it, of all games. Resident memory is read after each of
ten equal stretches; the first is the warm-up that the others are compared with.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from genie_gym.config import from_dict, load_yaml
from genie_gym.envs.slots import Slots, WorldEnvConfig
from genie_gym.models.bundle import save_bundle
from genie_gym.models.stack import STAGES, GenieStack, StackConfig
from genie_gym.models.state import Starts

CONFIG = Path(__file__).parents[1] / "configs" / "tiny.yaml"
EARLY, LATE, NUM_AROUND = 10, 10_000, 51
NUM_STRETCHES = 10


def save_tiny_world(folder: Path) -> None:
    """Write a world of the preset tiny, with the weights that training would begin with."""
    config = from_dict(StackConfig, load_yaml(CONFIG)["stack"])
    torch.manual_seed(0)
    stack = GenieStack(config, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(
        config.tokenizer.quantizer.num_codes, (16, 4, stack.tokenizer.num_tokens)
    )
    starts = Starts(tokens, torch.randint(config.num_actions, (16, 3)))
    save_bundle(folder, stack=stack, starts=starts, parts=frozenset(STAGES), card={})


def resident_bytes() -> int:
    """Return how much of this process lies in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def play(world: str, game: str, num_steps: int, late: int) -> tuple[list[float], list[float]]:
    """Print the memory after each stretch; return seconds of the early and of the late steps."""
    # Slots go on after the end of a game, which an environment refuses.
    slots = Slots(WorldEnvConfig(game=game, world=world), num_slots=1)
    slots.np_randoms = [np.random.default_rng(0)]
    rng = np.random.default_rng(0)
    seconds = np.full(num_steps, np.nan)  # written now, so that it does not grow later
    stretch, first = num_steps // NUM_STRETCHES, 0
    for step in range(num_steps):
        if step % (late + NUM_AROUND) == 0:
            slots.reset(np.ones(1, np.bool_), np.full(1, -1))
        action = rng.integers(slots.world.num_actions, size=1)
        start = time.perf_counter()
        slots.step(action)
        slots.frames()
        seconds[step] = time.perf_counter() - start
        if (step + 1) % stretch == 0:
            memory = resident_bytes()
            first = first or memory
            size, ratio = memory / 2**20, memory / first
            print(f"after {step + 1:7} steps {size:8.1f} MiB, {ratio:.4f} of the first", flush=True)
    in_game = np.arange(num_steps) % (late + NUM_AROUND)
    early, late_ones = (
        seconds[(in_game >= step) & (in_game < step + NUM_AROUND)] for step in (EARLY, late)
    )
    return early.tolist(), late_ones.tolist()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", help="name or folder of a world (default: tiny, untrained)")
    parser.add_argument("--game", default="Pong", help="the world's game")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of all games together")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    late = min(LATE, options.steps - NUM_AROUND)
    if late < EARLY + NUM_AROUND:
        parser.error(f"--steps must be at least {EARLY + 2 * NUM_AROUND}, got {options.steps}")
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as folder:
        if options.world is None:
            save_tiny_world(Path(folder))
        seconds = play(options.world or folder, options.game, options.steps, late)
    first, last = (1000 * statistics.median(durations) for durations in seconds)
    print(f"step {EARLY:6} {first:8.2f} ms")
    print(f"step {late:6} {last:8.2f} ms, {last / first:.3f} times step {EARLY}")


if __name__ == "__main__":
    main()
