"""Counting the rewards of a recording: how often each was earned."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

# Games have a few rewards; a physical cost is another number at almost every step.
MAX_REWARD_CLASSES = 100


def reward_classes(rewards: Float32[np.ndarray, " rows"]) -> dict[str, int]:
    """Count how often every reward value occurs.

    Example:
        >>> reward_classes(np.array([0, 0, -1], np.float32))
        {'-1': 1, '0': 2}
    """
    # Adding 0 makes -0 a 0.
    values, counts = np.unique(rewards + np.float32(0), return_counts=True)
    classes: Counter[str] = Counter()
    for value, count in zip(values, counts, strict=True):
        classes[f"{value:g}"] += int(count)  # values that print alike are counted together
    return dict(classes)


def listed_classes(classes: Mapping[str, int]) -> dict[str, int]:
    """Return counts of rewards from low to high; of more than 100 rewards, those of each sign.

    Example:
        >>> listed_classes({"1": 3, "-1": 7})
        {'-1': 7, '1': 3}
        >>> listed_classes({str(reward): 1 for reward in range(-1, 200)})
        {'-': 1, '0': 1, '+': 199}
    """
    if len(classes) > MAX_REWARD_CLASSES:
        positive, negative = count_signs(classes)
        return {"-": negative, "0": sum(classes.values()) - positive - negative, "+": positive}
    return dict(sorted(classes.items(), key=lambda entry: float(entry[0])))


def is_enough(
    num_actions: int, num_positive: int, num_negative: int, settings: Mapping[str, Any]
) -> bool:
    """Whether a recording ends here: all its steps are taken, or its quota of rewards is met.

    Args:
        num_actions: actions taken.
        num_positive: rewards above 0.
        num_negative: rewards below 0.
        settings: `steps` and `min_events`; what is absent or None never ends it.
    """
    steps, quota = settings.get("steps"), settings.get("min_events")
    has_all_steps = steps is not None and num_actions >= steps
    return has_all_steps or (quota is not None and min(num_positive, num_negative) >= quota)


def count_signs(classes: Mapping[str, int]) -> tuple[int, int]:
    """Return how many rewards of a class table are positive, and how many negative.

    Example:
        >>> count_signs({"-1": 7, "0": 9990, "1": 3}), count_signs({"-": 7, "0": 5, "+": 3})
        ((3, 7), (3, 7))
    """
    negative = sum(count for name, count in classes.items() if name.startswith("-"))
    return sum(classes.values()) - negative - classes.get("0", 0), negative
