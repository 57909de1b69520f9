"""Every error a user can cause: what was wrong, the value, what is allowed, the next step."""

import difflib
from collections.abc import Iterable


class GenieError(Exception):
    """Base of all genie-gym errors; the command line prints it in one line and exits with 2."""


class ConfigError(GenieError, ValueError):
    """Raised when a setting is unknown, of the wrong type, or out of its range."""


class DataError(GenieError, ValueError):
    """Raised when a recording is missing, truncated, or not laid out as the format says."""


class PromptError(DataError):
    """Raised when what a game should begin from is no picture, or shows no such game."""


class PictureTooLargeError(PromptError):
    """Raised when a picture has more pixels than may be decoded."""


class WorldError(GenieError, ValueError):
    """Raised when a world bundle is missing, damaged, or asked for what it does not hold."""


class PolicyError(GenieError, ValueError):
    """Raised when a policy is missing, damaged, or made for other frames or actions."""


class FilterError(GenieError, ValueError):
    """Raised when a quality filter is missing, damaged, or of another version."""


class DeviceError(GenieError, RuntimeError):
    """Raised when the asked-for device is not there."""


class DivergedError(GenieError, RuntimeError):
    """Raised when a training loss is not finite; the weights are those before the step."""


class GameError(GenieError, ValueError):
    """Raised when a game is unknown or cannot be recorded, or a policy does not exist for it."""


class MissingExtraError(GenieError, ImportError):
    """Raised when a command needs a package that is installed only with an extra."""


class InvalidActionError(GenieError, ValueError):
    """Raised when an action lies outside the action space."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
