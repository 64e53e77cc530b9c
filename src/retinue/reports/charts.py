"""Charts as inline SVG: from numbers to shapes.

Drawn by hand rather than by a plotting library: a chart is a few kilobytes, the same bytes every time, sharp at any
size, and takes its colours from the page's style sheet, so it follows dark mode and print. Text that comes from data is
escaped by construction (markupsafe).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from retinue.pipeline.artifacts import CalibrationBin
from retinue.pipeline.numbers import figure, significant, tick_text
from retinue.reports.axes import Axis, unit_axis

WIDE = (460, 270)
SQUARE = (360, 360)
MARKED_POINTS = 60
"""Up to this many points of a line get a dot that says its value under the pointer."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 26, 42
_MAX_LABEL = 60


class Line(NamedTuple):
    """A curve of a chart.

    Attributes:
        name: in the legend, or under the pointer for thin lines.
        xs, ys: its points; one that is not finite leaves a gap.
        style: class of the style sheet: "first" (solid), "second" (dashed), "thin" (one of many), "point" (no line).
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: str


class Chart(NamedTuple):
    """A drawn chart.

    Attributes:
        title: heading.
        svg: the drawing.
        legend: (style, name) of what is drawn.
        note: a sentence below the chart; "" is none.
    """

    title: str
    svg: Markup
    legend: list[tuple[str, str]]
    note: str = ""


@dataclass(frozen=True)
class _PlotArea:
    """The plotting area inside a drawing, and its two axes."""

    x: Axis
    y: Axis
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.width - _RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a point, to a tenth."""
        across, up = self.x.place(x), self.y.place(y)
        return round(_LEFT + across * (self.right - _LEFT), 1), round(self.bottom - up * (self.bottom - _TOP), 1)

    def clipped(self, parts: Sequence[Markup]) -> Markup:
        """`parts`, seen inside the plotting area only, with room for the strokes and dots on its edge."""
        left, top = _LEFT - 4, _TOP - 4
        width, height = self.right + 4 - left, self.bottom + 4 - top
        box = f"{left} {top} {_coordinate(width)} {_coordinate(height)}"
        return tag("svg", *parts, x=left, y=top, width=width, height=height, viewBox=box)

    def grid(self) -> Markup:
        """Grid lines, tick labels and axis names."""
        parts = []
        for tick in self.y.ticks:
            _, y = self.at(self.x.low, tick)
            parts.append(tag("line", class_="grid", x1=_LEFT, y1=y, x2=self.right, y2=y))
            parts.append(tag("text", tick_text(tick), class_="tick", x=_LEFT - 7, y=y + 4, text_anchor="end"))
        for tick in self.x.ticks:
            x, _ = self.at(tick, self.y.low)
            parts.append(tag("line", class_="grid", x1=x, y1=_TOP, x2=x, y2=self.bottom))
            parts.append(tag("text", tick_text(tick), class_="tick", x=x, y=self.bottom + 17, text_anchor="middle"))
        middle = (_LEFT + self.right) / 2
        parts.append(tag("text", self.x.name, class_="name", x=middle, y=self.height - 6, text_anchor="middle"))
        parts.append(tag("text", self.y.name, class_="name", x=8, y=14))
        return Markup("").join(parts)


def line_chart(
    title: str,
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    *,
    alt: str,
    size: tuple[int, int] = WIDE,
    diagonal: bool = False,
    mark: tuple[float, str] | None = None,
    dots: bool = False,
    note: str = "",
) -> Chart:
    """Curves over a common x.

    Args:
        title: heading.
        lines: in drawing order, the last on top.
        x, y: the axes.
        alt: what a person who cannot see the chart should know of it.
        size: width and height of the drawing in its own units.
        diagonal: draws the line from the lower left to the upper right corner (chance, or perfect calibration).
        mark: an x value that is marked, and its label.
        dots: marks every point of lines that have few, with its value under the pointer.
        note: a sentence below the chart.
    """
    frame = _PlotArea(x, y, *size)
    parts = [frame.grid()]
    if diagonal:
        parts.append(_diagonal(frame))
    if mark is not None:
        parts.append(_marked_value(frame, *mark))
    parts.append(frame.clipped([_curve(frame, line, dots) for line in lines]))
    legend = [(line.style, line.name) for line in lines if line.style != "thin"]
    return Chart(title, _drawing(frame, parts, alt), legend, note)


def reliability_chart(title: str, bins: Sequence[CalibrationBin], *, alt: str, note: str = "") -> Chart:
    """How often the network is right at each confidence: a bar a bin, the share of images below, the ideal as a line.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", figure 1.
    """
    width, height = SQUARE
    upper = _PlotArea(unit_axis("confidence"), unit_axis("share right"), width, height - 62)
    total = sum(b.num_images for b in bins) or 1
    parts = [upper.grid(), _diagonal(upper)]
    strip_bottom = height - 10
    parts.append(tag("line", class_="axis", x1=_LEFT, y1=strip_bottom, x2=upper.right, y2=strip_bottom))
    parts.append(tag("text", "images", class_="name", x=8, y=strip_bottom - 4))
    for b in bins:
        (left, top), (right, _) = upper.at(b.lower, b.accuracy), upper.at(b.upper, b.accuracy)
        box = {"x": left + 0.7, "width": right - left - 1.4}
        tip = tag(
            "title",
            f"{figure(b.num_images)} images of {tick_text(b.lower)} to {tick_text(b.upper)}: "
            f"mean {figure(b.confidence)}, right {figure(b.accuracy)}",
        )
        parts.append(tag("rect", tip, class_="bar", y=top, height=max(upper.bottom - top, 1), **box))
        tall = max(44 * b.num_images / total, 1)
        parts.append(tag("rect", tip, class_="count", y=strip_bottom - tall, height=tall, **box))
        cx, cy = upper.at(b.confidence, b.accuracy)
        parts.append(tag("circle", class_="dot point", cx=cx, cy=cy, r=3))
    legend = [
        ("bar", "share right in the bin"),
        ("point", "at its mean confidence"),
        ("reference", "perfectly calibrated"),
    ]
    return Chart(title, _drawing(upper, parts, alt, height=height), legend, note)


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element. What is not Markup is escaped; `class_` and `stroke_width` spell class and stroke-width.

    >>> tag("text", "a < b", class_="tick", x=1.0, y=2.25)
    Markup('<text class="tick" x="1" y="2.2">a &lt; b</text>')
    """
    spelled = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _coordinate(value))
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{spelled}>{Markup('').join(children)}</{name}>")


def _coordinate(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _drawing(frame: _PlotArea, parts: Sequence[Markup], alt: str, *, height: float | None = None) -> Markup:
    shape = "wide" if frame.width > SQUARE[0] else "square"
    box = f"0 0 {frame.width} {height or frame.height}"
    return tag("svg", *parts, class_=f"chart {shape}", viewBox=box, role="img", aria_label=alt)


def _diagonal(frame: _PlotArea) -> Markup:
    (x1, y1), (x2, y2) = frame.at(frame.x.low, frame.y.low), frame.at(frame.x.high, frame.y.high)
    return tag("line", class_="reference", x1=x1, y1=y1, x2=x2, y2=y2)


def _marked_value(frame: _PlotArea, value: float, label: str) -> Markup:
    x, _ = frame.at(value, frame.y.low)
    near_end = x > (_LEFT + frame.right) / 2
    text = tag(
        "text", label, class_="tick", x=x + (4 if near_end else -4), y=14, text_anchor="end" if near_end else "start"
    )
    return tag("line", class_="mark", x1=x, y1=_TOP - 7, x2=x, y2=frame.bottom) + text


def _curve(frame: _PlotArea, line: Line, dots: bool) -> Markup:
    name = line.name if len(line.name) <= _MAX_LABEL else line.name[:_MAX_LABEL] + "…"
    parts = []
    for run in _finite_runs(line.xs, line.ys):
        places = [frame.at(x, y) for x, y in run]
        if line.style != "point":
            points = " ".join(f"{_coordinate(x)},{_coordinate(y)}" for x, y in _corners(places))
            parts.append(tag("polyline", tag("title", name), class_=f"line {line.style}", points=points))
        if line.style == "point" or (dots and len(run) <= MARKED_POINTS):
            for (x, y), (cx, cy) in zip(run, places, strict=True):
                tip = tag("title", f"{name}: {tick_text(x)}, {significant(y)}")
                parts.append(
                    tag("circle", tip, class_=f"dot {line.style}", cx=cx, cy=cy, r=4 if line.style == "point" else 2.4)
                )
    return Markup("").join(parts)


def _finite_runs(xs: Sequence[float], ys: Sequence[float]) -> list[list[tuple[float, float]]]:
    """The stretches of points without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """`points` without those that do not change what is drawn: repeated, or inside a level or upright stretch."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if kept and point == kept[-1]:
            continue
        if len(kept) > 1 and _is_between(kept[-2], kept[-1], point):
            kept.pop()
        kept.append(point)
    return kept


def _is_between(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on the level or upright stretch from a to c."""
    return any(a[i] == b[i] == c[i] and min(a[1 - i], c[1 - i]) <= b[1 - i] <= max(a[1 - i], c[1 - i]) for i in (0, 1))
