"""Whether a long game stays as fast and as small as it began: Linux only, by /proc.

    python benchmarks/steadiness.py                                  # tiny world, minutes
    python benchmarks/steadiness.py --world pong --steps 10060

Games of `LATE` steps and some more are played one after another, without regard to their ends. The
cost of a step is a median over neighbouring steps of all games. Resident memory is read ten times,
after equal stretches; the first is the warm-up that the others are compared with.
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
from genie_gym.models.world import Starts

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


def play(world: str, game: str, num_steps: int) -> tuple[dict[int, list[float]], list[int]]:
    """Return seconds of the steps around `EARLY` and `LATE`, and the memory after each stretch."""
    # Slots go on after the end of a game, which an environment refuses.
    slots = Slots(WorldEnvConfig(game=game, world=world), num_slots=1)
    slots.np_randoms = [np.random.default_rng(0)]
    rng = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {EARLY: [], LATE: []}
    memory = []
    for step in range(num_steps):
        in_game = step % (LATE + NUM_AROUND)
        if in_game == 0:
            slots.reset(np.ones(1, np.bool_), np.full(1, -1))
        action = rng.integers(slots.world.num_actions, size=1)
        start = time.perf_counter()
        slots.step(action)
        slots.frames()
        duration = time.perf_counter() - start
        for first, durations in seconds.items():
            if first <= in_game < first + NUM_AROUND:
                durations.append(duration)
        if (step + 1) % (num_steps // NUM_STRETCHES) == 0:
            memory.append(resident_bytes())
    return seconds, memory[:NUM_STRETCHES]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", help="name or folder of a world (default: tiny, untrained)")
    parser.add_argument("--game", default="Pong", help="the world's game")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of all games together")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    if options.steps < LATE + NUM_AROUND:
        parser.error(f"--steps must be at least {LATE + NUM_AROUND}, got {options.steps}")
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory() as folder:
        if options.world is None:
            save_tiny_world(Path(folder))
        seconds, memory = play(options.world or folder, options.game, options.steps)
    early, late = (1000 * statistics.median(seconds[step]) for step in (EARLY, LATE))
    print(f"step {EARLY:6}         {early:8.2f} ms")
    print(f"step {LATE:6}         {late:8.2f} ms, {late / early:.3f} times step {EARLY}")
    stretch = options.steps // NUM_STRETCHES
    for index, num_bytes in enumerate(memory, 1):
        size, ratio = num_bytes / 2**20, num_bytes / memory[0]
        print(f"after {index * stretch:7} steps {size:8.1f} MiB, {ratio:.4f} of the first")
    growth = (memory[-1] - memory[0]) / (stretch * (NUM_STRETCHES - 1))
    print(f"growth             {growth:8.1f} bytes a step after the warm-up")


if __name__ == "__main__":
    main()
