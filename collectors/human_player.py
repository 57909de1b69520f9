"""A person at the keyboard, as a policy of the recorder."""

import signal
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from genie_gym.errors import ConfigError

WINDOW_SIZE = 640
"""Longer side of the window, in pixels; it is smaller if no whole factor hits it."""
USUAL_FPS = 30.0
"""Where the environment states none; Gymnasium's own `play` takes the same."""
# Tables from before pygame 2 (Gymnasium's MountainCar) name the arrows by the codes of SDL 1.
NEW_ARROWS = {273: 0x40000052, 274: 0x40000051, 275: 0x4000004F, 276: 0x40000050}


@runtime_checkable
class PlayableEnv(Protocol):
    """What a person plays in."""

    observation_space: Any
    """`Box(0, 255, (H, W, 3), uint8)`."""

    @property
    def fps(self) -> float | int | None:
        """Steps in a second of real time; None if the environment does not say."""

    def get_keys_to_action(self) -> Mapping[Any, int]:
        """Return Gymnasium's key table: the keys held together, and their action."""


class HumanPlayer:
    """Shows every frame in a window and takes the action of the keys that are held down then.

    Of the key sets of the environment's table that are held, the largest decides; without any, the
    action is 0. A tap that is shorter than a frame counts for one. The Escape key and closing the
    window do what Ctrl-C does.

    A person cannot be played again from a seed: `reset` draws nothing from its generator, and what
    is resumed is no repetition.

    Args:
        env: the environment that is played; it gives keys, pace and the size of a frame.

    Raises:
        ConfigError: pygame-ce is not installed, or there is no screen.
        GameError: the environment has no key table.
    """

    description = "human"

    def __init__(self, env: PlayableEnv) -> None:
        self._actions = {_key_codes(keys): act for keys, act in env.get_keys_to_action().items()}
        self._fps = env.fps or USUAL_FPS
        self._pygame = _import_pygame()
        height, width, _ = env.observation_space.shape
        self._factor = max(1, WINDOW_SIZE // max(height, width))
        self._size = width * self._factor, height * self._factor
        self._window = self._open_window()
        self._clock = self._pygame.time.Clock()
        self._held: set[int] = set()

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode, in the same window if it is open; keys that are held stay so."""
        self._window = self._open_window()

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Show a frame for its time; return the action of the keys held at the end of it."""
        pygame = self._pygame
        picture = pygame.surfarray.make_surface(obs.swapaxes(0, 1))
        self._window.blit(pygame.transform.scale_by(picture, self._factor), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        pressed = self._read_keys()
        sets = [keys for keys in self._actions if keys <= pressed]
        return self._actions[max(sets, key=len)] if sets else 0

    def _read_keys(self) -> set[int]:
        """Return the keys that are down, or were pressed since the last call."""
        pygame, tapped = self._pygame, set()
        for event in pygame.event.get():
            is_escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            if event.type == pygame.QUIT or is_escape:
                self._end()
                return set()  # once: a second Ctrl-C would leave the open shard behind
            elif event.type == pygame.KEYDOWN:
                tapped.add(event.key)
                self._held.add(event.key)
            elif event.type == pygame.KEYUP:
                self._held.discard(event.key)
        return self._held | tapped

    def _end(self) -> None:
        """Close the window and do what Ctrl-C does: the recorder closes the open episode."""
        self._held.clear()
        self._pygame.event.clear()
        self._pygame.display.quit()
        signal.raise_signal(signal.SIGINT)

    def _open_window(self) -> Any:
        pygame = self._pygame
        try:
            window = pygame.display.set_mode(self._size)
        except pygame.error as error:
            raise _no_screen(str(error)) from error
        # What SDL falls back to where there is no screen; nobody would see it.
        if pygame.display.get_driver() == "offscreen":
            pygame.display.quit()
            raise _no_screen("SDL finds no display")
        pygame.display.set_caption("genie-gym: this play is recorded. Esc ends it")
        return window


def _key_codes(keys: int | str | tuple[int | str, ...]) -> frozenset[int]:
    """Return the pygame codes of a table's entry: one code, a text of keys, or both mixed."""
    several = (keys,) if isinstance(keys, int) else keys
    codes = (ord(key) if isinstance(key, str) else key for key in several)
    return frozenset(NEW_ARROWS.get(code, code) for code in codes)


def _import_pygame() -> Any:
    try:
        import pygame  # only a person needs it; it prints a greeting
    except ImportError as error:
        raise ConfigError(
            "policy 'human' needs the package pygame-ce, which the base install of genie-gym "
            "brings, and which is not there. Install it: pip install pygame-ce"
        ) from error
    return pygame


def _no_screen(reason: str) -> ConfigError:
    return ConfigError(
        f"policy 'human' needs a screen: {reason}. Record on a desktop, or take another --policy"
    )
