"""A few hundred imagined steps as a film and a contact sheet."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8

from genie_gym.errors import ConfigError
from genie_gym.evaluation.video import contact_sheet, write_video


@runtime_checkable
class Player(Protocol):
    """What plays: an observation in, an action out."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return the next action."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it."""

    frames: UInt8[np.ndarray, "T H W C"]
    rewards: list[float]
    num_episodes: int
    steps_per_second: float


def play(env: gym.Env[Any, Any], player: Player, num_steps: int, seed: int) -> Played:
    """Play a number of steps, over several episodes if they end, timing the env alone.

    Raises:
        ConfigError: there are no steps to play.
    """
    if num_steps < 1:
        raise ConfigError(f"steps must be at least 1, got {num_steps}")
    obs, _ = env.reset(seed=seed)
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


def write_demo(played: Played, folder: Path, fps: float) -> tuple[Path, Path]:
    """Write `demo.mp4` with all frames and `demo.png` with 32 of them; return both paths."""
    film, sheet = folder / "demo.mp4", folder / "demo.png"
    write_video(film, played.frames, fps=fps)
    chosen = np.linspace(0, len(played.frames) - 1, 32).round().astype(int)
    labels = [str(index) for index in chosen]
    contact_sheet(sheet, played.frames[chosen], labels=labels)
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
