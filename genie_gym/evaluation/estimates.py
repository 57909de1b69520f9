"""What a report is made of: means with spread or standard error, and None with the reason."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Report = dict[str, Any]
"""Figures as a nested mapping, for JSON."""


def missing(reason: str) -> Report:
    """Return the figure that could not be measured, and why; JSON has no NaN."""
    return {"value": None, "reason": reason}


def mean_or_none(values: Bool[np.ndarray, " N"] | Float[np.ndarray, " N"]) -> float | None:
    """Return the mean, or None where there are no values: JSON has no NaN."""
    return float(values.mean()) if len(values) else None


def spread(values: Float[np.ndarray, " N"], reason: str = "") -> Report:
    """Return mean and 10th and 90th percentile; without values None, and the reason."""
    if not len(values):
        return {"mean": None, "p10": None, "p90": None, "reason": reason}
    low, high = np.percentile(values, [10, 90])
    return {"mean": float(values.mean()), "p10": float(low), "p90": float(high)}


def estimate(values: Bool[np.ndarray, " N"] | Float[np.ndarray, " N"]) -> Report:
    """Return mean, standard error of the mean (None for one value) and number of the values.

    Values are taken as independent. Windows of one game may overlap, which makes the true error
    somewhat larger.

    Example:
        >>> estimate(np.array([1.0, 3.0]))
        {'value': 2.0, 'stderr': 1.0, 'count': 2}
    """
    count = len(values)
    if count == 0:
        return missing("the recording holds nothing to measure this on; record longer play")
    stderr = float(np.std(values, ddof=1)) / count**0.5 if count > 1 else None
    return {"value": float(np.mean(values)), "stderr": stderr, "count": count}


def ratio(above: Float[np.ndarray, " N"], below: Float[np.ndarray, " N"]) -> Report:
    """Return the ratio of two means over the same items, its error linearised.

    Example:
        >>> ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
        {'value': 2.0, 'stderr': 0.0, 'count': 2}
    """
    if below.sum() == 0:
        return missing("there is no error to compare with")
    value = above.mean() / below.mean()
    report = estimate((above - value * below) / below.mean())
    return {**report, "value": float(value)}
