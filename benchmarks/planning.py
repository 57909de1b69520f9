"""Time of a planner's decision in a learned world, and where it goes.

    python benchmarks/planning.py --world pong --threads 2

A decision is one search of CEM from a start of the world: by default 64 plans of 12 steps in one
iteration. Wall time is what a player waits; processor time also tells on a busy machine. The split
is processor time, taken by a profiler in a run of its own, scaled to the time without one.
"""

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable

import torch

from genie_gym.envs.planning import WorldModel
from genie_gym.models.bundle import load_world
from planners import CEM, CEMConfig

PARTS = {
    "dynamics, the network": ("transformer.py", "step", "sampling.py"),
    "tokens of the next frame": ("sampling.py", "_draw", "sampling.py"),
    "reward model": ("reward.py", "step", "world.py"),
    "copies of states where plans part": ("state.py", "gather", "planning.py"),
    "planner": ("fitted.py", "_draw", "search.py"),
}
"""File and name of a function, and the file it is called from."""


def timed(decide: Callable[[], object], num_decisions: int) -> tuple[float, float]:
    """Return the median wall and processor time of a decision; the first two do not count."""
    walls, processors = [], []
    for _ in range(num_decisions + 2):
        wall, processor = time.perf_counter(), time.process_time()
        decide()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return sorted(walls[2:])[num_decisions // 2], sorted(processors[2:])[num_decisions // 2]


def split(decide: Callable[[], object]) -> dict[str, float]:
    """Return the share of the processor time that each part of a decision takes."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(decide)
    stats = pstats.Stats(profiler)
    shares = dict.fromkeys(PARTS, 0.0)
    for (file, _, name), (*_, callers) in stats.stats.items():  # type: ignore[attr-defined]
        for part, (of_file, of_name, called_from) in PARTS.items():
            if name == of_name and file.endswith(of_file):
                shares[part] += sum(
                    spent[3] for caller, spent in callers.items() if caller[0].endswith(called_from)
                )
    total = stats.total_tt  # type: ignore[attr-defined]
    shares = {part: spent / total for part, spent in shares.items()}
    return {**shares, "rest": 1 - sum(shares.values())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="precisions")
    parser.add_argument("--horizon", type=int, default=12, help="steps of a plan")
    parser.add_argument("--num-samples", type=int, default=64, help="plans of an iteration")
    parser.add_argument("--num-iterations", type=int, default=1, help="iterations of a search")
    parser.add_argument("--actions", type=int, nargs="+", default=[0, 2, 3], help="to plan with")
    parser.add_argument("--decisions", type=int, default=9, help="decisions to measure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config = CEMConfig(
        horizon=options.horizon,
        num_samples=options.num_samples,
        num_iterations=options.num_iterations,
        actions=tuple(options.actions),
    )
    print(f"{options.threads} threads; {config}")
    for dtype in options.dtype:
        world = load_world(options.world, dtype=dtype)
        model = WorldModel(world, world.start(torch.zeros(1, dtype=torch.int64)))

        def decide(model: WorldModel = model) -> object:
            return CEM(config, generator=torch.Generator().manual_seed(0)).plan(model)

        wall, processor = timed(decide, options.decisions)
        print(f"{dtype}: {wall:.3f} s a decision, {processor:.3f} s of the processor; of these")
        for part, share in split(decide).items():
            print(f"    {share * processor:6.3f} s  {share:4.0%}  {part}")


if __name__ == "__main__":
    main()
