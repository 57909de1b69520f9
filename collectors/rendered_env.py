"""Any Gymnasium environment that renders pixels, seen as the recorder sees the real game."""

import importlib
import os
import sys
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import TimeLimit
from jaxtyping import Float32, UInt8

from collectors.settings import GYM_PREFIX
from genie_gym.errors import ConfigError, GameError


class RenderedEnv(gym.Env[UInt8[np.ndarray, "H W C"], Any]):
    """A Gymnasium environment whose observations are its rendered frames.

    ## Action Space

    `Discrete(n)`, counted from 0 whatever the environment's own first number is, or a bounded
    `Box` with one axis, float32. Other spaces cannot be recorded.

    ## Observation Space

    `Box(0, 255, (H, W, 3), uint8)`: the frame of `render_mode="rgb_array"`, resized with OpenCV's
    `INTER_AREA`. The environment's own observations are dropped.

    ## Rewards and Episode End

    The environment's own, unclipped; one action is one of its steps.

    ## Arguments

    Args:
        env_id: Gymnasium id.
        env_module: module to import first; it registers the id.
        frame_size: side of the square frame in pixels; None keeps the rendering's own size.
        max_episode_steps: steps after which an episode is truncated, if the environment does not
            end it earlier; None for no further limit.

    Raises:
        GameError: the environment cannot be made, cannot render, or has another action space.
        ConfigError: the module cannot be imported, or a number is out of its range.
    """

    def __init__(
        self,
        env_id: str,
        *,
        env_module: str | None = None,
        frame_size: int | None = 64,
        max_episode_steps: int | None = None,
    ) -> None:
        for name, value in (("frame_size", frame_size), ("max_episode_steps", max_episode_steps)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, or None, got {value}")
        if env_module is not None:
            _import(env_module)
        self.frame_size = frame_size
        self._env_id = env_id
        self._env = _make(env_id)
        if max_episode_steps is not None:
            self._env = TimeLimit(self._env, max_episode_steps)
        self.metadata = self._env.metadata
        self._own_space = self._env.action_space
        self.action_space = _recorded_space(self._own_space, env_id)
        # The first frame shows whether the environment can render at all, and its size.
        shape = self._first_frame(env_id).shape
        self.observation_space = Box(0, 255, shape, np.uint8)

    @property
    def action_meanings(self) -> list[str] | None:
        """The environment's own number of each discrete action; None for a Box."""
        if not isinstance(self._own_space, Discrete):
            return None
        start = int(self._own_space.start)
        return [str(start + action) for action in range(int(self._own_space.n))]

    @property
    def fps(self) -> float | int | None:
        """Steps in a second, if the environment states them."""
        return self.metadata.get("render_fps")

    def get_keys_to_action(self) -> dict[Any, int]:
        """Return the environment's own key table, with the actions counted from 0.

        Raises:
            GameError: it states none, or its actions are not Discrete.
        """
        if not isinstance(self._own_space, Discrete) or not self._env.has_wrapper_attr(
            "get_keys_to_action"
        ):
            raise GameError(
                f"{GYM_PREFIX}{self._env_id} cannot be played by keyboard: it needs Discrete "
                f"actions, and has {self._own_space}, and a method get_keys_to_action that names "
                "the keys. Take another --policy"
            )
        table = self._env.get_wrapper_attr("get_keys_to_action")()
        start = int(self._own_space.start)
        return {keys: int(action) - start for keys, action in table.items()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W C"], dict[str, Any]]:
        """Start an episode; return its first frame."""
        _, info = self._env.reset(seed=seed, options=options)
        return self._frame(), info

    def step(
        self, action: int | Float32[np.ndarray, " A"]
    ) -> tuple[UInt8[np.ndarray, "H W C"], float, bool, bool, dict[str, Any]]:
        """Take one step of the environment; return the frame after it."""
        own_action: Any
        if isinstance(self._own_space, Discrete):
            own_action = self._own_space.start + action
        else:
            own_action = np.asarray(action, self._own_space.dtype)
        _, reward, terminated, truncated, info = self._env.step(own_action)
        return self._frame(), float(reward), bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close the environment and its window."""
        self._env.close()

    def _first_frame(self, env_id: str) -> UInt8[np.ndarray, "H W C"]:
        try:
            self._env.reset(seed=0)
            frame: Any = self._env.render()
        except gym.error.Error as error:
            raise _cannot_record(env_id, f"it does not render: {error}") from error
        except Exception as error:
            if "mujoco" not in sys.modules:
                raise
            # Where its OpenGL library is missing, it raises whatever stands next on its way.
            raise _cannot_record(
                env_id,
                f"it does not render with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {error!r}. "
                "Without a screen MuJoCo needs MUJOCO_GL=egl and the library (Debian: apt install "
                "libegl1 libgl1)",
            ) from error
        shape: tuple[int, ...] = getattr(frame, "shape", ())
        dtype = getattr(frame, "dtype", None)
        if dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3:
            raise _cannot_record(
                env_id, f"its frames must be uint8 (H, W, 3), got {dtype or type(frame)} {shape}"
            )
        return self._frame()

    def _frame(self) -> UInt8[np.ndarray, "H W C"]:
        frame: Any = self._env.render()
        if self.frame_size is None:
            return np.array(frame)
        size = (self.frame_size, self.frame_size)
        return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"env_module {module!r} cannot be imported: {error}. Install it, or put its folder "
            "on PYTHONPATH"
        ) from error


def _make(env_id: str) -> gym.Env[Any, Any]:
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not has_screen:
        # Left to itself, Gymnasium opens a window for MuJoCo first, and dies of it.
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        # Gymnasium's checker prints advice for authors, into the recorder's progress bar.
        env: gym.Env[Any, Any] = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    # What a constructor raises when it knows no render_mode.
    except (gym.error.Error, ImportError, TypeError) as error:
        raise _cannot_record(env_id, f"it cannot be made: {error}") from error
    if "rgb_array" not in (modes := env.metadata.get("render_modes", [])):
        raise _cannot_record(env_id, f"it must render 'rgb_array', and renders {list(modes)}")
    return env


def _recorded_space(space: gym.Space[Any], env_id: str) -> Discrete | Box:
    """Return the space of the actions as they are recorded: int16 numbers or float32 vectors."""
    if isinstance(space, Discrete) and space.n <= np.iinfo(np.int16).max:
        return Discrete(int(space.n))
    is_vector = isinstance(space, Box) and len(space.shape) == 1 and space.dtype.kind == "f"
    if isinstance(space, Box) and is_vector and space.is_bounded():
        return Box(space.low.astype(np.float32), space.high.astype(np.float32))
    raise _cannot_record(
        env_id,
        f"its actions must be Discrete, or a Box of floats with one axis and finite bounds, got "
        f"{space}",
    )


def _cannot_record(env_id: str, reason: str) -> GameError:
    return GameError(
        f"{GYM_PREFIX}{env_id} cannot be recorded: {reason}. A module that registers an id is "
        "named with --env-module"
    )
