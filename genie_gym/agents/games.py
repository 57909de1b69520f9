"""A policy's games, in the real game and in a world, from the same openings."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from genie_gym.agents.policy import Policy
from genie_gym.envs.real import RealEnv, frame_side
from genie_gym.envs.slots import Slots, WorldEnvConfig
from genie_gym.errors import ConfigError
from genie_gym.games import MAX_STEPS

NUM_PARALLEL = 8
"""Real games played at once, so that the network is asked once for all of them."""
OPENING_STEPS = 8
"""Real no-op steps that an imagined game begins with: the world must see how a game opens."""


@dataclass(frozen=True, slots=True)
class Games:
    """What a policy earned."""

    returns: Float64[np.ndarray, " games"]
    """Sum of a game's rewards."""
    lengths: Int64[np.ndarray, " games"]
    """Steps of a game."""
    num_cut: int
    """Games that were still going on at the limit of steps."""

    @property
    def points_per_1000(self) -> float:
        """Reward earned in 1,000 steps."""
        return float(1000 * self.returns.sum() / self.lengths.sum())

    def figures(self) -> dict[str, Any]:
        """Return all of it as plain numbers."""
        return {
            "games": len(self.returns),
            "mean_return": float(self.returns.mean()),
            "std_return": float(self.returns.std()),
            "returns": self.returns.tolist(),
            "mean_length": float(self.lengths.mean()),
            "lengths": self.lengths.tolist(),
            "points_per_1000_steps": self.points_per_1000,
            "cut_at_the_limit": self.num_cut,
        }


def play_real(
    policy: Policy,
    num_games: int,
    *,
    seed: int,
    sticky: float = 0.0,
    deterministic: bool = False,
    max_steps: int = MAX_STEPS,
    on_game: Callable[[], object] = lambda: None,
) -> Games:
    """Play full games of the real game: skip 4, maximum of 2 frames, up to 30 no-ops.

    Args:
        policy: who plays.
        num_games: games to play, at least 1; game k is reset with seed + k.
        seed: fixes the games and the policy's draws.
        sticky: probability, per raw frame, that the emulator repeats its previous action.
        deterministic: whether the likeliest action is taken instead of a drawn one.
        max_steps: steps after which a game is cut; 27,000 are half an hour, as is usual.
        on_game: called after every game.

    Raises:
        ConfigError: there are no games to play, or sticky is no probability.
        PolicyError: the policy was trained on other frames or actions than the game's.
    """
    _check_num_games(num_games)
    policy.generator.manual_seed(seed)
    with ExitStack() as stack:
        envs = [
            stack.enter_context(closing(real_env(policy, sticky, max_steps)))
            for _ in range(min(num_games, NUM_PARALLEL))
        ]
        policy.check_spaces(envs[0].observation_space, envs[0].action_space)
        returns, lengths = np.zeros((2, num_games))
        num_cut = 0
        playing = list(range(len(envs)))  # number of each env's game
        waiting = iter(range(len(envs), num_games))
        frames = [env.reset(seed=seed + game)[0] for env, game in zip(envs, playing, strict=True)]
        starts = np.ones(len(envs), np.bool_)
        state = None
        while any(game >= 0 for game in playing):
            actions, state = policy.predict(np.stack(frames), state, starts, deterministic)
            starts = np.zeros(len(envs), np.bool_)
            for row, (env, game) in enumerate(zip(envs, playing, strict=True)):
                if game < 0:
                    continue
                frames[row], reward, terminated, truncated, _ = env.step(actions[row])
                returns[game] += reward
                lengths[game] += 1
                if terminated or truncated:
                    num_cut += truncated
                    on_game()
                    playing[row] = next(waiting, -1)
                    if playing[row] >= 0:
                        frames[row], _ = env.reset(seed=seed + playing[row])
                        starts[row] = True
    return Games(returns, lengths.astype(np.int64), num_cut)


def play_imagined(
    policy: Policy,
    num_games: int,
    config: WorldEnvConfig,
    *,
    seed: int,
    deterministic: bool = False,
    on_step: Callable[[], object] = lambda: None,
) -> Games:
    """Play full games in a world, all at once, that open as real games do.

    Every game begins from a real reset, seeded as `play_real` seeds it, and `OPENING_STEPS` real
    no-ops. It ends when the world says so, or after `config.max_episode_steps` steps.

    Args:
        policy: who plays.
        num_games: games to play, at least 1.
        config: the world.
        seed: fixes the openings, what the world imagines, and the policy's draws.
        deterministic: whether the likeliest action is taken instead of a drawn one.
        on_step: called after every step of all games.

    Raises:
        ConfigError: there are no games to play, or they have no limit of steps.
        PolicyError: the policy was trained on other frames or actions than the world's.
        WorldError: there is no such world, or it is another game's, or lacks a reward model.
        DeviceError: the device is not there.
    """
    _check_num_games(num_games)
    if config.max_episode_steps is None:
        raise ConfigError("env.max_episode_steps must be a number: an imagined game may never end")
    slots = Slots(config, num_games)
    policy.check_spaces(slots.observation_space, slots.action_space)
    policy.generator.manual_seed(seed)
    slots.np_randoms = [np.random.default_rng(seed + game) for game in range(num_games)]
    with closing(real_env(policy)) as env:
        openings = np.stack([opening(env, seed + game) for game in range(num_games)])
    no_ops = torch.zeros(num_games, OPENING_STEPS, dtype=torch.int64)
    slots.reset_to(slots.world.encode(torch.from_numpy(openings), no_ops))

    returns, lengths = np.zeros((2, num_games))
    is_on = np.ones(num_games, np.bool_)
    is_cut = np.zeros(num_games, np.bool_)
    state = None
    while is_on.any():
        actions, state = policy.predict(slots.frames(), state, None, deterministic)
        outcome = slots.step(actions)
        returns += np.where(is_on, outcome.rewards, 0.0)
        lengths += is_on
        is_cut |= is_on & outcome.truncated & ~outcome.terminated
        is_on &= ~(outcome.terminated | outcome.truncated)
        on_step()
    return Games(returns, lengths.astype(np.int64), int(is_cut.sum()))


def opening(env: RealEnv, seed: int) -> UInt8[np.ndarray, "T H W C"]:
    """Return the first frames of a real game: its reset and `OPENING_STEPS` no-ops."""
    first, _ = env.reset(seed=seed)
    return np.stack([first, *(env.step(0)[0] for _ in range(OPENING_STEPS))])


def real_env(policy: Policy, sticky: float = 0.0, max_steps: int | None = None) -> RealEnv:
    """Return the real game of a policy, with frames of the size that it sees."""
    card = policy.card
    side = frame_side(card.height, card.width)  # check_spaces refuses frames of another size
    return RealEnv(card.game, frame_size=side, sticky=sticky, max_episode_steps=max_steps)


def _check_num_games(num_games: int) -> None:
    if num_games < 1:
        raise ConfigError(f"episodes must be at least 1, got {num_games}")
