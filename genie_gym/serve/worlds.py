"""The worlds that a server was started with, and who may play them."""

import io
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from genie_gym.agents.policy import Policy, has_policy, load_policy
from genie_gym.data.batch import to_uint8
from genie_gym.envs.real import RealEnv, frame_side
from genie_gym.envs.replay import world_hash
from genie_gym.envs.slots import WorldEnvConfig, shared_world
from genie_gym.errors import ConfigError, WorldError, did_you_mean
from genie_gym.models.bundle import find_bundle, read_card
from genie_gym.models.state import WorldState
from genie_gym.models.world import World
from genie_gym.serve.config import ServeConfig
from genie_gym.serve.problems import UNKNOWN_WORLD, ProblemError

Decide = Callable[[WorldState], int]
"""A planner at one game: where the game stands in, an action out."""
PlannerFactory = Callable[[World, int], Decide]
"""Makes a planner for one game of a world, with a seed."""


@dataclass(frozen=True, slots=True)
class ServedWorld:
    """A loaded world, with what goes with it."""

    name: str
    env: WorldEnvConfig
    """Options of a new game."""
    world: World
    policy: Policy | None
    """Who else may play; its network is shared, its memory and random numbers are not."""
    planner: PlannerFactory | None
    has_real_game: bool
    """Whether the emulator's frames fit, so that the real game can be played beside it."""
    hash: str
    """What replay files name it by."""
    thumbnails: tuple[bytes, ...]
    """The first frame of every start, as PNG."""

    @property
    def fps(self) -> float:
        """Steps in a second of the game's own time."""
        return float(self.world.card.get("fps", 15.0))

    @property
    def action_meanings(self) -> list[str]:
        """Name of every real action; empty if not recorded."""
        return list(self.world.card.get("action_meanings", []))


def load_worlds(config: ServeConfig, planner: PlannerFactory | None) -> dict[str, ServedWorld]:
    """Return the worlds of a config by their names.

    Raises:
        ConfigError: two have the same name.
        WorldError: there is no such world, or it cannot be played.
        PolicyError: the policy is damaged, or fits none of the worlds.
        DeviceError: the device is not there.
    """
    worlds: dict[str, ServedWorld] = {}
    for source in config.worlds:
        served = _load(source, config, planner)
        if served.name in worlds:
            raise ConfigError(f"two worlds are called {served.name!r}. Rename the folder of one")
        worlds[served.name] = served
    return worlds


def find_world(worlds: dict[str, ServedWorld], name: str) -> ServedWorld:
    """Return a served world.

    Raises:
        ProblemError: none of them has this name.
    """
    if name not in worlds:
        known = sorted(worlds)
        raise ProblemError(
            UNKNOWN_WORLD,
            f"no world {name[:80]!r} is served.{did_you_mean(name[:80], known)} Served: {known}",
        )
    return worlds[name]


def png(frame: UInt8[np.ndarray, "H W C"]) -> bytes:
    """Return a frame as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def _load(source: str, config: ServeConfig, planner: PlannerFactory | None) -> ServedWorld:
    folder = find_bundle(source)
    name = folder.resolve().name if not source.startswith("hf://") else source.split("/")[-1]
    env = WorldEnvConfig(
        game=read_card(folder)["config"]["game"],
        world=source,
        device=config.device,
        dtype=config.dtype,
        max_episode_steps=config.max_steps,
    )
    world = shared_world(env)
    if "reward" not in world.parts:
        raise WorldError(
            f"{folder} has no trained 'reward' part, which playing needs. Train it: genie-gym "
            "train --stage reward, then export"
        )
    return ServedWorld(
        name=name,
        env=env,
        world=world,
        policy=_load_policy(folder, config, world),
        planner=planner,
        has_real_game=_has_real_game(world),
        hash=world_hash(world),
        thumbnails=_thumbnails(world),
    )


def _load_policy(folder: Path, config: ServeConfig, world: World) -> Policy | None:
    if config.policy is None and not has_policy(folder):
        return None
    policy = load_policy(folder if config.policy is None else config.policy, config.device)
    shape = (world.config.height, world.config.width, 3)
    policy.check_spaces(
        gym.spaces.Box(0, 255, shape, np.uint8), gym.spaces.Discrete(world.num_actions)
    )
    return policy


def _has_real_game(world: World) -> bool:
    size = (world.config.height, world.config.width)
    with closing(RealEnv(world.config.game, frame_size=frame_side(*size))) as env:
        return env.observation_space.shape == (*size, 3)


@torch.inference_mode()
def _thumbnails(world: World) -> tuple[bytes, ...]:
    frames = []
    for context in torch.split(world.starts.tokens, 32):
        decoded = world.stack.tokenizer.decode(context)[:, -1]
        frames.append(to_uint8(decoded.float()).cpu().numpy())
    return tuple(png(frame) for frame in np.concatenate(frames))
