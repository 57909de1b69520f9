"""Episodes of the learned world as small files: seed, start, actions; played back bit for bit."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import UInt8

from genie_gym.config import from_dict, to_dict
from genie_gym.envs.slots import WorldEnvConfig
from genie_gym.envs.world_env import ActionIndex, GenieWorldEnv
from genie_gym.errors import ConfigError, DataError, WorldError
from genie_gym.files import write_text
from genie_gym.models.world import World

REPLAY_VERSION = 2

Frame = UInt8[np.ndarray, "H W C"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """One episode: all that its frames follow from."""

    seed: int
    """Seed of the reset it began with."""
    start: int
    """Index of its start context."""
    actions: tuple[int, ...]
    """Actions, first to last."""
    env: WorldEnvConfig
    """Options of the environment."""
    world_hash: str
    """What `world_hash` gave for its world."""
    version: int = REPLAY_VERSION
    """Version of the file format."""


class RecordReplay(gym.Wrapper[Frame, ActionIndex, Frame, ActionIndex]):
    """Notes what is played in a learned world; `replay()` gives the episode so far.

    A reset without a seed is given one, drawn from the environment's own random numbers, because an
    episode can only be replayed from a seed.
    """

    def __init__(self, env: gym.Env[Frame, ActionIndex]) -> None:
        """Wrap a learned world; other wrappers may lie between.

        Raises:
            ConfigError: the environment is not a `GenieWorldEnv`.
        """
        super().__init__(env)
        if not isinstance(env.unwrapped, GenieWorldEnv):
            raise ConfigError(f"only a GenieWorldEnv can be replayed, got {env.unwrapped}")
        self._game = env.unwrapped
        self._world_hash = world_hash(self._game.world)
        self._seed = 0
        self._start: int | None = None
        self._actions: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin a new episode and forget the one before."""
        self._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        obs, info = super().reset(seed=self._seed, options=options)
        self._start = info.get("start")
        self._actions = []
        return obs, info

    def step(self, action: ActionIndex) -> tuple[Frame, Any, bool, bool, dict[str, Any]]:
        """Take a step and note its action."""
        result = super().step(action)
        self._actions.append(int(action))
        return result

    def replay(self) -> Replay:
        """Return the episode so far.

        Raises:
            DataError: it has not begun, or began from a prompt, which a replay does not hold.
        """
        if self._start is None:
            raise DataError("a replay needs an episode that was reset to a bundled start context")
        return Replay(
            seed=self._seed,
            start=self._start,
            actions=tuple(self._actions),
            env=self._game.config,
            world_hash=self._world_hash,
        )


def world_hash(world: World) -> str:
    """Return a SHA-256 of all that an imagined frame follows from: config, weights and starts."""
    digest = hashlib.sha256(json.dumps(to_dict(world.config), sort_keys=True).encode())
    tensors = {
        name: tensor
        for name, tensor in world.stack.state_dict().items()
        if name.split(".")[0] in world.parts  # the others are not stored, hence not fixed
    }
    tensors |= {"starts/tokens": world.starts.tokens, "starts/actions": world.starts.actions}
    for name in sorted(tensors):
        digest.update(name.encode())
        values = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_replay(path: str | Path, replay: Replay) -> None:
    """Write an episode as JSON; the file appears under its name only when it is whole."""
    write_text(Path(path), json.dumps(to_dict(replay), indent=1) + "\n")


def load_replay(path: str | Path) -> Replay:
    """Read an episode.

    Raises:
        DataError: the file is missing, is not such an episode, or is of another version.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"replay {path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"replay {path} must hold an object, got {type(content).__name__}")
    if content.get("version") != REPLAY_VERSION:
        raise DataError(
            f"replay {path} has version {content.get('version')!r}; this genie_gym reads "
            f"{REPLAY_VERSION}. Record the episode again"
        )
    try:
        return from_dict(Replay, content, "replay")
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def play_back(replay: Replay) -> UInt8[np.ndarray, "frames H W C"]:
    """Return the frames of an episode, one more than it has actions.

    Raises:
        WorldError: the world is absent, or not the one that the episode was played in.
        DataError: the game is over before the actions are.
    """
    env = GenieWorldEnv(**dataclasses.asdict(replay.env))
    found = world_hash(env.world)
    if found != replay.world_hash:
        name = replay.env.world or replay.env.game
        raise WorldError(
            f"the replay was played in the world {replay.world_hash}, but {name!r} is now {found}. "
            "Find the former world, or record the episode again"
        )
    obs, _ = env.reset(seed=replay.seed, options={"start": replay.start})
    frames = [obs]
    is_over = False
    for action in replay.actions:
        if is_over:
            raise DataError(
                f"the replay has {len(replay.actions)} actions, but its game is over after "
                f"{len(frames) - 1}"
            )
        obs, _, terminated, truncated, _ = env.step(action)
        frames.append(obs)
        is_over = terminated or truncated
    return np.stack(frames)
