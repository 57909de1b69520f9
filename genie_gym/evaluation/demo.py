"""A few hundred imagined steps as a film and a contact sheet."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from einops import pack
from jaxtyping import UInt8

from genie_gym.agents.games import OPENING_STEPS, opening, real_env
from genie_gym.agents.policy import Policy
from genie_gym.errors import ConfigError
from genie_gym.evaluation.video import contact_sheet, write_video


@runtime_checkable
class Player(Protocol):
    """What plays: an observation in, an action out."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the next action."""


class PolicyPlayer:
    """A trained policy as a player; it draws its actions.

    Args:
        policy: who plays.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._state: Any = None

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._policy.generator.manual_seed(int(rng.integers(2**63)))
        self._state = None

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the next action."""
        action, self._state = self._policy.predict(obs, self._state)
        return int(action)


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it."""

    frames: UInt8[np.ndarray, "T H W C"]
    rewards: list[float]
    num_episodes: int
    steps_per_second: float


def play(
    env: gym.Env[Any, Any],
    player: Player,
    num_steps: int,
    seed: int,
    options: dict[str, Any] | None = None,
) -> Played:
    """Play a number of steps, over several episodes if they end, timing the env alone.

    Args:
        env: what is played.
        player: who plays.
        num_steps: steps to play, at least 1.
        seed: of the first episode and of the player.
        options: of the first reset.

    Raises:
        ConfigError: there are no steps to play.
    """
    if num_steps < 1:
        raise ConfigError(f"steps must be at least 1, got {num_steps}")
    obs, _ = env.reset(seed=seed, options=options)
    rng = np.random.default_rng(seed)
    player.reset(rng)
    frames, rewards, seconds, num_episodes = [obs], [], 0.0, 1
    for _ in range(num_steps):
        action = player.act(obs)
        begin = time.perf_counter()
        obs, reward, terminated, truncated, _ = env.step(action)
        seconds += time.perf_counter() - begin
        frames.append(obs)
        rewards.append(float(reward))
        if terminated or truncated:
            obs, _ = env.reset()
            player.reset(rng)
            frames.append(obs)
            num_episodes += 1
    return Played(np.stack(frames), rewards, num_episodes, num_steps / seconds)


def play_beside_real(
    env: gym.Env[Any, Any], policy: Policy, num_steps: int, seed: int
) -> tuple[Played, Played]:
    """Let a policy play a world and the real game; return both, imagined first.

    The imagined game opens with the first frames of the real one.

    Raises:
        ConfigError: there are no steps to play.
        PolicyError: the policy was trained on other frames or actions than the world's.
    """
    policy.check_spaces(env.observation_space, env.action_space)
    player = PolicyPlayer(policy)
    with closing(real_env(policy)) as real:
        prompt = {"prompt": opening(real, seed), "actions": [0] * OPENING_STEPS}
        imagined = play(env, player, num_steps, seed, prompt)
        return imagined, play(real, player, num_steps, seed)


def side_by_side(
    left: UInt8[np.ndarray, "T H W C"], right: UInt8[np.ndarray, "other_T H W C"]
) -> UInt8[np.ndarray, "frames H both C"]:
    """Return frames of both with a black line between, as long as the shorter one."""
    num_frames = min(len(left), len(right))
    line = np.zeros_like(left[:num_frames, :, :2])
    joined, _ = pack([left[:num_frames], line, right[:num_frames]], "T H * C")
    return joined


def points(rewards: list[float]) -> str:
    """Return how many points were won and lost, as text.

    Example:
        >>> points([0.0, 1.0, -1.0, 0.0, 1.0])
        '2 points won, 1 lost'
    """
    won, lost = (sum(reward * sign > 0 for reward in rewards) for sign in (1, -1))
    return f"{won} points won, {lost} lost"


def write_demo(frames: UInt8[np.ndarray, "T H W C"], folder: Path, fps: float) -> tuple[Path, Path]:
    """Write `demo.mp4` with all frames and `demo.png` with 32 of them; return both paths."""
    film, sheet = folder / "demo.mp4", folder / "demo.png"
    write_video(film, frames, fps=fps)
    chosen = np.linspace(0, len(frames) - 1, 32).round().astype(int)
    labels = [str(index) for index in chosen]
    contact_sheet(sheet, frames[chosen], labels=labels)
    return film, sheet


def figure_lines(figures: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield a card's figures as text, a line for every group of numbers.

    Example:
        >>> list(figure_lines({"rollout": {"windows": 400, "by_step": {"1": {"psnr": 41.25}}}}))
        ['rollout: windows 400', '  by_step:', '    1: psnr 41.2']
    """
    for name, group in figures.items():
        if not isinstance(group, Mapping):
            yield f"{indent}{name} {_short(group)}"
            continue
        numbers = {key: value for key, value in group.items() if not isinstance(value, Mapping)}
        shown = ", ".join(f"{key} {_short(value)}" for key, value in numbers.items())
        yield f"{indent}{name}: {shown}".rstrip()
        groups = {key: value for key, value in group.items() if key not in numbers}
        yield from figure_lines(groups, indent + "  ")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_short(one) for one in value) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
