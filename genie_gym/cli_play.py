"""`genie-gym play`: a world in a window, played by keyboard."""

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_gym.cli_generate import add_start, asked_prompt, world_options
from genie_gym.errors import ConfigError
from genie_gym.games import MAX_IMAGINED_STEPS

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from genie_gym.envs.world_env import GenieWorldEnv

WINDOW_SIZE = 640
"""Longer side of the window, in pixels; it is smaller if no whole factor hits it."""
FPS = 15
"""Steps a second: the speed of a game that is recorded with frame skip 4."""


def add_play(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add_start(parser)
    parser.set_defaults(seed=None)  # another game each time
    parser.add_argument(
        "--record",
        type=Path,
        help="play one game, and write it as a film (.mp4) or as a replay file (.json)",
    )
    parser.add_argument("--replay", type=Path, help="show the game of a replay file instead")
    parser.add_argument("--out", type=Path, help="with --replay: write a film (.mp4) instead")


def play(options: argparse.Namespace) -> None:
    """Play until the window is closed, or show a game that was played."""
    if options.replay:
        _show_again(options.replay, options.out)
    elif options.out:
        raise ConfigError("--out is where a --replay is written; to record your play, use --record")
    else:
        _play(options)


def _play(options: argparse.Namespace) -> None:
    from genie_gym.envs.replay import RecordReplay, save_replay
    from genie_gym.envs.start_from import StartFrom
    from genie_gym.envs.world_env import GenieWorldEnv
    from genie_gym.evaluation.video import write_video

    file = options.record
    if file and file.suffix not in (".mp4", ".json"):
        raise ConfigError(f"--record must end in .mp4 or .json, got {str(file)!r}")
    env = GenieWorldEnv(
        **world_options(options), render_mode="rgb_array", max_episode_steps=MAX_IMAGINED_STEPS
    )
    prompt = asked_prompt(options, env.world)
    if prompt is not None and file and file.suffix == ".json":
        raise ConfigError(
            "a replay file names a start context and cannot hold a prompt: --record FILE.mp4"
        )
    start = {"start": options.start} if prompt is None else {"prompt": prompt}
    game, film = RecordReplay(StartFrom(env, start)), Film()
    # Gymnasium's `play` would begin every game anew from a seed of its own.
    game.reset(seed=options.seed)
    _play_in_window(game, env, film if file else None)
    if not file:
        return
    if not film.frames:
        print("nothing was played, so nothing is written")
        return
    if file.suffix == ".json":
        save_replay(file, game.replay())
    else:
        import numpy as np

        write_video(file, np.stack(film.frames), fps=FPS)
    print(f"wrote {file}, {len(film.frames)} frames")


class Film:
    """What `gymnasium.utils.play` calls after every step: keeps the frames of one game."""

    def __init__(self) -> None:
        self.frames: list[UInt8[np.ndarray, "H W C"]] = []

    def __call__(
        self, obs: Any, next_obs: Any, action: Any, reward: Any, terminated: bool, *rest: Any
    ) -> None:
        """Keep a step's frame; close the window when the game is over."""
        import pygame

        if not self.frames:  # Gymnasium hands over what `reset` gave, its info too
            self.frames.append(obs[0] if isinstance(obs, tuple) else obs)
        self.frames.append(next_obs)
        truncated = rest[0]
        if terminated or truncated:
            pygame.event.post(pygame.event.Event(pygame.QUIT))


def _play_in_window(game: Any, env: "GenieWorldEnv", film: Film | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that matplotlib is absent; nothing is plotted
        from gymnasium.utils.play import play as play_by_keyboard

    keys = env.get_keys_to_action()
    if not keys:
        raise ConfigError(
            f"world {env.config.world!r} does not say what its actions mean, so they have no keys. "
            "Play its latent actions, on the digits: --latent"
        )
    is_latent = env.config.action_mode == "latent"
    names = f"digits 0 to {len(keys) - 1}" if is_latent else "arrows or w a s d, space"
    print(f"keys: {names}; Esc ends the play")
    _open_screen()
    config = env.world.config
    zoom = _zoom(config.height, config.width)
    play_by_keyboard(game, fps=FPS, zoom=zoom, callback=film, keys_to_action=keys)


def _show_again(file: Path, out: Path | None) -> None:
    from genie_gym.envs.replay import load_replay, play_back
    from genie_gym.evaluation.video import write_video

    frames = play_back(load_replay(file))
    if out:
        write_video(out, frames, fps=FPS)
        print(f"wrote {out}, {len(frames)} frames")
    else:
        _show(frames)


def _show(frames: "UInt8[np.ndarray, 'T H W C']") -> None:
    """Show frames in a window, at the speed of the game, until the last or until Esc."""
    import pygame

    _open_screen()
    height, width = frames.shape[1:3]
    zoom = _zoom(height, width)
    window = pygame.display.set_mode((width * zoom, height * zoom))
    clock = pygame.time.Clock()
    for frame in frames:
        picture = pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        window.blit(pygame.transform.scale_by(picture, zoom), (0, 0))
        pygame.display.flip()
        clock.tick(FPS)
        if any(_is_end(event) for event in pygame.event.get()):
            break
    pygame.quit()


def _is_end(event: Any) -> bool:
    import pygame

    is_escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
    return bool(is_escape or event.type == pygame.QUIT)


def _zoom(height: int, width: int) -> int:
    return max(1, WINDOW_SIZE // max(height, width))


def _open_screen() -> None:
    """Turn pygame on, where there is a screen that somebody sees.

    Raises:
        ConfigError: there is none.
    """
    import pygame

    try:
        pygame.init()
        pygame.display.init()
    except pygame.error as error:
        raise _no_screen(str(error)) from error
    # What SDL falls back to where there is no screen; nobody would see it.
    if pygame.display.get_driver() == "offscreen":
        pygame.quit()
        raise _no_screen("SDL finds no display")


def _no_screen(reason: str) -> ConfigError:
    return ConfigError(
        f"playing by keyboard needs a screen: {reason}. Play on a desktop, or write films: "
        "genie-gym generate, or --replay FILE --out FILM.mp4"
    )
