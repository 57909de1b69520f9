"""Speed of the learned environment: alone, many at once, and without pixels.

    python benchmarks/env_speed.py --world pong --threads 2

A frame costs a pass of the network for every refinement step, so each row is measured with the
world's own number of steps and with fewer. Whether a step's cost grows with the episode is measured
by steadiness.py.
"""

import argparse
import time
from collections.abc import Callable

import torch

from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.envs.world_env import GenieWorldEnv
from genie_gym.envs.world_vector_env import GenieWorldVectorEnv
from genie_gym.models.bundle import load_world

NUM_ENVS = 64
NUM_PLANS = 256
MIN_SECONDS = 4.0
"""Least time that a rate is measured over, after a warm-up."""


def rate(step: Callable[[], object], frames_a_step: int) -> float:
    """Return frames a second of repeated steps; the first ones, which warm up, do not count."""
    for _ in range(3):
        step()
    num_steps, spent = 0, 0.0
    while spent < MIN_SECONDS:
        start = time.perf_counter()
        step()
        spent += time.perf_counter() - start
        num_steps += 1
    return num_steps * frames_a_step / spent


def single_rate(config: WorldEnvConfig) -> float:
    """Return steps a second of one environment with pixels, resets included."""
    env = GenieWorldEnv(**options_of(config))
    env.action_space.seed(0)
    env.reset(seed=0)

    def step() -> None:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()

    return rate(step, 1)


def vector_rate(config: WorldEnvConfig) -> float:
    """Return frames a second of all slots of one vector environment together, pixels included."""
    envs = GenieWorldVectorEnv(NUM_ENVS, **options_of(config))
    envs.action_space.seed(0)
    envs.reset(seed=0)
    return rate(lambda: envs.step(envs.action_space.sample()), NUM_ENVS)


def planning_rate(config: WorldEnvConfig) -> float:
    """Return frames a second of `World.step` on a batch of plans: no pixels, no environment."""
    world = load_world(config.world or config.game.lower(), dtype=config.dtype)
    generator = torch.Generator().manual_seed(0)
    state = world.start(torch.arange(NUM_PLANS) % len(world.starts))

    def step() -> None:
        nonlocal state
        actions = torch.randint(world.num_actions, (NUM_PLANS,), generator=generator)
        steps = config.num_maskgit_steps
        state, _, _ = world.step(state, actions, generator, num_maskgit_steps=steps)

    return rate(step, NUM_PLANS)


def options_of(config: WorldEnvConfig) -> dict[str, str | int | None]:
    """Return the options that this benchmark sets, as an environment takes them."""
    names = ("game", "world", "dtype", "num_maskgit_steps")
    return {name: getattr(config, name) for name in names}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--game", default="Pong", help="the world's game")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--dtype", default="float32", help="precision: float32 or bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    default = load_world(options.world).config.dynamics.num_maskgit_steps
    steps = sorted({1, 2, default})
    print(f"{options.threads} threads, {options.dtype}; frames/s by refinement steps, {default} is")
    print("the world's own" + " " * 33 + "".join(f"{num_steps:9}" for num_steps in steps))
    rows = {
        "one environment, with pixels": single_rate,
        f"{NUM_ENVS} environments, with pixels": vector_rate,
        f"{NUM_PLANS} games of World.step, without pixels": planning_rate,
    }
    common = {"game": options.game, "world": options.world, "dtype": options.dtype}
    for name, measure in rows.items():
        configs = [WorldEnvConfig(**common, num_maskgit_steps=k) for k in steps]
        print(f"{name:48}" + "".join(f"{measure(config):9.1f}" for config in configs), flush=True)


if __name__ == "__main__":
    main()
