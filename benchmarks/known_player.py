"""Points of one player in the real game and in a learned world, by how the world is sampled.

    python benchmarks/known_player.py --world pong --settings 0.3x1 0.7x1 1.0x1 1.0x2
    python benchmarks/known_player.py --world pong --settings 1.0x1 1.0x2 --policy runs/ppo

A setting is temperature x refinement steps. The player is the recorder's scripted one, which sees
pixels alone and loses next to nothing in the real game: what it loses in imagination is the world's
fault. Or it is a trained policy. Real games begin at a reset, imagined ones in the world's start
contexts, and both go on after their ends. Points are those of 1,000 steps, with the standard error
over games.
"""

import argparse
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from collectors.policies import make_policy
from genie_gym.agents.policy import Policy, load_policy
from genie_gym.envs.real import RealEnv, frame_side
from genie_gym.envs.slots import Slots, WorldEnvConfig
from genie_gym.models.bundle import load_world

Points = Float64[np.ndarray, "two B"]
"""Points won and lost in each game."""


class Players(Protocol):
    """One player in every game."""

    def act(self, frames: UInt8[np.ndarray, "B H W C"]) -> Int64[np.ndarray, " B"]:
        """Return every player's action."""


class Scripted:
    """The recorder's scripted player, once a game."""

    def __init__(self, game: str, num_actions: int, num_games: int) -> None:
        self.players = [make_policy("scripted", game, num_actions) for _ in range(num_games)]
        for seed, player in enumerate(self.players):
            player.reset(np.random.default_rng(seed))

    def act(self, frames: UInt8[np.ndarray, "B H W C"]) -> Int64[np.ndarray, " B"]:
        """Ask each player."""
        return np.array(
            [player.act(frame) for player, frame in zip(self.players, frames, strict=True)]
        )


class Trained:
    """A policy, asked for all games at once; its actions are drawn."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.state = policy, None
        policy.generator.manual_seed(0)

    def act(self, frames: UInt8[np.ndarray, "B H W C"]) -> Int64[np.ndarray, " B"]:
        """Ask the policy; a game that begins anew has no mark of its own."""
        actions, self.state = self.policy.predict(frames, self.state)
        return actions


def play_real(
    game: str, frame_size: int | None, players: Players, games: int, steps: int
) -> Points:
    """Play the real game; return the points."""
    envs = [RealEnv(game, frame_size=frame_size) for _ in range(games)]
    frames = np.stack([env.reset(seed=seed)[0] for seed, env in enumerate(envs)])
    points = np.zeros((2, games))
    for _ in range(steps):
        for row, action in enumerate(players.act(frames)):
            frames[row], reward, terminated, truncated, _ = envs[row].step(action)
            points[:, row] += reward > 0, reward < 0
            if terminated or truncated:
                frames[row], _ = envs[row].reset()
    return points


def play_world(config: WorldEnvConfig, players: Players, games: int, steps: int) -> Points:
    """Play the learned world; return the points."""
    slots = Slots(config, games)
    slots.np_randoms = [np.random.default_rng(seed) for seed in range(games)]
    slots.reset(np.ones(games, np.bool_), np.arange(games) * len(slots.world.starts) // games)
    points = np.zeros((2, games))
    for _ in range(steps):
        rewards = slots.step(players.act(slots.frames())).rewards
        points += rewards > 0, rewards < 0
    return points


def show(name: str, points: Points, steps: int) -> None:
    """Print points of 1,000 steps."""
    rates = 1000 * points / steps
    won, lost = rates.mean(1)
    won_error, lost_error = rates.std(1, ddof=1) / points.shape[1] ** 0.5
    print(
        f"{name:>28}  won {won:5.2f} +- {won_error:.2f}  lost {lost:5.2f} +- {lost_error:.2f}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", default="pong", help="name or folder of a world")
    parser.add_argument("--policy", help="trained policy that plays instead of the scripted player")
    parser.add_argument("--settings", nargs="+", default=["1.0x1", "1.0x2"])
    parser.add_argument("--games", type=int, default=48, help="games side by side, 2 or more")
    parser.add_argument("--steps", type=int, default=600, help="steps of each")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    world, games, steps = load_world(options.world), options.games, options.steps
    game = world.config.game

    def players() -> Players:
        if options.policy:
            return Trained(load_policy(options.policy))
        return Scripted(game, world.num_actions, games)

    size = frame_side(world.config.height, world.config.width)
    show("the real game", play_real(game, size, players(), games, steps), steps)
    for setting in options.settings:
        temperature, num_steps = setting.split("x")
        config = WorldEnvConfig(
            game=game,
            world=options.world,
            dtype=options.dtype,
            temperature=float(temperature),
            num_maskgit_steps=int(num_steps),
        )
        points = play_world(config, players(), games, steps)
        show(f"temperature {temperature}, steps {num_steps}", points, steps)


if __name__ == "__main__":
    main()
