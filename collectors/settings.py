"""What a recording is made with: everything that its rows depend on."""

import re
from dataclasses import dataclass
from typing import Any

from genie_gym.errors import ConfigError, did_you_mean
from genie_gym.games import game_of

GYM_PREFIX = "gym:"
BACKENDS = ("processes", "ray")
ALE_DEFAULTS = {"sticky": 0.0, "noop_max": 30, "frame_skip": 4, "max_pool": True}
# What is true of any environment that is left as it is.
GYM_VALUES = {"sticky": 0.0, "noop_max": 0, "frame_skip": 1, "max_pool": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingSettings:
    """Everything that the rows of a recording depend on."""

    game: str
    """Name of the ALE game, or "gym:" and the id of another Gymnasium environment."""
    policy: str
    """Name of the policy, as `make_policy` knows it."""
    seed: int
    """Seed of the whole recording."""
    steps: int
    """Actions in total."""
    sticky: float
    """Probability, per raw frame, that the emulator repeats its previous action."""
    noop_max: int
    """Most raw no-op frames after a reset."""
    frame_size: int | None
    """Side of a frame in pixels; None for the console's or the rendering's own size."""
    frame_skip: int
    """Raw frames per action."""
    max_pool: bool
    """Whether the last two raw frames are merged."""
    max_episode_steps: int | None
    """Actions after which an episode is truncated."""
    shard_steps: int
    """Actions after which a shard is closed, at the next end of an episode."""
    min_events: int | None = None
    """Rewards of each sign after which the recording is finished, at the next end of an episode."""
    env_module: str | None = None
    """Module to import before the environment is made; it registers the id."""
    model_sha256: str | None = None
    """SHA-256 of the policy's saved models, in the policy's order with commas between; or None."""

    @property
    def is_ale(self) -> bool:
        """Whether an ALE game is recorded, and not another environment."""
        return not self.game.startswith(GYM_PREFIX)

    @property
    def can_be_played_again(self) -> bool:
        """Whether the rows follow from these settings: a person never plays the same game twice."""
        return re.search(r"(^|[:,])human(=|$)", self.policy) is None


def make_settings(
    game: str,
    *,
    policy: str | None,
    env_module: str | None,
    emulator: dict[str, Any],
    **others: Any,
) -> RecordingSettings:
    """Return the settings of a recording, with what was left open filled in.

    Args:
        game: name or id of an ALE game, or "gym:ENV_ID".
        policy: name of the policy; None for "mixed" in ALE games and "random" elsewhere.
        env_module: module that registers the id of another environment.
        emulator: `sticky`, `noop_max`, `frame_skip` and `max_pool`; None where the default is
            meant. Only ALE games have them.
        others: the other fields of `RecordingSettings`.

    Raises:
        GameError: no ALE game has this name.
        ConfigError: an option is set that this kind of environment does not have.
    """
    values: dict[str, Any]
    asked = {key: value for key, value in emulator.items() if value is not None}
    if game.startswith(GYM_PREFIX):
        for key, value in asked.items():
            raise ConfigError(
                f"{key} is an option of the Atari emulator, and {game!r} has none: got "
                f"{key}={value!r}. Leave it away, or name an ALE game"
            )
        values = {**GYM_VALUES, "policy": policy or "random", "env_module": env_module}
        return RecordingSettings(game=game, **values, **others)
    if env_module is not None:
        raise ConfigError(
            f"env_module is for environments named {GYM_PREFIX}ENV_ID, got "
            f"env_module={env_module!r} and the game {game!r}. Leave it away"
        )
    values = {**ALE_DEFAULTS, **asked, "policy": policy or "mixed"}
    return RecordingSettings(game=game_of(game), **values, **others)


def check_workers(settings: RecordingSettings, num_envs: int, backend: str) -> None:
    """Refuse unknown backends, and for one person all but a single game in this process.

    Raises:
        ConfigError: there is no such backend; or a person is part of the policy, and there is more
            than one environment, or it is in another process.
    """
    if backend not in BACKENDS:
        raise ConfigError(
            f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}."
            f"{did_you_mean(backend, BACKENDS)}"
        )
    if settings.can_be_played_again:
        return
    for name, value, allowed in (("num_envs", num_envs, 1), ("backend", backend, BACKENDS[0])):
        if value != allowed:
            raise ConfigError(
                f"policy {settings.policy!r} needs {name} {allowed}, got {value}: a person plays "
                "one game at a time, in a window of this process"
            )
