"""A report as one HTML file that fetches nothing: opens from disk, reads on a phone and on paper.

Every text goes through `escape`: names come from recordings and bundles that anybody may have made.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from platform import python_version
from typing import Any

from PIL import Image

from genie_gym.evaluation.pictures import Picture
from genie_gym.evaluation.report_tables import bars_table, render
from genie_gym.evaluation.report_text import SECTIONS, STYLE
from genie_gym.evaluation.section_charts import find_charts, in_words
from genie_gym.files import write_text
from genie_gym.models.world import World

MAX_INLINE_BYTES = 5_000_000
"""Films of up to so many bytes together go into the page; others are linked beside it."""
PACKAGES = ("genie-gym", "torch", "numpy", "ale-py")
PROVENANCE = ("data", "config")
"""Sections that say what the figures were measured on, and how."""


def write_report(
    report: Mapping[str, Any],
    folder: Path,
    world: World,
    pictures: Sequence[Picture],
) -> Path:
    """Write `report.html`; return its path.

    Args:
        report: sections by name, as `report.json` holds them.
        folder: where the page goes.
        world: what was measured.
        pictures: what `write_pictures` wrote, into the same folder.
    """
    path = folder / "report.html"
    write_text(path, _page(report, world, pictures))
    return path


def _page(report: Mapping[str, Any], world: World, pictures: Sequence[Picture]) -> str:
    title = f"{world.config.game}: a learned world on held-out play"
    bars = report.get("bars", [])
    order = [*SECTIONS, *report]
    keys = sorted(report.keys() - {"bars", *PROVENANCE}, key=order.index)
    sections = [_section("bars", bars_table(bars))] if bars else []
    sections += [_section("pictures", _pictures(pictures))] if pictures else []
    sections += [_section(key, _charts(report[key]) + render(report[key])) for key in keys]
    sections.append(_section("provenance", render(_provenance(report, world))))
    links = "".join(
        f'<a href="#section-{index}">{escape(name)}</a>' for index, (name, _) in enumerate(sections)
    )
    body = "".join(
        f'<section id="section-{index}"><h2>{escape(name)}</h2>{content}</section>'
        for index, (name, content) in enumerate(sections)
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p class="lead">{_summary(bars)}</p>'
        f"<nav>{links}</nav></header><main>{body}</main></body></html>\n"
    )


def _summary(bars: Sequence[Mapping[str, Any]]) -> str:
    met = [bar.get("met") for bar in bars]
    if not met:
        return "No bars are set for this report."
    missing = sum(one is None for one in met)
    text = f"{sum(one is True for one in met)} of {len(met)} figures meet their bar"
    return f"{text}; {missing} could not be measured." if missing else f"{text}."


def _section(key: str, content: str) -> tuple[str, str]:
    """Return title and body."""
    title, text = SECTIONS.get(key, (in_words(key).capitalize(), ""))
    return title, f"<p>{escape(text)}</p>{content}" if text else content


def _charts(figures: Any) -> str:
    charts = "".join(find_charts(figures))
    return f'<div class="charts">{charts}</div>' if charts else ""


def _pictures(pictures: Sequence[Picture]) -> str:
    films = [one for one in pictures if one.last_frame is not None]
    num_bytes = sum(film.path.stat().st_size for film in films if film.path is not None)
    is_inline = num_bytes <= MAX_INLINE_BYTES
    shown = "".join(_film(film, is_inline=is_inline) for film in films)
    rest = "".join(_still(one) for one in pictures if one.last_frame is None)
    return f'<div class="pictures"><div class="films">{shown}</div>{rest}</div>'


def _film(film: Picture, *, is_inline: bool) -> str:
    assert film.path is not None and film.last_frame is not None
    height, width, _ = film.last_frame.shape
    if is_inline:
        source = _data("video/mp4", film.path.read_bytes())
    else:
        source = escape(film.path.name, quote=True)
    png = BytesIO()
    Image.fromarray(film.last_frame).save(png, format="PNG")
    poster, text = _data("image/png", png.getvalue()), escape(film.text, quote=True)
    return (
        f"<figure>{_caption(film)}"
        f'<video controls loop muted playsinline preload="metadata" width="{width}" '
        f'height="{height}" aria-label="{text}" poster="{poster}" src="{source}"></video>'
        f'<img class="onpaper" alt="{text}" src="{poster}"></figure>'
    )


def _still(picture: Picture) -> str:
    if picture.path is None:
        return f'<figure>{_caption(picture)}<p class="none">no picture</p></figure>'
    source = _data("image/png", picture.path.read_bytes())
    text = escape(picture.text, quote=True)
    image = f'<div class="scroll" tabindex="0"><img alt="{text}" src="{source}"></div>'
    return f"<figure>{_caption(picture)}{image}</figure>"


def _caption(picture: Picture) -> str:
    return f"<figcaption>{escape(picture.title)}<p>{escape(picture.text)}</p></figcaption>"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _provenance(report: Mapping[str, Any], world: World) -> dict[str, Any]:
    return {
        **{key: report[key] for key in PROVENANCE if key in report},
        "world": {"game": world.config.game, **world.card.get("provenance", {})},
        "versions": {"python": python_version()} | {name: version(name) for name in PACKAGES},
    }
