"""Numbers as text: within rounding of what they are, in their order, and never more than they are."""

import json
import math
import os
import random
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retinue.dashboard.page import FOLDER
from retinue.pipeline.numbers import MISSING, figure, interval, p_value, percent, seconds, significant, tick_text
from retinue.reports.axes import Axis
from retinue.reports.page import FOLDER as REPORT_FOLDER

POSITIVE = st.floats(0, 1e12, allow_subnormal=False)
SHARES = st.floats(0, 1)
PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


def parsed(text: str) -> float:
    number, _, prefix = text.replace("−", "-").replace(",", "").partition(" ")
    return float(number) * PREFIXES.get(prefix, 1.0)


@given(st.floats(-1e12, 1e12), st.integers(1, 6))
@example(0.99995, 4)
@example(5e-5, 4)
def test_a_figure_is_the_number_within_rounding(value: float, decimals: int) -> None:
    shown = parsed(figure(value, decimals))
    assert abs(shown - value) <= max(0.5 * 10**-decimals * (1 + 1e-9), 5e-4 * abs(value) * (abs(value) >= 1e9))
    assert math.copysign(1, shown) == math.copysign(1, value) or value == 0


@given(POSITIVE, st.integers(2, 6))
def test_significant_digits_are_the_number_within_rounding(value: float, digits: int) -> None:
    assert parsed(significant(value, digits)) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits) * (1 + 1e-6))
    assert parsed(tick_text(value)) == pytest.approx(value, rel=0.501e-3)


@given(SHARES)
@example(1 - 2**-53)
@example(0.99996)
@example(5e-324)
def test_what_is_between_the_bounds_is_never_written_as_a_bound(value: float) -> None:
    for text, top in ((figure(value), 1), (percent(value).removesuffix(" %"), 100), (figure(value, 2), 1)):
        assert (float(text) == top) == (value == 1)
        assert (float(text) == 0) == (value == 0)
    assert p_value(value) == "< 0.0001" or float(p_value(value)) >= 1e-4


@given(POSITIVE, POSITIVE)
@example(0.99994, 0.99996)
@example(4.9e-5, 5e-5)
@example(9.99e-7, 1e-6)
def test_the_order_of_numbers_is_the_order_of_their_texts(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for write in (figure, significant, tick_text):
        assert parsed(write(low)) <= parsed(write(high))
        assert parsed(write(-low)) >= parsed(write(-high))
    if high <= 1:
        assert float(percent(low)[:-2]) <= float(percent(high)[:-2])


@given(st.integers(-(10**15), 10**15))
def test_a_count_has_all_its_digits(value: int) -> None:
    assert parsed(figure(value)) == value
    assert all(len(part) == 3 for part in figure(value).split(",")[1:])


def test_no_number_has_one_spelling_and_infinity_is_one() -> None:
    nan = float("nan")
    assert {figure(None), figure(nan), significant(None), significant(nan), interval(None)} == {MISSING}
    assert (figure(math.inf), significant(-math.inf)) == ("∞", "−∞")
    assert percent(-0.25) == "−25 %"


@pytest.mark.parametrize(("duration", "text"), [(0.0004, "0.4 ms"), (0.9994, "999 ms"), (61.25, "61.3 s")])
def test_seconds(duration: float, text: str) -> None:
    assert seconds(duration) == text


def said_by_script(files: tuple[str, ...], program: str, given: Any) -> Any:
    """What `program` makes of `given` behind the dashboard's `files`."""
    return by_node("".join((FOLDER / name).read_text("utf-8") for name in files), program, given)


def by_node(script: str, program: str, given: Any) -> Any:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no node on the PATH to run the pages' scripts")
        pytest.skip("no node on the PATH")
    text = f"{script}\nconst given = JSON.parse(require('fs').readFileSync(0)); console.log(JSON.stringify({program}))"
    done = subprocess.run([node, "-e", text], input=json.dumps(given), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_dashboards_script_writes_the_same_texts() -> None:
    draw = random.Random(0)
    values = [0.0, 1.0, 0.03125, 0.99995, 1 - 2**-53, 5e-5, 1e-6, 9.99e-7, 1e9, 1234.125, 12345.25, 1e23, 5e-324]
    values += [draw.random() for _ in range(1000)] + [10 ** draw.uniform(-12, 12) for _ in range(2000)]
    values += [draw.randrange(10**6) / 2 ** draw.randrange(1, 20) for _ in range(2000)]  # halves that tie exactly
    values += [1 - 10 ** draw.uniform(-16, -1) for _ in range(500)]
    values += [-value for value in values[:200]]
    counts = [draw.randrange(-(10**6), 10**9) for _ in range(200)]
    texts = "(x) => [scoreText(x), significantText(x), significantText(x, 3), tickText(x), pText(x)]"
    program = f"[given[0].map({texts}), given[1].map(countText), scoreText(null)]"
    ours = [[figure(x), significant(x), significant(x, 3), tick_text(x), p_value(x)] for x in values]
    theirs = said_by_script(("numbers.js",), program, [values, counts])
    assert theirs == [ours, [figure(count) for count in counts], MISSING]


def test_the_report_sorts_numbers_by_their_texts() -> None:
    """Its script finds no table here; what it sorts a cell by is the number that the cell shows."""
    values = [1797, 25_557_032, 12, 0.9833, 0.99997, 2e-12, -0.5, 0.0]
    program = "given.map((text) => keyOf(text, true))"
    page = "const document = { querySelectorAll: () => [] }; const addEventListener = () => {};"
    script = (REPORT_FOLDER / "script.js").read_text("utf-8").removeprefix('"use strict";')
    given = [*map(figure, values), percent(0.975), MISSING]
    assert by_node(page + script, program, given) == [*values, 97.5, None]  # JSON has no -Infinity


def test_the_dashboards_axes_are_the_reports() -> None:
    draw = random.Random(1)
    ends = [(draw.uniform(0, 1), draw.uniform(0, 1)) for _ in range(100)]
    ends += [(10 ** draw.uniform(-6, 6), 10 ** draw.uniform(-6, 6)) for _ in range(200)]
    ends += [(0.5, 0.5), (0.001, 1.0), (0.9, 1.0), (1e-4, 1e4), (0.0, 25.0)]
    program = (
        "given.map((ends) => { const x = axisAround('', ends, { mayBeLog: true }); return [x.low, x.high, x.ticks]; })"
    )
    for pair, (low, high, ticks) in zip(ends, said_by_script(("drawing.js",), program, ends), strict=True):
        ours = Axis.around("", pair, may_be_log=True)
        assert (low, high) == pytest.approx((ours.low, ours.high)), pair
        assert ticks == pytest.approx(list(ours.ticks)), pair
