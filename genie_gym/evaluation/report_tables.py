"""Any part of a report as HTML tables: what is new in a report is shown without new code.

None is never left blank: it is shown with the reason that stands beside it in the report.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from genie_gym.evaluation.charts import short
from genie_gym.evaluation.section_charts import in_words, is_figure, main_of

Group = Mapping[Any, Any]
"""Part of a report; its keys are text, or numbers of steps."""
REASON = "reason"
BAR_COLUMNS = ("figure", "value", "bar", "goal", "met")
VERDICTS: dict[Any, tuple[str, str]] = {
    True: ("yes", "bar met"),
    False: ("no", "bar not met"),
    None: ("none", "not measured"),
}
"""Class and words of every answer to whether a bar is met."""
LAST_HEADING = 6


def bars_table(bars: Sequence[Group]) -> str:
    """Return the figures that a world is judged by, each with a verdict in words."""
    head = "".join(f"<th>{name}</th>" for name in BAR_COLUMNS)
    rows = "".join(f"<tr>{_bar_row(bar)}</tr>" for bar in bars)
    return _scroll(
        f'<table class="bars"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _bar_row(bar: Group) -> str:
    cells = "".join(
        f'<td data-name="{name}">{_inline(bar.get(name), bar.get(REASON))}</td>'
        for name in ("value", "bar", "goal")
    )
    met = bar.get("met")
    kind, words = VERDICTS.get(met, ("none", escape(str(met))))
    figure = escape(str(bar.get("figure", "")))
    verdict = f'<td class="verdict"><span class="{kind}">{words}</span></td>'
    return f'<th scope="row">{figure}</th>{cells}{verdict}'


def render(value: Any, level: int = 3, corner: str = "") -> str:
    """Return any value of a report as HTML.

    Args:
        value: a section, or a part of one.
        level: of the headings of nested mappings.
        corner: what the rows are, should it become a table.
    """
    if isinstance(value, Mapping) and not is_figure(value):
        return _mapping(value, level, corner)
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        return _table({str(index): row for index, row in enumerate(value, 1)}, corner)
    return f"<p>{_inline(value)}</p>"


def _mapping(group: Group, level: int, corner: str) -> str:
    """Return a table of what is one value, one of what is alike, and a part for the rest."""
    if set(group) == {REASON}:
        return f"<p>{_inline(None, group[REASON])}</p>"
    single = {key: value for key, value in group.items() if not _is_group(value)}
    flat = _alike(
        {
            key: _flat(value)
            for key, value in group.items()
            if isinstance(value, Mapping) and key not in single
        }
    )
    parts = []
    has_none = any(value is None for value in single.values())
    if rows := [key for key in single if key != REASON or not has_none]:
        body = "".join(_row(key, [_cell(single[key], group.get(REASON))]) for key in rows)
        parts.append(_scroll(f"<table><tbody>{body}</tbody></table>"))
    parts += [_table(flat, corner)] if flat else []
    for key, value in group.items():
        rest = _lists(value) if key in flat else {in_words(key): value}
        for name, one in rest.items() if key not in single else ():
            title = f"{in_words(key)}: {name}" if key in flat else name
            tag = f"h{min(level, LAST_HEADING)}"
            corner = "step" if key == "by_step" else ""
            parts.append(f"<{tag}>{escape(title)}</{tag}>{render(one, level + 1, corner)}")
    return "".join(parts)


def _is_group(value: Any) -> bool:
    """Return whether a value needs a part of its own."""
    if isinstance(value, list):
        return any(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping) and not is_figure(value)


def _flat(group: Group, name: str = "") -> dict[str, Any]:
    """Return all single values of nested mappings, named by their paths."""
    flat: dict[str, Any] = {}
    for key, value in group.items():
        path = f"{name} {in_words(key)}".strip()
        if value is None:
            flat[path] = {"value": None, REASON: group.get(REASON)}
        elif not _is_group(value) and (key != REASON or None not in group.values()):
            flat[path] = value
        elif isinstance(value, Mapping):
            flat |= _flat(value, path)
    return flat


def _lists(group: Group, name: str = "") -> dict[str, Any]:
    """Return all tables of nested mappings, named by their paths: what `_flat` leaves out."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        path = f"{name} {in_words(key)}".strip()
        if isinstance(value, Mapping) and not is_figure(value):
            found |= _lists(value, path)
        elif _is_group(value):
            found[path] = value
    return found


def _alike(rows: Mapping[Any, Group]) -> Mapping[Any, Group]:
    """Return the first two or more rows that hold values under mostly the same names, if any."""
    for one in rows.values():
        alike = {
            key: row
            for key, row in rows.items()
            if 2 * len(one.keys() & row.keys()) >= len(one.keys() | row.keys()) > 0
        }
        if len(alike) > 1:
            return alike
    return {}


def _table(rows: Mapping[Any, Group], corner: str) -> str:
    """Return a row for every mapping and a column for every name in them."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row if name != REASON))
    head = "".join(f'<th scope="col">{escape(in_words(name))}</th>' for name in names)
    body = "".join(
        _row(
            key,
            [_cell(row[name], row.get(REASON)) if name in row else "<td></td>" for name in names],
        )
        for key, row in rows.items()
    )
    table = f"<table><thead><tr><th>{corner}</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return _scroll(table)


def _row(key: object, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{escape(in_words(key))}</th>{"".join(cells)}</tr>'


def _cell(value: Any, reason: Any) -> str:
    is_text = isinstance(value, str) or (isinstance(value, list) and len(value) > 3)
    kind = ' class="text"' if is_text else ""
    return f"<td{kind}>{_inline(value, reason)}</td>"


def _inline(value: Any, reason: Any = None) -> str:
    """Return one value as a line of HTML."""
    if value is None:
        why = f": {escape(str(reason))}" if reason else ""
        return f'<span class="none">not measured{why}</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return short(value)
    if is_figure(value):
        return _figure(value, reason)
    if isinstance(value, Mapping):
        return "; ".join(f"{escape(in_words(k))} {_inline(one)}" for k, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_inline(one) for one in value)
    return escape(str(value))


def _figure(figure: Group, reason: Any) -> str:
    """Return a mean, and below it its spread, error and count as far as they are there."""
    main = main_of(figure)
    if main is None:
        return _inline(None, figure.get(REASON, reason))
    notes = []
    if figure.get("p10") is not None:
        notes.append(f"{short(figure['p10'])} to {short(figure['p90'])}")
    if figure.get("stderr") is not None:
        notes.append(f"&plusmn; {short(figure['stderr'])}")
    if figure.get("count") is not None:
        notes.append(f"of {short(figure['count'])}")
    small = f"<small>{' '.join(notes)}</small>" if notes else ""
    return _inline(main) + small


def _scroll(table: str) -> str:
    """Return a table that scrolls by itself where the screen is narrower."""
    return f'<div class="scroll" tabindex="0">{table}</div>'
