"""Names in the margin of a sheet: all of a usual one can be read, and none is wider than the margin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.images.sheet_margin import row_name


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("7", ["7"]),
        ("spotted woodland beetle", ["spotted", "woodland", "beetle"]),
        ("n02102040_English_springer", ["n02102040_Engl", "ish_springer"]),
        ("x" * 57, ["x" * 14, "x" * 14, "x" * 14, "…"]),
    ],
)
def test_a_name_is_broken_into_lines(name: str, lines: list[str]) -> None:
    assert row_name(name) == "\n".join(lines)


@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=300))
def test_no_line_is_wider_than_the_margin_and_something_is_left(name: str) -> None:
    lines = row_name(name).split("\n")
    assert 1 <= len(lines) <= 4
    assert all(1 <= len(line) <= 14 for line in lines)
