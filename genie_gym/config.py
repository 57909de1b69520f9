"""Frozen dataclasses from YAML and back: same nesting, unknown keys refused, nothing guessed."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from genie_gym.errors import ConfigError, did_you_mean

ConfigT = TypeVar("ConfigT")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds.

    Raises:
        ConfigError: the file is absent, is not YAML, or its top level is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist. Presets lie in configs/")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, got {type(content).__name__}")
    return content


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], name: str = "config") -> ConfigT:
    """Build a config dataclass from nested mappings; absent keys keep their defaults.

    Args:
        cls: a dataclass whose fields are plain values, tuples or dicts of them, or such
            dataclasses.
        values: the mapping, for example from YAML.
        name: where the mapping stands, for error texts: "config.tokenizer".

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or range.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise ConfigError(
                f"{name}: unknown key {key!r}.{did_you_mean(str(key), known)} Known: {known}"
            )
        arguments[key] = _convert(hints[key], value, f"{name}.{key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from error


def to_dict(config: Any) -> dict[str, Any]:
    """Return the nested mapping that `from_dict` turns back into an equal config."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return nested values with "a.b.c=value" assignments applied; values are read as YAML.

    Example:
        >>> override({"dynamics": {"dim": 8}}, ["dynamics.dim=16"])
        {'dynamics': {'dim': 16}}
    """
    result = dict(values)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"an override is written key.key=value, got {assignment!r}")
        *parents, leaf = path.split(".")
        node = result
        for parent in parents:
            inner = node.get(parent) or {}
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{assignment!r}: {parent} is a value, not a mapping: {inner!r}")
            node[parent] = node = dict(inner)
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{assignment!r}: {text!r} is not YAML") from error
    return result


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a mapping, got {value!r}")
        return from_dict(hint, value, name)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        [hint] = [option for option in typing.get_args(hint) if option is not types.NoneType]
        return _convert(hint, value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a mapping, got {value!r}")
        _, inner = typing.get_args(hint)
        return {key: _convert(inner, item, f"{name}.{key}") for key, item in value.items()}
    if hint is typing.Any:
        return value
    if origin is typing.Literal:
        allowed = typing.get_args(hint)
        if value is False and "no" in allowed:  # YAML 1.1 reads no as False
            return "no"
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {list(allowed)}, got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number, got {value!r}") from None
    if type(value) is not hint:
        raise ConfigError(f"{name} must be {hint.__name__}, got {value!r}")
    return value
