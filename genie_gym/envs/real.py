"""The real Atari game under the one preprocessing that every part of genie-gym shares."""

from dataclasses import dataclass
from typing import Any, SupportsIndex

import ale_py
import cv2
import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from jaxtyping import UInt8

from genie_gym.envs.keys import key_table
from genie_gym.errors import ConfigError, InvalidActionError
from genie_gym.games import game_of

gym.register_envs(ale_py)

RAW_FRAMES_PER_SECOND = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class RealState:
    """Everything that decides how a `RealEnv` goes on; what `get_state` gives."""

    emulator: ale_py.ALEState
    """Console, cartridge and the emulator's own random numbers."""
    np_random: dict[str, Any]
    """State of the environment's random generator."""
    screens: tuple[UInt8[np.ndarray, "H W C"], UInt8[np.ndarray, "H W C"]]
    """The last two raw frames, older first."""
    num_steps: int
    """Steps taken since the reset."""
    is_over: bool
    """Whether the episode has ended."""


class RealEnv(gym.Env[UInt8[np.ndarray, "H W C"], SupportsIndex]):
    """The real game, with the spaces and the preprocessing of its learned world.

    ## Description

    `ALE/<Game>-v5`, one raw emulator frame at a time, with every emulator option set here rather
    than by the id's defaults. A step holds one action for `frame_skip` raw frames.

    ## Action Space

    `Discrete(n)`: the game's minimal action set, in ALE's order (`action_meanings`).

    ## Observation Space

    `Box(0, 255, (H, W, 3), uint8)`: the pixelwise maximum of the last two raw frames (sprites that
    flicker stay visible), shrunk with OpenCV's `INTER_AREA`. Right after a reset, and when an
    episode ends, it is the newest raw frame alone.

    ## Rewards

    The sum of the raw frames' rewards, unclipped, as a Python float.

    ## Starting State

    A fresh game after `noop_max` or fewer raw frames of no-op, the number drawn uniformly from
    0..noop_max. At `sticky=0` the emulator is deterministic: these no-ops and the actions are all
    that tells two episodes apart.

    ## Episode Termination

    `terminated` when the game is over, also inside a skip. `truncated` only after
    `max_episode_steps` steps. A step after the end raises `gymnasium.error.ResetNeeded`.

    ## Information

    `lives` and `episode_frame_number` (raw frames since the game began).

    ## Arguments

    Args:
        game: name or id of an ALE game: "Pong", "ALE/Pong-v5".
        frame_size: side of the square observation in pixels; None keeps the console's (210, 160).
        frame_skip: raw frames per step; at least 1. Sixty raw frames make one second.
        max_pool: whether the last two raw frames are merged.
        sticky: probability, per *raw* frame, that the emulator repeats its previous action.
        noop_max: most raw no-op frames after a reset.
        render_mode: "rgb_array" gives the newest raw frame; "human" opens a window.
        max_episode_steps: steps after which an episode is truncated; None for no limit.

    Raises:
        GameError: ale-py has no such game.
        ConfigError: an option is out of its range.
    """

    # Not a ClassVar, because Gymnasium declares it so, and the frame rate depends on the skip.
    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        game: str,
        *,
        frame_size: int | None = 64,
        frame_skip: int = 4,
        max_pool: bool = True,
        sticky: float = 0.0,
        noop_max: int = 30,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.game = game_of(game)
        _check_options(frame_size, frame_skip, sticky, noop_max, max_episode_steps)
        self.frame_size = frame_size
        self.frame_skip = frame_skip
        self.max_pool = max_pool
        self.sticky = sticky
        self.noop_max = noop_max
        self.render_mode = render_mode
        self.max_episode_steps = max_episode_steps
        self.metadata = {**self.metadata, "render_fps": RAW_FRAMES_PER_SECOND // frame_skip}

        atari: Any = gym.make(
            f"ALE/{self.game}-v5",
            frameskip=1,
            repeat_action_probability=sticky,
            full_action_space=False,
            max_num_frames_per_episode=None,
            render_mode=render_mode,
        )
        self._atari = atari.unwrapped
        self.ale: ale_py.ALEInterface = self._atari.ale
        self._action_set = self.ale.getMinimalActionSet()

        height, width = (frame_size, frame_size) if frame_size else self.ale.getScreenDims()
        self.observation_space = gym.spaces.Box(0, 255, (height, width, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self._action_set))
        # Filled in place: fresh screens for every frame would cost a quarter of the speed.
        self._screen = self.ale.getScreenRGB()
        self._older_screen = self._screen.copy()
        self._fresh_game: tuple[ale_py.ALEState, UInt8[np.ndarray, "H W C"]] | None = None
        self._num_steps = 0
        self._is_over = True

    @property
    def action_meanings(self) -> list[str]:
        """Name of every action, in the order of the action space: "NOOP", "FIRE", ..."""
        return [action.name for action in self._action_set]

    @property
    def fps(self) -> float:
        """Steps in a second of the console's time."""
        return RAW_FRAMES_PER_SECOND / self.frame_skip

    def get_keys_to_action(self) -> dict[tuple[str | int, ...], int]:
        """Return the keys of every action, as `gymnasium.utils.play` reads them."""
        return key_table(self.game, self.action_meanings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[UInt8[np.ndarray, "H W C"], dict[str, Any]]:
        """Start a new game and wait a random number of raw no-op frames.

        Args:
            seed: fixes the number of no-ops, the emulator, and all later resets without a seed.
            options: none are known; ignored.
        """
        super().reset(seed=seed)
        self._begin_game(seed)
        num_noops = self.np_random.integers(self.noop_max + 1)
        for _ in range(num_noops):
            self.ale.act(ale_py.Action.NOOP)
            if self.ale.game_over():
                self.ale.reset_game()

        # A frame of the game before must not shine through the first one of this.
        if num_noops:
            self._look_afresh()
        self._num_steps = 0
        self._is_over = False
        return self._obs(), self._info()

    def step(
        self, action: SupportsIndex
    ) -> tuple[UInt8[np.ndarray, "H W C"], float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` raw frames, or until the game is over.

        Raises:
            InvalidActionError: the action is not one of the action space.
            gymnasium.error.ResetNeeded: the episode has not begun, or is over.
        """
        if not self.action_space.contains(action):
            last = len(self._action_set) - 1
            raise InvalidActionError(
                f"action must be an int in 0..{last} for {self.game}, got {action!r}. "
                f"Meanings: {self.action_meanings}"
            )
        if self._is_over:
            raise ResetNeeded("the episode has not begun or is over: call reset() before step()")

        reward, terminated = self.hold(action, is_watched=True)
        if terminated:
            self._look_afresh()

        self._num_steps += 1
        truncated = not terminated and self._num_steps == self.max_episode_steps
        self._is_over = terminated or truncated
        return self._obs(), reward, terminated, truncated, self._info()

    def hold(self, action: SupportsIndex, *, is_watched: bool = False) -> tuple[float, bool]:
        """Hold an action as a step does; return its reward and whether the game is over.

        This is the emulator's part of a step. Without a look at the screens it takes a sixth of
        the time; then there is no observation until `set_state`.
        """
        reward = 0.0
        for frames_left in reversed(range(self.frame_skip)):
            reward += float(self.ale.act(self._action_set[action]))
            if self.ale.game_over(with_truncation=False):
                return reward, True
            if is_watched and frames_left < 2:
                self._look()
        return reward, False

    def render(self) -> UInt8[np.ndarray, "H W C"] | None:
        """Return the newest raw frame, (210, 160, 3) for most games; None in human mode."""
        return self._screen.copy() if self.render_mode == "rgb_array" else None

    def get_state(self) -> RealState:
        """Return all that decides the future, so that `set_state` can go back to it."""
        return RealState(
            emulator=self.ale.cloneState(include_rng=True),
            np_random=dict(self.np_random.bit_generator.state),
            screens=(self._older_screen.copy(), self._screen.copy()),
            num_steps=self._num_steps,
            is_over=self._is_over,
        )

    def set_state(self, state: RealState) -> UInt8[np.ndarray, "H W C"]:
        """Go back to a state of the same game; return its observation."""
        self.ale.restoreState(state.emulator)
        self.np_random.bit_generator.state = state.np_random
        self._older_screen[:], self._screen[:] = state.screens
        self._num_steps = state.num_steps
        self._is_over = state.is_over
        return self._obs()

    def close(self) -> None:
        """Close the emulator and its window."""
        self._atari.close()

    def _begin_game(self, seed: int | None) -> None:
        """Switch the console on.

        Loading a cartridge takes as long as 250 steps and matters only to sticky actions, whose
        random numbers it seeds. Without them the first load of all is gone back to.
        """
        if self._fresh_game is None or self.sticky:
            self._atari.reset(seed=seed)
            self._look_afresh()
            self._fresh_game = self.ale.cloneState(include_rng=False), self._screen.copy()
            return
        state, screen = self._fresh_game
        # A state lacks what play leaves in the console's ports (Qbert, Tetris), and the screen.
        self.ale.reset_game()
        self.ale.restoreState(state)
        self._screen[:] = self._older_screen[:] = screen

    def _look(self) -> None:
        self._older_screen, self._screen = self._screen, self._older_screen
        self.ale.getScreenRGB(self._screen)

    def _look_afresh(self) -> None:
        self.ale.getScreenRGB(self._screen)
        self._older_screen[:] = self._screen

    def _obs(self) -> UInt8[np.ndarray, "H W C"]:
        screen = self._screen
        if self.max_pool:
            screen = np.maximum(self._older_screen, self._screen)
        if self.frame_size is None:
            return np.array(screen)
        size = (self.frame_size, self.frame_size)
        # ALE's own vector environment resizes in the same way, bit for bit.
        return np.asarray(cv2.resize(screen, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _info(self) -> dict[str, Any]:
        return {
            "lives": self.ale.lives(),
            "episode_frame_number": self.ale.getEpisodeFrameNumber(),
        }


def frame_side(height: int, width: int) -> int | None:
    """Return the `frame_size` of frames of this height and width.

    None where they are not square: such frames can only be the console's own.
    """
    return height if height == width else None


def _check_options(
    frame_size: int | None,
    frame_skip: int,
    sticky: float,
    noop_max: int,
    max_episode_steps: int | None,
) -> None:
    if frame_size is not None and frame_size < 1:
        raise ConfigError(f"frame_size must be at least 1, or None, got {frame_size}")
    if frame_skip < 1:
        raise ConfigError(f"frame_skip must be at least 1, got {frame_skip}")
    if not 0.0 <= sticky <= 1.0:
        raise ConfigError(f"sticky must be a probability in [0, 1], got {sticky}")
    if noop_max < 0:
        raise ConfigError(f"noop_max must be at least 0, got {noop_max}")
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ConfigError(f"max_episode_steps must be at least 1, or None, got {max_episode_steps}")
