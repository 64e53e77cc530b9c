"""Ranges beside the fields of the settings: declared for every number, held to, and told with all faults at once."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from retinue import preflight
from retinue.pipeline.errors import Fault, SettingsError, SettingsFaults
from retinue.pipeline.ranges import LARGEST_INT, Checked, Range, allowed, checked, range_of
from retinue.pipeline.settings import strict
from retinue.sweeps.settings import SweepSettings
from retinue.tracking.panels import PANELS
from retinue.tracking.workspace import SectionSettings
from settings_table import page


def subclasses(of: type[Any]) -> Iterator[type[Any]]:
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


SCHEMAS = sorted(
    {
        *(each for each in subclasses(Checked) if each.__module__.startswith("retinue.")),
        *(SectionSettings, *(panel for panel in PANELS.values() if dataclasses.is_dataclass(panel))),
    },
    key=lambda schema: schema.__name__,
)
"""All of the project; a new one is found without an edit here."""

FIELDS = [(schema, entry) for schema in SCHEMAS for entry in dataclasses.fields(schema)]


def kinds(schema: type[Any], name: str) -> set[Any]:
    annotation = get_type_hints(schema)[name]
    return {*(get_args(annotation) or (annotation,))} - {NoneType}


def wrong_values(limits: Range, kind: Any) -> list[Any]:
    """Values just outside each bound, and one that is no choice."""
    if limits.choices:
        return [max(limits.choices) + 1 if kind is int else "no such choice"]
    if kind is int:
        low = None if limits.ge is None else limits.ge - 1
        high = None if limits.le is None else limits.le + 1
    else:
        low = None if limits.ge is None else math.nextafter(limits.ge, -math.inf)
        high = None if limits.le is None else math.nextafter(limits.le, math.inf)
    return [value for value in (low, high, limits.gt, limits.lt) if value is not None]


@pytest.mark.parametrize(("schema", "entry"), FIELDS, ids=lambda value: getattr(value, "__name__", None) or value.name)
def test_what_would_fill_the_memory_is_refused_with_the_most_there_is(
    schema: type[Any], entry: "dataclasses.Field[Any]"
) -> None:
    most = range_of(entry).most
    for value in () if most is None else (most + 1, LARGEST_INT, 10**20, 1e308):
        _, faults = checked(schema, {entry.name: value}, where="section")
        (fault,) = [each for each in faults if each.key == f"section.{entry.name}" and each.value]
        assert "The largest" in fault.hint or isinstance(value, float)


def test_all_sections_of_one_dataclass_are_looked_at() -> None:
    assert {*preflight.SCHEMAS.values(), SweepSettings} <= {*SCHEMAS}
    assert len(FIELDS) > 100


@pytest.mark.parametrize(("schema", "entry"), FIELDS, ids=lambda value: getattr(value, "__name__", None) or value.name)
def test_every_number_has_a_range_and_is_held_to_it(schema: type[Any], entry: "dataclasses.Field[Any]") -> None:
    limits, own = range_of(entry), kinds(schema, entry.name)
    numeric = own & {int, float}
    if numeric:
        assert limits.bounds() or limits.choices, f"{schema.__name__}.{entry.name}: declare a range with allowed(…)"
    if int in numeric and "seed" not in entry.name:  # else memory, not the check, says how much is too much
        assert limits.choices or {limits.le, limits.lt, limits.most} != {None}, (
            f"{schema.__name__}.{entry.name}: declare le or most with allowed(…)"
        )
    for value in wrong_values(limits, next(iter(numeric), str)) if numeric or limits.choices else ():
        given = [value] if get_type_hints(schema)[entry.name] == list[str] else value
        _, faults = checked(schema, {entry.name: given}, where="section")
        (fault,) = [each for each in faults if each.key == f"section.{entry.name}" and each.value]
        assert str(value) in fault.value
        bounds = [limits.ge, limits.gt, limits.le, limits.lt, *limits.choices]
        assert any(str(bound) in fault.expected for bound in bounds if bound is not None)


@pytest.mark.parametrize(("schema", "entry"), FIELDS, ids=lambda value: getattr(value, "__name__", None) or value.name)
def test_true_nan_and_infinity_are_no_numbers(schema: type[Any], entry: "dataclasses.Field[Any]") -> None:
    numeric = kinds(schema, entry.name) & {int, float}
    wrong = [True, math.nan, math.inf, -math.inf, "1", LARGEST_INT + 1 if int in numeric else "x"]
    for value in wrong if numeric else ():
        _, faults = checked(schema, {entry.name: value}, where="section")
        assert [each for each in faults if each.key == f"section.{entry.name}" and each.value], (entry.name, value)


def _smaller(low: int, high: int) -> Fault | None:
    return Fault("low", str(low), f"less than example.high ({high})") if low >= high else None


@dataclass(frozen=True)
class Example(Checked, section="example"):
    RELATIONS = (_smaller,)

    low: int = field(metadata=allowed(ge=0, unit="px"))
    high: int = field(metadata=allowed(ge=0))
    share: float = field(metadata=allowed(gt=0, le=1))
    kind: str = field(metadata=allowed(choices=("left", "right")))
    tags: list[str] = field(metadata=allowed(pattern=".{1,3}", expected="1 to 3 characters", least=1))
    path: str | None
    follower: str | None = field(metadata=allowed(follows="path"))


VALID: dict[str, Any] = {
    "low": 1,
    "high": 2,
    "share": 1,
    "kind": "left",
    "tags": ["a", 7],
    "path": None,
    "follower": None,
}


def test_values_are_converted_to_the_types_of_their_fields() -> None:
    loaded = strict(Example, VALID, where="example")
    assert (loaded.share, type(loaded.share), loaded.tags) == (1.0, float, ["a", "7"])


def test_all_faults_are_told_at_once_and_relations_with_them() -> None:
    wrong = {**VALID, "low": 5, "share": 0, "kind": "rigth", "tags": [], "extra": 1}
    with pytest.raises(SettingsFaults) as caught:
        strict(Example, {key: value for key, value in wrong.items() if key != "path"}, where="example")
    assert str(caught.value) == (
        "6 settings cannot be used:\n"
        "  example.share: got 0, expected a number in (0, 1].\n"
        "  example.kind: got 'rigth', expected one of left, right. Did you mean 'right'?\n"
        "  example.tags: got [], expected a list of 1 to 3 characters, at least 1.\n"
        "  example.extra: got 1, expected a setting of example: follower, high, kind, low, path, share, tags.\n"
        "  example.path: expected text or null. This setting has no default; give it as example.path=VALUE.\n"
        "  example.low: got 5, expected less than example.high (2)."
    )
    assert caught.value.exit_code == 2


def test_what_is_derived_from_a_missing_setting_is_not_asked_for() -> None:
    with pytest.raises(SettingsFaults) as caught:
        strict(Example, {**VALID, "path": "???", "follower": "???"}, where="example")
    assert [fault.key for fault in caught.value.faults] == ["example.path"]


def test_a_relation_is_not_looked_at_where_its_settings_are_wrong() -> None:
    with pytest.raises(SettingsFaults) as caught:
        strict(Example, {**VALID, "low": -1, "high": -2}, where="example")
    assert [fault.key for fault in caught.value.faults] == ["example.low", "example.high"]


def test_the_constructor_refuses_too() -> None:
    with pytest.raises(SettingsError, match=r"example\.low: got -1, expected an integer >= 0 px"):
        Example(**{**VALID, "low": -1})


def test_a_bare_off_is_explained() -> None:
    with pytest.raises(SettingsError, match=r"got false, expected one of left, right\. YAML reads a bare on, off"):
        strict(Example, {**VALID, "kind": False}, where="example")


@pytest.mark.parametrize("given", [None, 3, ["low"]])
def test_a_section_is_a_mapping(given: Any) -> None:
    with pytest.raises(SettingsError, match=r"example: got .*, expected a section with keys"):
        strict(Example, given, where="example")


def test_the_page_of_the_settings_is_theirs(root: Path) -> None:
    assert (root / "docs" / "settings.md").read_text("utf-8") == page(), (
        "run `make settings` and commit docs/settings.md"
    )
