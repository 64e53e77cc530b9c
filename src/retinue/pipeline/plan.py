"""A stage's plan: its settings as one frozen dataclass, with a field for each section, made where the stage begins."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_origin, get_type_hints

from retinue.pipeline.settings import Settings

P = TypeVar("P")

UNDECLARED: Mapping[str, bool] = {"undeclared": True}
"""Metadata of a field whose section changes no result of the stage, so that dvc.yaml does not declare it."""


def sections_of(plan: type[Any]) -> tuple[str, ...]:
    """The sections that a stage with this plan declares in dvc.yaml, in the order of the fields."""
    return tuple(f.name for f in fields(plan) if f.metadata != UNDECLARED)


def load_plan(plan: type[P], settings: Settings) -> P:
    """Loads every field of `plan` from the section of its name.

    The type of a field says how: a Mapping is the section as plain containers, `seed` an integer, a part with a
    `_target_` is built, and any other dataclass is loaded strictly.

    Args:
        plan: a dataclass; its fields are named after sections.
        settings: of the run, restricted to the sections of the plan.

    Raises:
        SettingsError: a value is refused.
    """
    return plan(**{name: _loaded(name, kind, settings) for name, kind in get_type_hints(plan).items()})


def _loaded(name: str, kind: Any, settings: Settings) -> Any:
    if name == "seed":
        return settings.seed
    values = settings.plain(name)
    if get_origin(kind) is Mapping or kind is Mapping or get_origin(kind) is dict:
        return values
    return settings.build(name) if "_target_" in values else settings.section(name, kind)
