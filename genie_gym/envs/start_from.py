"""A world made from one picture: an environment whose every game begins there."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8

from genie_gym.envs.prompts import prompt_frames
from genie_gym.envs.world_env import ActionIndex, GenieWorldEnv
from genie_gym.games import world_id
from genie_gym.models.bundle import find_bundle, read_card

Frame = UInt8[np.ndarray, "H W C"]


class StartFrom(gym.Wrapper[Frame, ActionIndex, Frame, ActionIndex]):
    """Begins every game where `options` say, unless a reset names a start or a prompt itself."""

    def __init__(self, env: gym.Env[Frame, ActionIndex], options: dict[str, Any]) -> None:
        """Wrap a learned world; `options` are those of its reset."""
        super().__init__(env)
        self._options = options

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin a new game."""
        options = options or {}
        if not {"start", "prompt"} & options.keys():
            options = {**self._options, **options}
        return super().reset(seed=seed, options=options)


def create_environment(
    image: Any,
    world: str | Path = "pong",
    *,
    fit: str = "letterbox",
    sketch: bool | None = None,
    **options: Any,
) -> gym.Env[Frame, ActionIndex]:
    """Return a learned world as a Gymnasium environment that starts from a picture at every reset.

    Args:
        image: bytes, a path, a PIL image or an array: whatever `prompt_frames` reads, videos too.
        world: name, folder or hf:// repository of the world.
        fit: how a picture of another shape is brought to the world's size: "letterbox", "crop" or
            "stretch".
        sketch: whether the picture is a drawing of the game; found out by default.
        options: as of `gymnasium.make` for `GenieWorldEnv`: `device`, `temperature`, ...

    Raises:
        PromptError: the picture cannot be read, or is no drawing of the game.
        ConfigError: an option is unknown or out of its range.
        WorldError: there is no such world.

    Example:
        >>> env = create_environment(np.zeros((480, 640, 3), np.uint8), world="pong")
        >>> env.reset(seed=0)[0].shape
        (64, 64, 3)
    """
    game = read_card(find_bundle(world))["config"]["game"]
    env = gym.make(world_id(game), world=str(world), **options)
    learned = env.unwrapped
    assert isinstance(learned, GenieWorldEnv)
    frames = prompt_frames(image, learned.world, fit=fit, sketch=sketch)
    return StartFrom(env, {"prompt": frames})
