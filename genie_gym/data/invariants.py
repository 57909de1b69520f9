"""What must hold between the values of a recording's file, row by row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

ATTRIBUTES: Mapping[str, tuple[type, ...]] = {
    "env_id": (str,),
    "env_kwargs": (str,),
    "frame_skip": (int,),
    "max_pool": (bool,),
    "sticky": (int, float),
    "noop_max": (int,),
    "policy": (str,),
    "seed": (int,),
}
OPTIONAL_ATTRIBUTES: Mapping[str, tuple[type, ...]] = {
    "fps": (int, float),  # not every environment states it
}
EPISODE_ATTRIBUTES: Mapping[str, tuple[type, ...]] = {
    "policy": (str,),
    "policy_seed": (int,),
    "reset_seed": (int,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong in a file."""

    key: str
    """Dataset or attribute."""
    where: str | None = None
    """Rows or episode; None if the whole key is meant."""
    problem: str
    """What must hold, and the value that was found."""


def attribute_findings(attributes: Mapping[str, Any], *, is_discrete: bool) -> Iterator[Finding]:
    """Find attributes of a file that are missing, of a wrong type, negative or not finite."""
    stated = {key: types for key, types in OPTIONAL_ATTRIBUTES.items() if key in attributes}
    names: Mapping[str, tuple[type, ...]] = {"action_meanings": (list,)} if is_discrete else {}
    yield from _wrong_values(attributes, {**ATTRIBUTES, **names, **stated}, where=None)


def episode_findings(
    about: Mapping[str, Mapping[str, Any]], episode_ids: Int64[np.ndarray, " rows"]
) -> Iterator[Finding]:
    """Find episodes whose policy and seeds the file does not say."""
    for episode_id in np.unique(episode_ids):
        values = about.get(str(episode_id), {})
        yield from _wrong_values(values, EPISODE_ATTRIBUTES, where=f"episode {episode_id}")


def row_findings(
    columns: Mapping[str, Shaped[np.ndarray, "rows ..."]], num_actions: int
) -> Iterator[Finding]:
    """Find rows that break the alignment of frames, actions, rewards and ends.

    Args:
        columns: all row keys but the frames; their lengths agree.
        num_actions: size of a Discrete action set; unused for Box actions.
    """
    episode_ids = columns["episode_ids"]
    is_last = np.append(np.diff(episode_ids) != 0, True)
    # The row before an episode's last row holds the action that ended it.
    is_end = np.append(is_last[1:], False) & ~is_last
    yield from _action_findings(columns["actions"], episode_ids, is_last, num_actions)

    rewards = columns["rewards"]
    is_finite = np.isfinite(rewards)
    ends = {key: columns[key] for key in ("terminations", "truncations")}
    steps = np.diff(episode_ids, prepend=episode_ids[0])
    is_alone = is_last & np.append(True, is_last[:-1])
    rules = [
        ("rewards", rewards, ~is_finite, "must be finite"),
        ("rewards", rewards, is_finite & is_last & (rewards != 0), "must be 0 on a last row"),
        *(
            (key, x, x & ~is_end, "must be False except on a last action")
            for key, x in ends.items()
        ),
        (
            "terminations",
            ends["terminations"],
            is_end & ~ends["terminations"] & ~ends["truncations"],
            "or truncations must be True on an episode's last action",
        ),
        ("episode_ids", episode_ids, is_alone, "must be those of two rows or more"),
        ("episode_ids", episode_ids, episode_ids < 0, "must be 0 or more"),
        ("episode_ids", episode_ids, (steps != 0) & (steps != 1), "must rise by 1"),
    ]
    for key, values, is_wrong, rule in rules:
        yield from _runs(key, values, episode_ids, is_wrong, rule)


def _action_findings(
    actions: Shaped[np.ndarray, "rows ..."],
    episode_ids: Int64[np.ndarray, " rows"],
    is_last: Bool[np.ndarray, " rows"],
    num_actions: int,
) -> Iterator[Finding]:
    if actions.ndim == 1:
        is_action = (actions >= 0) & (actions < num_actions)
        is_none, none = actions == -1, "-1"
        allowed = f"in [0, {num_actions})"
    else:
        is_action = np.isfinite(actions).all(axis=1)
        is_none, none = np.isnan(actions).all(axis=1), "NaN"
        allowed = "finite"
    wrong_none, wrong_action = is_last & ~is_none, ~is_last & ~is_action
    yield from _runs("actions", actions, episode_ids, wrong_none, f"must be {none} on a last row")
    yield from _runs(
        "actions", actions, episode_ids, wrong_action, f"must be {allowed} before a last row"
    )


def _runs(
    key: str,
    values: Shaped[np.ndarray, "rows ..."],
    episode_ids: Int64[np.ndarray, " rows"],
    is_wrong: Bool[np.ndarray, " rows"],
    rule: str,
) -> Iterator[Finding]:
    """Name wrong rows, neighbours together: a spoilt shard has few lines, not one per row."""
    [starts] = np.nonzero(is_wrong & ~np.append(False, is_wrong[:-1]))
    [lasts] = np.nonzero(is_wrong & ~np.append(is_wrong[1:], False))
    for start, last in zip(starts, lasts, strict=True):
        rows = f"row {start}" if start == last else f"rows {start} to {last}"
        yield Finding(
            key=key,
            where=f"{rows} from episode {episode_ids[start]}",
            problem=f"{rule}, got {values[start]}",
        )


def _wrong_values(
    values: Mapping[str, Any], allowed: Mapping[str, tuple[type, ...]], where: str | None
) -> Iterator[Finding]:
    for key, types in allowed.items():
        value: Any = values.get(key)
        # bool is a kind of int in Python, but not in a file.
        is_typed = isinstance(value, types) and (types == (bool,) or not isinstance(value, bool))
        is_number = is_typed and isinstance(value, int | float)
        if not is_typed or (is_number and not 0 <= value < np.inf):
            names = " or ".join(one.__name__ for one in types)
            yield Finding(
                key=f"attribute {key!r}",
                where=where,
                problem=f"must be {names}, 0 or more if a number, got {value!r:.60}",
            )
