"""Settings of a run: read strictly by the stages, built into the parts that `_target_`s name."""

import hashlib
import importlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from retinue.pipeline.errors import Fault, SettingsError, SettingsFaults, unknown
from retinue.pipeline.ranges import LARGEST_INT, Range, checked, fault_of, no_value, shown, unknown_key

EXECUTION_SECTIONS = ("trainer", "tracking", "download")
"""How a stage is run and watched, and how long it waits for a server. Any stage may read them without declaring them in
dvc.yaml; those whose numbers depend on the trainer (train, calibrate, evaluate, explain) declare it all the same."""

SEED = Range(ge=0, expected="an integer from 0 to 2^63 - 1")
"""Of the section `seed`, which is a number and no mapping."""

_DESCRIPTIVE_KEYS = ("name", "module", "imagenet")

T = TypeVar("T")


class Settings:
    """The composed settings of one run, restricted to the sections a stage declares.

    Args:
        values: the whole composition as plain containers.
        sections: the sections that may be read besides `EXECUTION_SECTIONS`; None allows all.
    """

    def __init__(self, values: Mapping[str, Any], sections: Iterable[str] | None = None):
        self._values = values
        self._allowed = None if sections is None else {*sections, *EXECUTION_SECTIONS}
        for name in self._allowed or ():
            if name not in values:
                raise SettingsError(f"The settings have no section {name!r}. {unknown('section', name, values)}")

    def plain(self, name: str) -> Any:
        """The section `name` as plain containers.

        Raises:
            SettingsError: the stage does not declare the section.
        """
        if self._allowed is not None and name not in self._allowed:
            raise SettingsError(
                f"This stage reads the section {name!r} but does not declare it. "
                f"Declared: {', '.join(sorted(self._allowed))}. Add it to the stage's SECTIONS and to dvc.yaml."
            )
        return self._values[name]

    def all(self) -> Mapping[str, Any]:
        """Every section, whatever was declared: for the record (tracking) only."""
        return self._values

    @property
    def seed(self) -> int:
        """The seed of the run, an int >= 0; 0 is a seed like any other."""
        seed: int = self.plain("seed")
        fault = fault_of("seed", seed, int, SEED)
        if fault is not None:
            raise SettingsFaults([fault])
        return seed

    def section(self, name: str, schema: type[T]) -> T:
        """The section `name` as the frozen dataclass `schema`, loaded strictly."""
        return strict(schema, self.plain(name), where=name)

    def build(self, name: str, *args: Any, **runtime: Any) -> Any:
        """What the `_target_` of section `name` makes of its settings and of `runtime` arguments."""
        return build(self.plain(name), *args, where=name, **runtime)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name these settings, execution sections left out."""
        return fingerprint_of(self._values)


def fingerprint_of(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name the whole composition `values`, execution sections left out."""
    return fingerprint({k: v for k, v in values.items() if k not in EXECUTION_SECTIONS})


def fingerprint(values: Any) -> str:
    """First 12 hexadecimal digits of the SHA-256 of `values` as canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def strict(schema: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Loads `values` into the dataclass `schema`: see `retinue.pipeline.ranges.checked` for what is refused.

    Raises:
        SettingsFaults: with every setting that cannot be used, its value and what was expected.
    """
    assert is_dataclass(schema)
    if not isinstance(values, Mapping):
        raise SettingsFaults([Fault(where, shown(values), "a section with keys")])
    good, faults = checked(schema, values, where=where)
    if faults:
        raise SettingsFaults(faults)
    return schema(**good)


def build(section: Mapping[str, Any], *args: Any, where: str, **runtime: Any) -> Any:
    """Calls the `_target_` of `section` with the section's other keys and `runtime` as keyword arguments.

    A dataclass target is loaded with `strict`; any other callable has its keywords checked against its signature.
    The descriptive keys (`name`, `module`, `imagenet`) are passed only to targets that take them.

    Raises:
        SettingsError: no such target, an unknown key (with the near match) or a value the target refuses.
    """
    if not isinstance(section, Mapping) or "_target_" not in section:
        raise SettingsFaults([Fault(where, "", "", f"no _target_ says what to build. Compose it from conf/{where}/.")])
    target = locate(section["_target_"], where=where)
    values = {k: v for k, v in section.items() if k != "_target_"}
    if is_dataclass(target):
        taken = {f.name for f in fields(target)}
        given = {key: value for key, value in values.items() if key in taken or key not in _DESCRIPTIVE_KEYS}
        return strict(target, {**given, **runtime}, where=where)
    try:
        parameters = inspect.signature(target).parameters
    except ValueError as error:  # a builtin, of which Python does not know the arguments
        raise SettingsFaults([Fault(f"{where}._target_", shown(section["_target_"]), f"what makes {where}")]) from error
    for key in _DESCRIPTIVE_KEYS:
        if key not in parameters:
            values.pop(key, None)
    faults = [no_value(f"{where}.{key}", "a value") for key, value in values.items() if value == "???"]
    faults += [Fault(f"{where}.{key}", shown(value), "finite") for key, value in values.items() if not is_finite(value)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        names = {name: None for name in [*parameters][len(args) :] if name not in runtime}
        faults += [unknown_key(where, key, value, names) for key, value in values.items() if key not in parameters]
    if faults:
        raise SettingsFaults(faults)
    try:
        return target(*args, **values, **runtime)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise SettingsFaults([Fault(where, "", "", f"{section['_target_']}: {error}")]) from error


def is_finite(value: Any) -> bool:
    """Whether no number in `value`, be it in lists and mappings, is NaN, infinite or an integer beyond 64 bits."""
    if isinstance(value, Mapping):
        return is_finite(list(value.values()))
    if isinstance(value, (list, tuple)):
        return all(is_finite(item) for item in value)
    if isinstance(value, int):
        return abs(value) <= LARGEST_INT
    return not isinstance(value, float) or math.isfinite(value)


def locate(path: str, *, where: str) -> Callable[..., Any]:
    """The callable at the dotted `path`.

    Raises:
        SettingsError: the module or the name in it does not exist.
    """
    module_name, _, name = str(path).rpartition(".")
    if not module_name or module_name.startswith("."):
        raise SettingsError(f"{where}._target_: got {path!r}, expected a dotted name such as torch.optim.AdamW.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise SettingsError(f"{where}._target_: no module {module_name!r} (in {path!r}).") from error
    target = getattr(module, name, None)
    if not callable(target):
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise SettingsError(f"{where}._target_: {unknown(f'name in {module_name}', name, public)}")
    return target


def first_line(error: Exception) -> str:
    """The first line of an error's text that is not blank; the name of its class where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
