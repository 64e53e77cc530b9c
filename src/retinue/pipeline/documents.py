"""Documents that somebody else may have made: bounded while they are parsed, and typed before they are used."""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from inspect import signature
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from retinue.pipeline.errors import DataError
from retinue.pipeline.ranges import LARGEST_INT, Range, range_of, shown

T = TypeVar("T")

DEEPEST = 64
"""Levels of lists and mappings inside each other. Ours have less than ten; what walks a document recurses by level."""
MOST_NODES = 1_000_000
"""Of a YAML text with its aliases written out."""

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_WORDS = {int: "an integer", float: "a finite number", str: "text", bool: "true or false", NoneType: "null"}

UNREADABLE_VALUES = (ValueError, LookupError, TypeError, AttributeError)
"""What PyYAML raises beside its own errors for a tag that does not fit its value, such as `!!int ""` or `!!set []`."""


def parse_json(text: str, where: str) -> Any:
    """The document in a JSON text.

    Besides what JSON forbids, a key that is there twice, NaN, infinity, half of a surrogate pair (no file and no page
    can hold it) and more than `DEEPEST` levels are refused.

    Args:
        text: of the document.
        where: it is from; the error begins with it.

    Raises:
        DataError: it is not JSON, or one of the above.
    """
    try:
        document = json.loads(text, object_pairs_hook=_mapping_of_pairs, parse_constant=_no_constant)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: not valid JSON (half of a surrogate pair).") from error
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}).") from error
    except RecursionError as error:
        raise DataError(f"{where}: not valid JSON (nested more than {DEEPEST} levels deep).") from error
    if not _is_flat_enough(document):
        raise DataError(f"{where}: not valid JSON (nested more than {DEEPEST} levels deep).")
    return document


def check_yaml(text: str, where: str) -> None:
    """Refuses a YAML text that a loader would choke on: libyaml's composer ends the process where nesting is deep.

    Aliases (`*name`) cost a loader nothing, and whoever walks what it gives everything: ten lines can stand for 10^10
    nodes. They are counted as if they were written out.

    Args:
        text: not yet loaded.
        where: it is from; the error begins with it.

    Raises:
        DataError: it is no mapping, holds bytes, is nested more than `DEEPEST` levels deep, or stands for more than
            `MOST_NODES` nodes.
        yaml.YAMLError: it is no YAML.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        size, anchor = 1, getattr(event, "anchor", None)
        if getattr(event, "tag", None) == "tag:yaml.org,2002:binary":
            raise DataError(f"{where}: a value of bytes (!!binary), which no setting is.")
        if len(open_nodes) == 1 and isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.AliasEvent)):
            raise DataError(f"{where}: expected a mapping of sections: another format than this version reads.")
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, 1))
            if len(open_nodes) > DEEPEST:
                raise DataError(f"{where}: nested more than {DEEPEST} levels deep.")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise DataError(f"{where}: the alias *{anchor} stands for what it is part of, or for nothing.")
            size, anchor = sizes[anchor], None
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, total = open_nodes[-1]
        open_nodes[-1] = outer, total + size
        if total + size > MOST_NODES:
            raise DataError(f"{where}: its aliases stand for more than {MOST_NODES} values.")


def typed(schema: type[T], document: Any, where: str) -> T:
    """The `document`, as JSON gives it, as an instance of the dataclass or NamedTuple `schema`.

    Every key has to be there, and no other; every value has to be of the type of its field, with no conversion but of
    an integer to a number, and in the range beside it (`ranges.allowed`). `RELATIONS` of the schema, as those of
    `ranges.Checked`, say what several fields have to do with each other. Types are int, float, str, bool, None, their
    unions, lists, tuples, mappings of text, other schemas and Any.

    Raises:
        DataError: the first thing that is otherwise, its place, and what was expected.
    """
    found: T = _value(schema, document, where, Range())
    return found


def _mapping_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _is_flat_enough(document: Any) -> bool:
    level = [document]
    for _ in range(DEEPEST + 1):
        level = [
            item
            for node in level
            if isinstance(node, (dict, list))
            for item in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return True
    return False


def _value(kind: Any, value: Any, where: str, limits: Range) -> Any:
    """`value` as the type `kind` says."""
    if kind is Any:
        return _finite_value(value, where)
    if get_origin(kind) in (Union, UnionType):
        kinds = get_args(kind)
        kind = NoneType if value is None and NoneType in kinds else next(each for each in kinds if each is not NoneType)
    if isinstance(kind, type) and (is_dataclass(kind) or hasattr(kind, "_fields")):
        return _instance(kind, value, where)
    made = _collection(kind, value, where, limits)
    if made is None and kind is not NoneType:
        made = _scalar(kind, value)
    right = made is not None or kind is NoneType
    if not right or not (isinstance(made, dict) or limits.holds(made)):
        raise DataError(f"{where}: got {shown(value)}, expected {_expected(kind, limits)}.")
    return made


def _scalar(kind: Any, value: Any) -> Any:
    """`value` as the scalar `kind`; None where it is another."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and number:
        return float(value) if abs(value) <= sys.float_info.max else None  # false for NaN
    if kind is int and number:
        return value if isinstance(value, int) and abs(value) <= LARGEST_INT else None
    return value if kind in (str, bool) and isinstance(value, kind) else None


def _collection(kind: Any, value: Any, where: str, limits: Range) -> Any:
    """`value` as a list, tuple or mapping; None where `kind` or it is none."""
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            return None
        return {key: _value(parts[1], item, f"{where}.{key}", limits) for key, item in value.items()}
    if origin not in (list, tuple) or not isinstance(value, list):
        return None
    if origin is tuple and parts[-1] is not Ellipsis:
        if len(value) != len(parts):
            return None
        return tuple(_value(part, item, f"{where}[{i}]", limits) for i, (part, item) in enumerate(zip(parts, value)))  # noqa: B905
    each = replace(limits, least=0)
    items = [_value(parts[0], item, f"{where}[{i}]", each) for i, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _instance(schema: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{where}: got {shown(value)}, expected a mapping with the keys {', '.join(_keys(schema))}.")
    hints, ranges = get_type_hints(schema), {}
    if is_dataclass(schema):
        ranges = {entry.name: range_of(entry) for entry in fields(schema)}
    for key in value:
        if key not in _keys(schema):
            raise DataError(f"{where}: got the key {shown(key)}, expected one of {', '.join(_keys(schema))}.")
    for key in _keys(schema, needed=True):
        if key not in value:
            raise DataError(f"{where}: there is no {key}.")
    made = {key: _value(hints[key], item, f"{where}.{key}", ranges.get(key, Range())) for key, item in value.items()}
    instance = schema(**made)
    for relation in getattr(schema, "RELATIONS", ()):
        fault = relation(**{name: getattr(instance, name) for name in signature(relation).parameters})
        if fault is not None:
            raise DataError(str(fault._replace(key=f"{where}.{fault.key}")))
    return instance


def _keys(schema: type[Any], *, needed: bool = False) -> list[str]:
    """Names of the fields of a dataclass or NamedTuple; those that have to be `needed`."""
    if not is_dataclass(schema):
        return [name for name in schema._fields if not needed or name not in schema._field_defaults]
    return [
        entry.name
        for entry in fields(schema)
        if not needed or (entry.default is MISSING and entry.default_factory is MISSING)
    ]


def _finite_value(value: Any, where: str) -> Any:
    """`value`, whatever it is, if every number in it is finite."""
    if isinstance(value, dict):
        return {key: _finite_value(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_value(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: got {value}, expected a finite number.")
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise DataError(f"{where}: got {shown(value)}, expected an integer of at most {LARGEST_INT}.")
    return value


def _expected(kind: Any, limits: Range) -> str:
    if limits.expected:
        return limits.expected
    origin = get_origin(kind)
    if origin in (list, tuple):
        return f"a list{f' of at least {limits.least}' if limits.least else ''}"
    if limits.choices:
        return f"one of {', '.join(map(str, limits.choices))}"
    return f"{_WORDS.get(kind, 'a mapping')} {limits.bounds()}".strip()
