"""Charts as SVG text: no plotting library, no ids, sharp on a phone and in print.

Lines differ by dash and mark as well as by colour, so that a chart survives grey paper and
colour-blind eyes. Colours and sizes of text come from the page's style sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 340.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 58.0
"""Margins; the lower one holds the ticks, the axis' name and the legend."""
MAX_LINES = 4
"""Lines that the style sheet can tell apart."""
LEGEND_ROW = 14
LONG_NAME = 20
"""Letters of a name with which two do not fit side by side into the legend."""
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a chart."""

    name: str
    points: Sequence[Point]
    """(x, y), x rising."""
    band: Sequence[tuple[float, float, float]] = field(default=())
    """(x, low, high) of the shaded area around it."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    """Pixel of the low end."""
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def line_chart(title: str, lines: Sequence[Line], x_name: str) -> str:
    """Return a chart of at most `MAX_LINES` curves over one x axis; log where it spans decades."""
    xs = sorted({x for line in lines for x, _ in line.points})
    ys = [y for line in lines for _, y in line.points]
    ys += [y for line in lines for _, *ends in line.band for y in ends]
    x_axis = _x_axis(xs)
    frame = _frame(x_axis, _y_axis(ys), _x_ticks(xs, x_axis), x_name)
    return _line_figure(title, frame, lines, x_axis, _y_axis(ys))


def reliability_chart(title: str, points: Sequence[Point]) -> str:
    """Return what happened against what was said, beside the diagonal of perfect honesty."""
    ends = [value for point in points for value in point]
    low, high = min(0.0, *ends), max(ends)
    x_axis, y_axis = Axis(low, high, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    ticks = [(value, f"{value:.4g}") for value in _round_values(x_axis)]
    frame = _frame(x_axis, y_axis, ticks, "told")
    lines = [Line("observed", sorted(points)), Line("if calibrated", [(low, low), (high, high)])]
    return _line_figure(title, frame, lines, x_axis, y_axis)


def bar_chart(title: str, labels: Sequence[str], values: Sequence[float], x_name: str) -> str:
    """Return a chart of one bar a value."""
    x_axis = Axis(-0.5, len(values) - 0.5, LEFT, WIDTH - RIGHT)
    y_axis = _y_axis([0.0, *values])
    every = math.ceil(len(values) / 12)
    ticks = [(float(k), label) for k, label in enumerate(labels) if k % every == 0]
    body = [_frame(x_axis, y_axis, ticks, x_name)]
    for index, value in enumerate(values):
        left, right = x_axis(index - 0.4), x_axis(index + 0.4)
        top, bottom = sorted((y_axis(value), y_axis(0.0)))
        body.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}"/>'
        )
    pairs = zip(labels, values, strict=True)
    return _figure(title, ", ".join(f"{label}: {short(value)}" for label, value in pairs), body)


def short(value: float | int) -> str:
    """Return a number for people: three or four digits, no needless zeros.

    Example:
        >>> short(0.98765), short(41.253), short(8e-06), short(30000)
        ('0.988', '41.3', '8e-06', '30,000')
    """
    if not math.isfinite(value):
        return "not a number"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _line_figure(title: str, frame: str, lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> str:
    body = [frame, *(_curve(line, k, x_axis, y_axis) for k, line in enumerate(lines))]
    height = HEIGHT
    if len(lines) > 1:
        columns = 1 if max(len(line.name) for line in lines) > LONG_NAME else 2
        body += [_legend(line.name, k, columns) for k, line in enumerate(lines)]
        height += LEGEND_ROW * (math.ceil(len(lines) / columns) - 1)
    said = "; ".join(
        f"{line.name}: {short(line.points[0][1])} at {short(line.points[0][0])}, "
        f"{short(line.points[-1][1])} at {short(line.points[-1][0])}"
        for line in lines
    )
    return _figure(title, said, body, height)


def _x_axis(xs: Sequence[float]) -> Axis:
    low, high = xs[0], xs[-1]
    if low == high:
        low, high = low - 0.5, high + 0.5
    is_log = low > 0 and high / low >= 10
    return Axis(low, high, LEFT + 6, WIDTH - RIGHT - 6, is_log)


def _y_axis(ys: Sequence[float]) -> Axis:
    low, high = min(ys), max(ys)
    margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
    if low >= 0 and low < 0.5 * high:  # most of the way to nothing: show it against nothing
        bottom, top = 0.0, high + margin
    else:
        bottom, top = low - margin, high + margin
    if low >= 0 and high <= 1 < top:  # no share is above all
        top = 1.0
    return Axis(bottom, top, HEIGHT - BOTTOM, TOP)


def _x_ticks(xs: Sequence[float], axis: Axis) -> list[tuple[float, str]]:
    """Return the measured places, without those that would be written into one another."""
    kept: list[float] = []
    for x in xs:
        if not kept or axis(x) - axis(kept[-1]) > 22:
            kept.append(x)
    return [(x, short(x)) for x in kept]


def _round_values(axis: Axis) -> list[float]:
    """Return three to six round numbers inside the axis."""
    rough = (axis.high - axis.low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first = math.ceil(axis.low / step - 1e-9)
    return [k * step for k in range(first, math.floor(axis.high / step + 1e-9) + 1)]


def _frame(x_axis: Axis, y_axis: Axis, x_ticks: Sequence[tuple[float, str]], x_name: str) -> str:
    floor, parts = HEIGHT - BOTTOM, []
    for value in _round_values(y_axis):
        y = y_axis(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 5, y + 3.5, f"{value:.4g}", "end"))
    for value, label in x_ticks:
        x = x_axis(value)
        parts.append(f'<path class="tick" d="M{x:.1f} {floor}v4"/>')
        parts.append(_text(x, floor + 15, label, "middle"))
    parts.append(f'<path class="axis" d="M{LEFT} {floor}H{WIDTH - RIGHT}"/>')
    parts.append(_text(WIDTH - RIGHT, floor + 27, x_name, "end"))
    return "".join(parts)


def _curve(line: Line, index: int, x_axis: Axis, y_axis: Axis) -> str:
    parts = []
    if line.band:
        there = [f"{x_axis(x):.1f} {y_axis(low):.1f}" for x, low, _ in line.band]
        back = [f"{x_axis(x):.1f} {y_axis(high):.1f}" for x, _, high in reversed(line.band)]
        parts.append(f'<path class="band s{index}" d="M{"L".join(there + back)}Z"/>')
    places = [(x_axis(x), y_axis(y)) for x, y in line.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts.append(f'<path class="line s{index}" d="M{path}"/>')
    parts += [_mark(x, y, index) for x, y in places]
    return "".join(parts)


def _mark(x: float, y: float, index: int) -> str:
    shapes = ("M-3 -3h6v6h-6z", "M0 -4L4 3H-4z", "M-4 0L0 -4L4 0L0 4z", "M-3 -1h6v2h-6z")
    place = f'transform="translate({x:.1f} {y:.1f})"'
    return f'<path class="mark s{index}" {place} d="{shapes[index]}"/>'


def _legend(name: str, index: int, columns: int) -> str:
    row, column = divmod(index, columns)
    x = LEFT - 30 + column * (WIDTH - LEFT + 20) / columns
    y = HEIGHT - 19 + LEGEND_ROW * row
    line = f'<path class="line s{index}" d="M{x:.1f} {y:.1f}h22"/>'
    return line + _mark(x + 11, y, index) + _text(x + 27, y + 3.5, name, "start")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(title: str, said: str, body: Sequence[str], height: float = HEIGHT) -> str:
    label = escape(f"{title}. {said}", quote=True)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{label}">'
        f"{''.join(body)}</svg></figure>"
    )
