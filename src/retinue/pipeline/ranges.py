"""What a setting may be, declared beside its field; the check of values against it; and the words for it.

image_size: int = field(metadata=allowed(ge=1, unit="px"))
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from retinue.pipeline.errors import Fault, SettingsFaults, nearest

LARGEST_INT = 2**63 - 1
"""What torch, NumPy and SQLite take for an integer of 64 bits."""

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "a section with keys"}
_SHOWN = 80
_YAML_BOOL = "YAML reads a bare on, off, yes and no as true and false: put it in quotes."


@dataclass(frozen=True)
class Range:
    """What the value of one setting may be, besides its type. Of a list, every item.

    Attributes:
        ge, gt, le, lt: bounds of a number: at least, more than, at most, less than.
        most: a number so large that a larger one is a slip that would fill the memory; told only to who exceeds it.
        choices: the values there are; empty: any.
        pattern: regular expression that a text matches as a whole; empty: any.
        least: number of items of a list at least.
        odd: an integer has to be odd.
        texts: of a number, the words that may stand for one.
        unit: of a number, such as px.
        expected: says what is expected where bounds and choices do not, as for a pattern.
        hint: what to do about another value, as a sentence.
        follows: the setting this one is derived from: where that is not given, this one is not asked for.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    least: int = 0
    odd: bool = False
    texts: tuple[str, ...] = ()
    unit: str = ""
    expected: str = ""
    hint: str = ""
    follows: str = ""

    def holds(self, value: Any) -> bool:
        """Whether `value`, of the right type, is one of those allowed; null always is."""
        if value is None:
            return True
        if self.texts and isinstance(value, str):
            return value in self.texts
        if isinstance(value, (list, tuple)):
            return len(value) >= self.least and all(self.holds(item) for item in value)
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (self.most is None or value <= self.most)
            and (not self.odd or value % 2 == 1)
            and (not self.choices or value in self.choices)
            and (not self.pattern or re.fullmatch(self.pattern, value, re.DOTALL) is not None)
        )

    def bounds(self) -> str:
        """The bounds in words, such as ">= 1 px" or "in [0, 1)"; empty where there are none."""
        low, high = (self.gt if self.ge is None else self.ge), (self.lt if self.le is None else self.le)
        unit = f" {self.unit}" if self.unit else ""
        if low is not None and high is not None:
            return f"in {'(' if self.ge is None else '['}{low}, {high}{')' if self.le is None else ']'}{unit}"
        if low is not None:
            return f"{'>' if self.ge is None else '>='} {low}{unit}"
        return f"{'<' if self.le is None else '<='} {high}{unit}" if high is not None else ""

    def words(self, annotation: Any) -> str:
        """What is expected of a setting of this type, such as "an integer >= 1 or null"."""
        kinds = _alternatives(annotation)
        null = " or null" if NoneType in kinds else ""
        kind = next((kind for kind in kinds if kind is not NoneType), Any)
        if get_origin(kind) is list:
            least = f", at least {self.least}" if self.least else ""
            if self.choices:
                return f"a list of {', '.join(map(str, self.choices))}{least}{null}"
            item = "" if get_args(kind)[0] is Any else f" of {self._item(get_args(kind)[0])}"
            return f"a list{item}{least}{null}"
        return f"{self._item(get_origin(kind) or kind)}{null}"

    def _item(self, kind: Any) -> str:
        if self.expected:
            return self.expected
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        number = f"{'an odd integer' if self.odd else _WORDS.get(kind, 'a value')} {self.bounds()}".strip()
        return " or ".join([number, *self.texts])


def allowed(**constraints: Any) -> dict[str, Range]:
    """Metadata for a field of a settings dataclass; the constraints are the attributes of `Range`."""
    return {"range": Range(**constraints)}


def range_of(entry: "Field[Any]") -> Range:
    """The range declared beside a field; one that allows everything where none is."""
    declared: Range = entry.metadata.get("range", Range())
    return declared


class Checked:
    """Base of the settings dataclasses: one with a value out of range cannot be made.

    A subclass names its section of the settings, `class TrainSettings(Checked, section="train")`. What relates several
    of its settings stands in `RELATIONS`: functions whose parameters are names of fields; each returns a `Fault`, its
    key relative to the section, or None. A relation is looked at where its own settings are right, whatever the others.
    """

    SECTION: ClassVar[str] = ""
    RELATIONS: ClassVar[Sequence[Callable[..., Fault | None]]] = ()

    def __init_subclass__(cls, section: str = "", **options: Any):
        super().__init_subclass__(**options)
        if section:
            cls.SECTION = section

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            SettingsFaults: with all faults.
        """
        given = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        _, faults = checked(type(self), given, where=self.SECTION)
        if faults:
            raise SettingsFaults(faults)


def checked(schema: type[Any], values: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], list[Fault]]:
    """The `values` that the dataclass `schema` takes, converted to the types of its fields, and faults for the rest.

    Faults are an unknown key, a key that is missing or ???, another type, a value out of range, and what `RELATIONS`
    of the schema says of the values that are right by themselves. An integer passes for a number, a number for a text,
    and nothing else for anything else: true is no integer; NaN and infinity are no numbers.
    """
    entries = {entry.name: entry for entry in fields(schema)}
    hints = get_type_hints(schema)
    good, faults = dict[str, Any](), list[Fault]()
    missing = {name for name, entry in entries.items() if _is_missing(entry, values)}
    for key, value in values.items():
        if key not in entries:
            faults.append(unknown_key(where, str(key), value, entries))
        elif key not in missing:
            fault = fault_of(f"{where}.{key}", value, hints[key], range_of(entries[key]))
            if fault is None:
                good[key] = _converted(value, hints[key])
            else:
                faults.append(fault)
    for name in sorted(missing, key=[*values, *entries].index):
        if range_of(entries[name]).follows not in missing:
            faults.append(no_value(f"{where}.{name}", range_of(entries[name]).words(hints[name])))
    for relation in getattr(schema, "RELATIONS", ()):
        names = inspect.signature(relation).parameters
        found = relation(**{name: good[name] for name in names}) if good.keys() >= names.keys() else None
        if found is not None:
            faults.append(found._replace(key=f"{where}.{found.key}"))
    return good, faults


def fault_of(key: str, value: Any, annotation: Any, limits: Range) -> Fault | None:
    """What is wrong with `value` for the setting `key` of this type and range; None: nothing."""
    if fits(value, annotation) and limits.holds(_converted(value, annotation)):
        return None
    hint = limits.hint
    if limits.choices and (match := nearest(str(value), map(str, limits.choices))):
        hint = f"Did you mean {match!r}? {hint}".strip()
    elif isinstance(value, bool) and str in _alternatives(annotation):
        hint = _YAML_BOOL
    elif isinstance(value, int) and abs(value) > LARGEST_INT:
        hint = f"The largest integer is {LARGEST_INT}."
    elif limits.most is not None and isinstance(value, (int, float)) and value > limits.most:
        hint = f"The largest that is taken is {limits.most}. {hint}".strip()
    return Fault(key, shown(value), limits.words(annotation), hint)


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value`, as YAML gives it, is of the type `annotation`."""
    kinds = _alternatives(annotation)
    for kind in kinds:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is Any or (kind is NoneType and value is None) or (kind is bool and isinstance(value, bool)):
            return True
        if kind is int and number and isinstance(value, int) and abs(value) <= LARGEST_INT:
            return True
        if kind is float and number and abs(value) <= sys.float_info.max:  # false for NaN
            return True
        if kind is str and (isinstance(value, str) or (number and not {int, float} & {*kinds})):
            return True
        if get_origin(kind) is dict and isinstance(value, Mapping):
            return True
        if get_origin(kind) is list and isinstance(value, (list, tuple)):
            return all(fits(item, get_args(kind)[0]) for item in value)
    return False


def unknown_key(where: str, key: str, value: Any, names: Mapping[str, Any]) -> Fault:
    """The fault of a key that the section `where` does not have."""
    match = nearest(key, names)
    hint = f"Did you mean {where}.{match}?" if match else ""
    return Fault(f"{where}.{key}", shown(value), f"a setting of {where}: {', '.join(sorted(names)) or 'none'}", hint)


def no_value(key: str, expected: str) -> Fault:
    """The fault of a setting that has no default and was not given."""
    return Fault(key, "", expected, f"This setting has no default; give it as {key}=VALUE.")


def shown(value: Any) -> str:
    """`value` for a person, much as params.yaml has it; a long one is cut."""
    plain = {None: "null", True: "true", False: "false"}
    text = plain[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _is_missing(entry: "Field[Any]", values: Mapping[str, Any]) -> bool:
    if entry.name in values:
        return bool(values[entry.name] == "???")
    return entry.default is MISSING and entry.default_factory is MISSING


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _converted(value: Any, annotation: Any) -> Any:
    """`value`, which fits, as the type says: 1 becomes 1.0 for a number, 7 becomes '7' for a text."""
    kinds = _alternatives(annotation)
    if value is None or isinstance(value, bool):
        return value
    if float in kinds and not isinstance(value, str):
        return float(value)
    if str in kinds and isinstance(value, (int, float)):
        return str(value)
    for kind in kinds:
        if get_origin(kind) is list:
            return [_converted(item, get_args(kind)[0]) for item in value]
        if get_origin(kind) is dict:
            return dict(value)
    return value
