"""Finds what can be drawn in a section of a report, by its shape: so new figures are drawn too.

- A mapping whose keys are numbers is a curve over them, or a chart for each thing that its values
  hold: `by_step`, a label curve, seconds against batch size.
- `copy_NAME` is drawn into the chart of `NAME`, and `p10`, `p90` are the band around its `mean`.
- A list of bins, `{"told", "observed"}`, is a reliability diagram; a list `usage` a chart of bars.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from genie_gym.evaluation.charts import (
    MAX_LINES,
    Line,
    Point,
    bar_chart,
    line_chart,
    reliability_chart,
)

FIGURE_NAMES = ("mean", "value")
NOTES = {"p10", "p90", "stderr", "count", "reason"}
"""What may stand beside a mean or a value and still be one figure."""
SPELLED = {"psnr": "PSNR", "ssim": "SSIM", "mse": "MSE", "fvd": "FVD", "fid": "FID", "f1": "F1"}
SPELLED |= {"1px": "1 px", "2px": "2 px", "lam": "LAM", "gib": "GiB", "per_100": "per 100"}
CATEGORIES = {"by_code", "by_action", "by_class"}
"""Mappings whose keys name things, also where they are numbers."""
Series = Mapping[float, Any]


def in_words(key: object) -> str:
    """Return the name of a figure as it is written for people.

    Example:
        >>> in_words("ball_within_2px"), in_words("copy_psnr")
        ('ball within 2 px', 'copy PSNR')
    """
    return " ".join(SPELLED.get(word, word) for word in str(key).split("_"))


def is_figure(value: Any) -> bool:
    """Return whether a mapping is one figure: a mean or value, with its spread or error."""
    return isinstance(value, Mapping) and any(value.keys() - NOTES == {x} for x in FIGURE_NAMES)


def main_of(figure: Mapping[str, Any]) -> Any:
    """Return a figure's mean or value."""
    return figure["mean"] if "mean" in figure else figure["value"]


def number_of(value: Any) -> float | None:
    """Return a number, or a figure's mean; None for anything else."""
    if is_figure(value):
        value = main_of(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def by_number(value: Any) -> Series | None:
    """Return a mapping with its keys as rising numbers; None if they are none, or fewer than two.

    JSON writes the keys of a mapping as text. "+1" names a reward and is no number here.
    """
    if not isinstance(value, Mapping) or len(value) < 2:
        return None
    if not all(str(key)[:1].isdigit() for key in value):
        return None
    try:
        numbers = {float(key): one for key, one in value.items()}
    except ValueError:
        return None
    return dict(sorted(numbers.items())) if all(map(math.isfinite, numbers)) else None


def find_charts(value: Any, key: str = "", above: str = "") -> Iterator[str]:
    """Yield the charts of a section, as SVG.

    Args:
        value: the section, or a part of it.
        key: the part's name.
        above: name of the part that holds it, if that is not the section.
    """
    if key not in CATEGORIES and (series := by_number(value)):
        if key == "by_step":
            yield from _series_charts(series, "", "imagined steps")
        else:
            yield from _series_charts(series, _titled(above, key), above or in_words(key))
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from find_charts(one, str(name), in_words(key))
    elif isinstance(value, list) and key == "usage":
        shares = [number_of(one) or 0.0 for one in value]
        labels = [str(index) for index in range(len(value))]
        yield bar_chart("usage of each code", labels, shares, "code")
    elif isinstance(value, list) and (points := _reliability(value)):
        yield reliability_chart(_titled(above, key), points)


def _series_charts(series: Series, title: str, x_name: str) -> Iterator[str]:
    """Yield the chart of the numbers over x, or the charts of what lies at every x."""
    line = _line(title, series)
    if line.points:
        yield line_chart(title, [line], x_name)
        return
    columns: dict[str, dict[float, Any]] = {}
    for x, group in series.items():
        for name, value in (group if isinstance(group, Mapping) else {}).items():
            columns.setdefault(str(name), {})[x] = value
    lines = {name: _line(in_words(name), column) for name, column in columns.items()}
    drawn = {
        name: line for name, line in lines.items() if line.points and not _counts(columns[name])
    }
    single: dict[str, list[Line]] = {}
    for name, line in drawn.items():
        if name.startswith("copy_") and name.removeprefix("copy_") in drawn:
            continue
        copy = drawn.get(f"copy_{name}")
        if copy or line.band:
            copying = [replace(copy, name="copying")] if copy else []
            world = [replace(line, name="the world")] if copy else [line]
            yield line_chart(_titled(title, name), [*world, *copying], x_name)
        else:
            single.setdefault(_kind(name, line), []).append(line)
    for kind, rest in single.items():
        for first in range(0, len(rest), MAX_LINES):
            some = rest[first : first + MAX_LINES]
            name = some[0].name if len(some) == 1 else kind
            yield line_chart(_titled(title, name), some, x_name)
    for name, column in columns.items():
        last = next(reversed(column.values()))
        if isinstance(last, Mapping) and not is_figure(last) and len(column) > 1:
            yield from _series_charts(column, _titled(title, name), x_name)
        elif isinstance(last, list):
            yield from find_charts(last, f"{name}, {x_name} {max(column):g}", title)


def _line(name: str, column: Series) -> Line:
    """Return a curve, without the places where there is no number."""
    points = [(x, y) for x, value in column.items() if (y := number_of(value)) is not None]
    band = [
        (x, float(value["p10"]), float(value["p90"]))
        for x, value in column.items()
        if is_figure(value) and value.get("p10") is not None and value.get("p90") is not None
    ]
    return Line(name, points, band if len(band) > 1 else ())


def _kind(name: str, line: Line) -> str:
    """Return what a figure is, for those of a kind to share a chart."""
    if name.endswith("error"):
        return "errors"
    return "shares" if all(0 <= y <= 1 for _, y in line.points) else "other figures"


def _counts(column: Series) -> bool:
    """Return whether these are numbers of things measured: they say how sure a figure is."""
    return all(isinstance(value, int | None) for value in column.values())


def _titled(title: str, name: str) -> str:
    return f"{title}: {in_words(name)}" if title else in_words(name)


def _reliability(rows: Sequence[Any]) -> list[Point]:
    """Return what was told and what was observed of every bin that holds anything."""
    points = []
    for row in rows:
        if isinstance(row, Mapping) and {"told", "observed"} <= row.keys():
            told, observed = number_of(row["told"]), number_of(row["observed"])
            if told is not None and observed is not None:
                points.append((told, observed))
    return points if len(points) > 1 else []
