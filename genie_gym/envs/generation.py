"""A start and a list of actions become the frames between them."""

from collections.abc import Sequence

import numpy as np
from gymnasium.utils import seeding
from jaxtyping import UInt8

from genie_gym.envs.prompts import encode_prompt
from genie_gym.envs.slots import Slots, WorldEnvConfig, to_starts
from genie_gym.errors import ConfigError, InvalidActionError


def parse_actions(text: str) -> list[int]:
    """Return the actions of a text as "2,2,3,0".

    Raises:
        InvalidActionError: it is no list of whole numbers, 0 or more, between commas.

    Example:
        >>> parse_actions("2, 2,3")
        [2, 2, 3]
    """
    parts = [part.strip() for part in text.split(",")]
    # Longer numbers name no action, and Python refuses to read the longest.
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise InvalidActionError(
            f"actions must be whole numbers between commas, as 2,2,3,0; got {text[:80]!r}"
        )
    return [int(part) for part in parts]


def generate(
    config: WorldEnvConfig,
    actions: Sequence[int],
    *,
    prompt: UInt8[np.ndarray, "T H W 3"] | None = None,
    start: int | None = None,
    seed: int = 0,
) -> UInt8[np.ndarray, "frames H W 3"]:
    """Return the frame that a game begins with and one more for each action.

    They are those of a `GenieWorldEnv` with this seed; only that the world is asked for every
    frame, also past what it takes for the end of the game.

    Args:
        config: options of the environment; `max_episode_steps` means nothing here.
        actions: indices of the config's action mode, at least one.
        prompt: what `prompt_frames` gave.
        start: index of a start context, instead of a prompt; without either one is drawn.
        seed: of all that is drawn.

    Raises:
        InvalidActionError: there is no action, or one is not in the action space.
        ConfigError: there is a prompt and a start, or the start is no index.
        WorldError: there is no such world, or no such start context.
    """
    if prompt is not None and start is not None:
        raise ConfigError("give either a prompt or a start, not both")
    slots = Slots(config, num_slots=1)
    last = int(slots.action_space.n) - 1
    wrong = [action for action in actions if not 0 <= action <= last]
    if wrong or not len(actions):
        what = f"got {wrong[0]}" if wrong else "got none: give at least one"
        raise InvalidActionError(f"actions must be ints in 0..{last} for {config.game}, {what}")
    slots.np_randoms = [seeding.np_random(seed)[0]]
    if prompt is None:
        slots.reset(np.ones(1, np.bool_), to_starts(start, num_slots=1))
    else:
        slots.reset_to(encode_prompt(slots.world, prompt, source=slots.source))
    frames = [slots.frames()[0]]
    for action in actions:
        slots.step(np.array([action]))
        frames.append(slots.frames()[0])
    return np.stack(frames)
