"""Axes and charts: what is drawn is where the numbers say, and nothing from data becomes markup."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from retinue.pipeline.artifacts import CalibrationBin
from retinue.reports.axes import Axis, unit_axis
from retinue.reports.charts import SQUARE, Chart, Line, line_chart, reliability_chart, tag

finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)

LEFT, TOP, RIGHT, BOTTOM = 60, 26, SQUARE[0] - 14, SQUARE[1] - 42
"""The plotting area of a square chart."""


def drawn(lines: list[Line], **options) -> ElementTree.Element:
    axes = options.pop("axes", (unit_axis("x"), unit_axis("y")))
    return parsed(line_chart("title", lines, *axes, alt="alt", size=SQUARE, **options))


def parsed(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(str(chart.svg))


def points_of(svg: ElementTree.Element) -> list[list[tuple[float, ...]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()] for line in svg.iter("polyline")
    ]


@given(st.lists(finite, min_size=1, max_size=20))
def test_an_axis_holds_its_values_between_evenly_spaced_ticks(values):
    axis = Axis.around("x", values)
    slack = 1e-9 * (axis.high - axis.low)
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack
    assert 3 <= len(axis.ticks) <= 7
    steps = [b - a for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert round(steps[0] / 10 ** math.floor(math.log10(steps[0] * 1.0001)), 6) in (1, 2, 2.5, 5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_an_axis_of_scores_stays_within_its_limits(values):
    axis = Axis.around("x", values, within=(0.0, 1.0))
    assert 0 <= axis.low < axis.high <= 1
    slack = 1e-9 * (axis.high - axis.low)
    assert axis.low - slack <= min(values) <= max(values) <= axis.high + slack


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20))
@example([0, 11])
def test_an_axis_of_whole_numbers_has_whole_ticks(values):
    axis = Axis.around("epoch", values, whole=True)
    assert all(tick == round(tick) for tick in axis.ticks)
    assert axis.low <= min(values) <= max(values) <= axis.high


def test_an_axis_is_logarithmic_only_where_that_shows_more():
    assert Axis.around("x", [0.01, 10], may_be_log=True).log
    assert Axis.around("x", [0.01, 10], may_be_log=True).ticks == pytest.approx((0.01, 0.1, 1, 10))
    assert Axis.around("x", [0.01, 10], may_be_log=True).place(0.1) == pytest.approx(1 / 3)
    assert not Axis.around("x", [0.01, 10]).log
    assert not Axis.around("x", [1, 10], may_be_log=True).log
    assert not Axis.around("x", [0, 10], may_be_log=True).log


def test_values_that_are_not_finite_do_not_count():
    assert Axis.around("x", [math.nan, 2, 4, math.inf]) == Axis.around("x", [2, 4])
    assert Axis.around("x", [math.nan]) == Axis.around("x", [0, 1])


def test_a_line_goes_through_its_points():
    (points,) = points_of(drawn([Line("a", [0, 0.5, 1], [0, 1, 0.5], "first")]))
    assert points == [(LEFT, BOTTOM), ((LEFT + RIGHT) / 2, TOP), (RIGHT, (TOP + BOTTOM) / 2)]


def test_points_on_a_straight_stretch_are_left_out_and_turning_points_are_not():
    xs, ys = [0, 0, 0, 0.5, 1, 1], [0, 0.2, 0.6, 0.6, 0.6, 1]
    (points,) = points_of(drawn([Line("steps", xs, ys, "first")]))
    middle = round(BOTTOM - 0.6 * (BOTTOM - TOP), 1)
    assert points == [(LEFT, BOTTOM), (LEFT, middle), (RIGHT, middle), (RIGHT, TOP)]
    (spike,) = points_of(drawn([Line("spike", [0.5, 0.5, 0.5, 1], [0, 1, 0, 0], "first")]))
    assert [y for _, y in spike] == [BOTTOM, TOP, BOTTOM, BOTTOM]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40))
def test_leaving_points_out_moves_no_drawn_pixel(pairs):
    xs, ys = zip(*sorted(pairs), strict=True)
    (points,) = points_of(drawn([Line("a", xs, ys, "first")]))
    places = [
        (round(LEFT + x * (RIGHT - LEFT), 1), round(BOTTOM - y * (BOTTOM - TOP), 1))
        for x, y in zip(xs, ys, strict=True)
    ]
    assert {points[0], points[-1]} == {places[0], places[-1]}
    for place in places:
        assert any(_on(place, a, b) for a, b in zip(points, points[1:] or points, strict=False))


def _on(point, a, b) -> bool:
    """Whether `point` is a, b, or on the level or upright line between them."""
    between = all(min(a[i], b[i]) <= point[i] <= max(a[i], b[i]) for i in (0, 1))
    return point in (a, b) or (between and (a[0] == b[0] or a[1] == b[1]))


def test_a_value_that_is_not_finite_leaves_a_gap():
    lines = points_of(drawn([Line("a", [0, 0.2, 0.4, 0.6, 0.8], [0, 0.3, math.nan, 0.3, 0.9], "first")]))
    assert [len(points) for points in lines] == [2, 2]


def test_a_single_epoch_is_visible():
    x = Axis.around("epoch", [1], whole=True)
    svg = drawn([Line("val", [1], [0.5], "first")], axes=(x, unit_axis("y")), dots=True)
    (dot,) = svg.iter("circle")
    assert float(dot.get("cx", "nan")) == pytest.approx((LEFT + RIGHT) / 2)
    assert dot.findtext("title") == "val: 1, 0.5"


def test_curves_are_clipped_to_the_plotting_area():
    x = Axis.around("x", [0, 0.1])
    svg = drawn([Line("roc", [0, 1], [0, 1], "first")], axes=(x, unit_axis("y")))
    (inner,) = svg.iter("svg") if svg.tag != "svg" else [child for child in svg if child.tag == "svg"]
    assert [polyline.tag for polyline in inner.iter("polyline")] == ["polyline"]
    assert inner.get("viewBox") == f"{LEFT - 4} {TOP - 4} {RIGHT - LEFT + 8} {BOTTOM - TOP + 8}"


def test_the_mark_stands_at_its_value_and_says_what_it_is():
    x = Axis.around("epoch", [0, 10])
    svg = drawn([Line("val", [0, 10], [0, 1], "first")], axes=(x, unit_axis("y")), mark=(5, "best: 5"))
    (mark,) = [line for line in svg.iter("line") if line.get("class") == "mark"]
    assert float(mark.get("x1", "nan")) == (LEFT + RIGHT) / 2
    assert "best: 5" in [text.text for text in svg.iter("text")]


def test_reliability_bars_are_as_high_as_the_accuracy():
    bins = [CalibrationBin(0.5, 0.6, 10, 0.55, 0.25), CalibrationBin(0.9, 1.0, 30, 0.97, 1.0)]
    chart = reliability_chart("Reliability", bins, alt="alt")
    bars = [rect for rect in parsed(chart).iter("rect") if rect.get("class") == "bar"]
    counts = [rect for rect in parsed(chart).iter("rect") if rect.get("class") == "count"]
    heights = [float(bar.get("height", "nan")) for bar in bars]
    assert heights[0] / heights[1] == pytest.approx(0.25, abs=0.01)
    assert float(counts[0].get("height", "nan")) / float(counts[1].get("height", "nan")) == pytest.approx(
        1 / 3, abs=0.02
    )


def test_a_chart_says_in_words_what_it_shows():
    svg = drawn([Line("a", [0, 1], [0, 1], "first")])
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == "alt"


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "]]>"])
def test_a_name_from_data_never_becomes_markup(hostile):
    chart = line_chart(
        hostile,
        [Line(hostile, [0, 1], [0, 1], "first"), Line(hostile, [0, 1], [1, 0], "thin")],
        unit_axis(hostile),
        unit_axis(hostile),
        alt=hostile,
        dots=True,
        mark=(0.5, hostile),
    )
    svg = parsed(chart)
    assert {element.tag for element in svg.iter()} == {"svg", "line", "text", "title", "polyline", "circle"}
    assert svg.get("aria-label") == hostile
    assert not [key for element in svg.iter() for key in element.keys() if key.startswith("on")]  # noqa: SIM118
    assert hostile in [text.text for text in svg.iter("text")]


def test_very_long_names_are_cut_under_the_pointer():
    svg = drawn([Line("x" * 500, [0, 1], [0, 1], "thin")])
    assert max(len(title.text or "") for title in svg.iter("title")) <= 61


def test_the_same_numbers_give_the_same_bytes():
    lines = [Line("a", [0, 0.123456789, 1], [0.3, 0.1, 1 / 3], "first")]
    first = line_chart("t", lines, unit_axis("x"), unit_axis("y"), alt="a").svg
    second = line_chart("t", list(lines), unit_axis("x"), unit_axis("y"), alt="a").svg
    assert first == second
    assert not re.search(r"\d\.\d{2,}", " ".join(re.findall(r'points="([^"]*)"', first)))


def test_a_tag_escapes_everything_but_markup():
    assert tag("a", "<b>", Markup("<c/>"), class_='"') == '<a class="&#34;">&lt;b&gt;<c/></a>'


def test_an_axis_of_next_to_nothing_is_an_axis() -> None:
    axis = Axis.around("x", [5e-324], within=(0.0, 1.0))
    assert axis.low == 0 < axis.high <= 1
