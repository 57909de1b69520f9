"""Speed of the learned environment: alone, late in an episode, and many at once.

    python benchmarks/env_speed.py --world pong --threads 1

A step's cost must not grow with the episode: the ratio of its medians is near 1. `pixels` is the
share of a step that goes into drawing the frame, which planners can do without.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from genie_gym.envs.slots import Slots, WorldEnvConfig
from genie_gym.envs.world_env import GenieWorldEnv
from genie_gym.envs.world_vector_env import GenieWorldVectorEnv

NUM_STEPS = 200
EARLY, LATE, NUM_AROUND = 10, 1000, 51
NUM_ENVS = (1, 8, 32)


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def single_rate(world: str, game: str) -> float:
    """Return steps a second of one environment, resets included."""
    env = GenieWorldEnv(game, world=world)
    env.action_space.seed(0)
    env.reset(seed=0)

    def play() -> None:
        for _ in range(NUM_STEPS):
            *_, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()

    play()  # the first steps also pay for torch's own start
    return NUM_STEPS / seconds(play)


def vector_rate(world: str, game: str, num_envs: int) -> float:
    """Return steps a second of all slots of one vector environment together."""
    envs = GenieWorldVectorEnv(num_envs, game, world=world)
    envs.action_space.seed(0)
    envs.reset(seed=0)
    num_steps = max(NUM_STEPS // num_envs, 20)

    def play() -> None:
        for _ in range(num_steps):
            envs.step(envs.action_space.sample())

    play()
    return num_steps * num_envs / seconds(play)


def step_times(world: str, game: str) -> tuple[list[float], list[float]]:
    """Return seconds of the steps of one long game, and those of them that went into pixels."""
    # Slots go on after the end of a game, which an environment refuses.
    slots = Slots(WorldEnvConfig(game=game, world=world), num_slots=1)
    slots.np_randoms = [np.random.default_rng(0)]
    slots.reset(np.ones(1, np.bool_), np.full(1, -1))
    action = np.zeros(1, np.int64)
    steps, pixels = [], []
    for _ in range(LATE + NUM_AROUND):
        steps.append(seconds(lambda: slots.step(action)))
        pixels.append(seconds(slots.frames))
    return [step + pixel for step, pixel in zip(steps, pixels, strict=True)], pixels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--game", default="Pong", help="the world's game")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    print(f"one environment   {single_rate(options.world, options.game):8.1f} steps/s")
    steps, pixels = step_times(options.world, options.game)
    early, late = (
        1000 * statistics.median(steps[first : first + NUM_AROUND]) for first in (EARLY, LATE)
    )
    print(f"step {EARLY:5}        {early:8.2f} ms")
    print(f"step {LATE:5}        {late:8.2f} ms, {late / early:.2f} times step {EARLY}")
    print(f"pixels            {100 * sum(pixels) / sum(steps):8.1f} % of a step")
    for num_envs in NUM_ENVS:
        rate = vector_rate(options.world, options.game, num_envs)
        print(f"{num_envs:4} environments {rate:11.1f} steps/s")


if __name__ == "__main__":
    main()
