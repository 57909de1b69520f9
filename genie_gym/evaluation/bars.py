"""What a Pong world should reach, beside what it reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genie_gym.evaluation.estimates import Report


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and how good it should be."""

    figure: str
    paths: tuple[str, ...]
    """Keys of the report that lead to it; of several figures the worst counts."""
    bar: float
    goal: float
    is_low: bool = False
    """Whether less is better; the sign of the figure then does not count."""


_POINTS = "rewards.by_step.20"
_LATENT = "control.latent_actions"
BARS = (
    Bar("reconstruction MSE", ("reconstruction.mse",), 5e-5, 1e-5, is_low=True),
    Bar("ball within 1 px after reconstruction", ("reconstruction.ball_within_1px",), 0.99, 0.999),
    Bar("ball within 2 px at step 1", ("objects.by_step.1.ball_within_2px",), 0.95, 0.995),
    Bar("ball within 2 px at step 10", ("objects.by_step.10.ball_within_2px",), 0.85, 0.98),
    Bar("ball within 2 px at step 20", ("objects.by_step.20.ball_within_2px",), 0.70, 0.95),
    Bar(
        "ball lost or doubled per 100 steps",
        ("objects.lost_or_doubled_per_100",),
        5.0,
        0.2,
        is_low=True,
    ),
    Bar(
        "own paddle within 2 px at step 20",
        ("objects.by_step.20.own_paddle_within_2px",),
        0.95,
        0.99,
    ),
    Bar("paddle obeys UP and DOWN", ("control.paddle_obeys.value",), 0.98, 0.999),
    Bar(
        "precision of rewards over 20 steps, the worse sign",
        (f"{_POINTS}.-1.precision", f"{_POINTS}.+1.precision"),
        0.85,
        0.98,
    ),
    Bar(
        "recall of rewards over 20 steps, the worse sign",
        (f"{_POINTS}.-1.recall", f"{_POINTS}.+1.recall"),
        0.85,
        0.98,
    ),
    Bar("bias of the expected reward per step", (f"{_POINTS}.bias",), 0.002, 0.0005, is_low=True),
    Bar("game ends found over 20 steps", (f"{_POINTS}.terminated.recall",), 0.90, 0.99),
    Bar("frames of long rollouts that are still Pong", ("objects.long.still_pong",), 0.90, 0.99),
    Bar("latent mode: agreement", (f"{_LATENT}.latent_mode.value",), 0.80, 0.95),
    Bar(
        "latent mode: agreement, ways weighed alike",
        (f"{_LATENT}.latent_mode.balanced.value",),
        0.80,
        0.95,
    ),
    Bar("code gain", (f"{_LATENT}.code_gain.value",), 1.1, 1.5),
    Bar(
        "latent actions: dB over copying",
        (f"{_LATENT}.gain_over_copy.value",),
        3.0,
        8.0,
    ),
)


def bars(report: Mapping[str, Any]) -> list[Report]:
    """Return every figure of the table with its bar, its goal and whether the bar is met.

    A figure that the report does not hold is None, and so is `met`; `reason` says why.
    """
    return [_measure(bar, report) for bar in BARS]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the bars as text, a line each."""
    lines = [f"{'figure':<52} {'value':>9} {'bar':>8} {'goal':>8}  met"]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.3g}"
        met = row.get("reason") or ("yes" if row["met"] else "no")
        lines.append(f"{row['figure']:<52} {value:>9} {row['bar']:>8g} {row['goal']:>8g}  {met}")
    return "\n".join(lines)


def card_figures(report: Mapping[str, Any]) -> Report:
    """Return what a world's card keeps of a report: where it was measured, and the bars."""
    rows = ({**row} for row in report["bars"])
    return {"data": report["data"], "bars": {row.pop("figure"): row for row in rows}}


def _measure(bar: Bar, report: Mapping[str, Any]) -> Report:
    row: Report = {"figure": bar.figure, "value": None, "bar": bar.bar, "goal": bar.goal}
    values = []
    for path in bar.paths:
        value, reason = _follow(report, path.split("."))
        if value is None:
            return {**row, "met": None, "reason": reason}
        values.append(value)
    worst = max(values, key=abs) if bar.is_low else min(values)
    met = abs(worst) <= bar.bar if bar.is_low else worst >= bar.bar
    return {**row, "value": worst, "met": met}


def _follow(node: Mapping[str, Any], keys: Sequence[str]) -> tuple[float | None, str]:
    """Return the number that the keys lead to, or None and why there is none."""
    reason = f"section {keys[0]} is missing"
    for key in keys:
        reason = node.get("reason", reason)
        below = {str(name): value for name, value in node.items()}.get(key)
        if not isinstance(below, Mapping):
            return below, reason
        node, reason = below, f"{'.'.join(keys)} was not measured"
    return None, reason
