"""What a report is made of: means and their spread, and None with the reason."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Report = dict[str, Any]
"""Figures as a nested mapping, for JSON."""


def mean_or_none(values: Bool[np.ndarray, " N"] | Float[np.ndarray, " N"]) -> float | None:
    """Return the mean, or None where there are no values: JSON has no NaN."""
    return float(values.mean()) if len(values) else None


def spread(values: Float[np.ndarray, " N"], reason: str = "") -> Report:
    """Return mean and 10th and 90th percentile; without values None, and the reason."""
    if not len(values):
        return {"mean": None, "p10": None, "p90": None, "reason": reason}
    low, high = np.percentile(values, [10, 90])
    return {"mean": float(values.mean()), "p10": float(low), "p90": float(high)}
