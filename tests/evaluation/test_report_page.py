import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from genie_gym.evaluation import report_page
from genie_gym.evaluation.charts import Axis, Line, bar_chart, line_chart, reliability_chart, short
from genie_gym.evaluation.pictures import Picture
from genie_gym.evaluation.report_page import write_report
from genie_gym.evaluation.report_tables import bars_table, render
from genie_gym.evaluation.section_charts import find_charts
from genie_gym.evaluation.video import write_video
from genie_gym.models.world import World

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """Reads a page, and fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        """Open a tag."""
        self.tags.append((tag, dict(attributes)))
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        """Note a tag that is closed at once: of an SVG alone."""
        assert "svg" in self.open
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        """Close the newest tag."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep a text."""
        self.texts.append(data)

    def all(self, tag):
        """Return the attributes of all tags of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


REPORT = {
    "bars": [
        {"figure": "ball within 2 px", "value": 0.88, "bar": 0.85, "goal": 0.98, "met": True},
        {"figure": "paddle", "value": 0.5, "bar": 0.95, "goal": 0.99, "met": False},
        {
            "figure": "ends",
            "value": None,
            "bar": 0.9,
            "goal": 1,
            "met": None,
            "reason": "no game ends in the recording",
        },
    ],
    "prediction": {
        "by_step": {
            step: {
                "scored": 10,
                "psnr": {"mean": 40.0 - step, "p10": 35.0 - step, "p90": 44.0 - step},
                "copy_psnr": {"mean": 30.0, "p10": 29.0, "p90": 31.0},
                "skill": {"mean": None, "p10": None, "p90": None, "reason": "nothing changed"},
            }
            for step in (1, 10, 100)
        }
    },
    "data": {"recording": "heldout", "frames": 120},
    "config": {"seed": 3},
}


def no_pictures(world, report, folder):
    return Page(write_report(report, folder, world, []).read_text())


def test_the_page_is_whole_and_fetches_nothing(world, tmp_path):
    path = write_report(REPORT, tmp_path, world, [])
    text = path.read_text()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and path.name == "report.html"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) == 3
    links = {attributes["href"] for attributes in page.all("a")}
    assert links == {f"#{name}" for name in ids}
    assert not page.all("script") and not page.all("link")
    assert not re.search(r"https?:|url\(|@import", text)
    assert list(tmp_path.iterdir()) == [path]


def test_bars_are_told_in_words(world, tmp_path):
    page = no_pictures(world, REPORT, tmp_path)
    text = " ".join(page.texts)
    for words in ("bar met", "bar not met", "not measured: no game ends in the recording"):
        assert words in text
    assert "1 of 3 figures meet their bar; 1 could not be measured." in text


def test_provenance_names_recording_seed_world_and_versions(world, tmp_path):
    page = no_pictures(world, REPORT, tmp_path)
    at = page.texts.index("Provenance", page.texts.index("Figures and their bars") + 5)
    text = " ".join(page.texts[at:])
    for words in ("heldout", "seed 3", "Pong", "torch", "genie-gym"):
        assert words in text


def test_a_report_without_bars_or_known_sections_is_shown_too(world, tmp_path):
    page = no_pictures(world, {"new_thing": {"depth": {"of": {"figure": [1, 2.5]}}}}, tmp_path)
    assert "New thing" in page.texts and "1, 2.5" in page.texts


@pytest.mark.parametrize(
    "place",
    [
        lambda bad: {bad: {bad: bad}},
        lambda bad: {"x": {bad: {"a": 1, "b": 2.0}, "y": {"a": 1, "b": 2.0}}},
        lambda bad: {"x": {"by_step": {1: {bad: 0.5}, 2: {bad: 0.6}}}},
        lambda bad: {"x": {"value": None, "reason": bad}},
        lambda bad: {"x": {"figure": {"mean": None, "reason": bad}, "z": [{bad: bad}, {}]}},
        lambda bad: {"bars": [{"figure": bad, "value": bad, "met": None, "reason": bad}]},
        lambda bad: {"data": {"recording": bad}, "config": {bad: bad}},
    ],
)
def test_hostile_names_are_only_text(world, tmp_path, place):
    page = no_pictures(world, place(HOSTILE), tmp_path)
    assert not page.all("script") and not page.all("img")
    seen = page.texts + [
        value or "" for _, attributes in page.tags for value in attributes.values()
    ]
    assert any("<script>alert(1)</script>" in text.lower() for text in seen)


def test_a_hostile_bundle_is_only_text(world, tmp_path):
    card = {**world.card, "provenance": {HOSTILE: HOSTILE}}
    other = World(world.stack, world.starts, parts=world.parts, card=card)
    assert not no_pictures(other, REPORT, tmp_path).all("script")


def pictures(folder):
    frames = np.zeros((3, 20, 40, 3), np.uint8)
    write_video(folder / "a.mp4", frames, scale=1)
    film = Picture(HOSTILE, HOSTILE, folder / "a.mp4", frames[-1])
    return [film, Picture("Latent", "not trained", None)]


def test_small_films_go_into_the_page(world, tmp_path):
    page = Page(write_report(REPORT, tmp_path, world, pictures(tmp_path)).read_text())
    [video], [image] = page.all("video"), page.all("img")
    assert video["src"].startswith("data:video/mp4;base64,")
    assert video["poster"] == image["src"] and image["alt"] == HOSTILE
    assert (video["width"], video["height"]) == ("40", "20")
    assert "not trained" in page.texts and not page.all("script")


def test_large_films_are_linked_beside_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr(report_page, "MAX_INLINE_BYTES", 10)
    page = Page(write_report(REPORT, tmp_path, world, pictures(tmp_path)).read_text())
    assert [video["src"] for video in page.all("video")] == ["a.mp4"]


def titles(section):
    return re.findall("<figcaption>(.*?)</figcaption>", "".join(find_charts(section)))


def test_copying_and_the_band_are_drawn_into_the_chart_of_the_figure():
    [chart] = find_charts(REPORT["prediction"])
    assert titles(REPORT["prediction"]) == ["PSNR"]
    assert chart.count('class="band') == 2 and chart.count('class="mark') == 2 * 3 + 2
    assert "the world: 39 at 1, -60 at 100; copying: 30 at 1, 30 at 100" in chart


def test_shares_of_every_step_share_a_chart_and_counts_have_none():
    row = {"lost": 0.1, "x_error": 3.5, "y_error": 0.5, "doubled": 0.2, "speed": 7.5, "scored": 5}
    assert titles({"by_step": {"1": row, "2": row}}) == ["shares", "errors", "speed"]


def test_figures_of_kinds_are_drawn_by_kind():
    steps = {k: {"+1": {"recall": 0.5}, "bins": {"error": 0.1}} for k in (1, 2)}
    assert titles({"by_step": steps}) == ["+1: recall", "bins: error"]


def test_a_label_curve_a_usage_and_a_reliability_are_found_by_shape():
    bins = [{"told": 0.1, "observed": 0.2}, {"told": 0.9, "observed": 0.7}]
    section = {
        "labels_needed": {"move": {10: {"value": 0.5, "stderr": 0.1}, 100: {"value": 0.75}}},
        "seconds": {1: 0.5, 64: 2},
        "usage": [0.5, 0.25, 0.25],
        "calibration": {"bins": bins},
        "by_code": {0: {"value": 0.5}, 1: {"value": 0.5}},
    }
    assert titles(section) == [
        "labels needed: move",
        "seconds",
        "usage of each code",
        "calibration: bins",
    ]


@pytest.mark.parametrize(
    "section",
    [None, 3.5, "text", [], {}, {"by_step": {}}, {1: None, 2: None}, {"-1": 0.5, "+1": 0.5}],
)
def test_nothing_to_draw_is_no_error(section):
    assert titles(section) == []


def test_an_axis_over_decades_is_logarithmic():
    axis = Axis(1.0, 100.0, 0.0, 300.0, is_log=True)
    assert [axis(x) for x in (1.0, 10.0, 100.0)] == pytest.approx([0, 150, 300])
    assert Axis(0.0, 4.0, 0.0, 300.0)(1.0) == 75


def test_points_lie_where_they_belong():
    chart = line_chart("t", [Line("a", [(0.0, 0.0), (1.0, 1.0), (2.0, 0.5)])], "x")
    [path] = re.findall('class="line s0" d="M(.*?)"', chart)
    (x0, y0), (x1, y1), (x2, y2) = [map(float, one.split()) for one in path.split("L")]
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2) and y0 > y2 > y1


@pytest.mark.parametrize(
    "chart",
    [
        line_chart("one", [Line("a", [(5.0, 0.0)])], "x"),
        line_chart("flat", [Line("a", [(1.0, 2.0), (9.0, 2.0)])], "x"),
        bar_chart("none", ["0", "1"], [0.0, 0.0], "code"),
        reliability_chart("small", [(1e-6, 0.0), (2e-6, 3e-6)]),
    ],
)
def test_charts_of_little_are_drawn(chart):
    assert "nan" not in chart and Page(chart).all("svg")[0]["role"] == "img"


def test_bars_have_the_height_of_their_value():
    chart = bar_chart("t", ["0", "1", "2"], [0.5, 0.25, 0.0], "code")
    heights = [float(x) for x in re.findall('class="bar".*?height="(.*?)"', chart)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.1) and heights[2] == 0


def test_numbers_are_short():
    values = (0.98765, 41.253, 8e-06, 30000, 1234.5)
    assert [short(x) for x in values] == ["0.988", "41.3", "8e-06", "30,000", "1,234"]
    assert short(math.nan) == "not a number"


def test_none_has_the_reason_beside_it_also_in_nested_rows():
    rows = {
        step: {"+1": {"precision": None, "recall": 0.5, "reason": "none was told"}, "bias": 0.125}
        for step in (1, 5)
    }
    text = " ".join(Page(render({"by_step": rows})).texts)
    assert text.count("not measured: none was told") == 2
    assert text.count("none was told") == 2 and "+1 recall" in text


def test_a_section_that_could_not_be_measured_is_its_reason():
    assert "not measured: objects are found in Pong alone" in render(
        {"reason": "objects are found in Pong alone"}
    )


def test_a_figure_stands_with_its_spread_error_and_count():
    assert "0.5<small>0.25 to 0.75</small>" in render(
        {"x": {"mean": 0.5, "p10": 0.25, "p90": 0.75}}
    )
    text = render({"x": {"value": 0.5, "stderr": 0.125, "count": 4}})
    assert "0.5<small>&plusmn; 0.125 of 4</small>" in text


def test_an_unknown_verdict_is_shown_as_it_is():
    assert "goal met" in bars_table([{"figure": "x", "value": 1.0, "met": "goal met"}])
