"""What a sweep varies: Hydra's sweep overrides as axes of a grid or as distributions to draw from."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from retinue.pipeline.errors import SettingsError

SEED = "seed"
OF_SWEEPS = ("sweep", "hydra")
"""Sections that say how a sweep is run; no trial composes them."""

MAX_VALUES = 1000
"""Of one axis: each is composed and checked before anything runs, 0.1 s."""


class SearchInterval(NamedTuple):
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: at least.
        high: at most.
        log: drawn evenly over the logarithm.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool
    integer: bool

    def ends(self) -> tuple[str, str]:
        """`low` and `high` as overrides have them."""
        low, high = (int(self.low), int(self.high)) if self.integer else (self.low, self.high)
        return str(low), str(high)


class Axes(NamedTuple):
    """What a sweep varies, and what it does not.

    Attributes:
        fixed: overrides of every trial, as given.
        choices: key -> the values of an axis as text, in the order given.
        intervals: key -> the numbers to draw from.
        seeds: of the trainings of each trial; empty: the one of conf/.
    """

    fixed: list[str]
    choices: dict[str, list[str]]
    intervals: dict[str, SearchInterval]
    seeds: list[str]

    @property
    def keys(self) -> list[str]:
        """The keys of all axes but the seed."""
        return [*self.choices, *self.intervals]

    def grid(self) -> list[dict[str, str]]:
        """Every combination of the choices, the last axis fastest.

        Raises:
            SettingsError: an axis is an interval, which has no end of points.
        """
        for key in self.intervals:
            raise SettingsError(
                f"{key}: a grid needs a list of values; draw from an interval with sweep.search=random."
            )
        return [dict(zip(self.choices, point, strict=True)) for point in itertools.product(*self.choices.values())]


def parse(params: Mapping[str, Any], arguments: Sequence[str]) -> Axes:
    """The axes of a recipe and of the command line, which has the last word.

    Args:
        params: key -> values, the hydra.sweeper.params of a recipe.
        arguments: overrides of the command line; those of sweep itself are left out.

    Raises:
        SettingsError: an override cannot be read, or the sweep varies nothing.
    """
    axes = axes_of(params, arguments)
    if not axes.keys and not axes.seeds:
        raise SettingsError(
            "Nothing varies: give values with commas (optimizer.lr=0.001,0.01), an interval, or a recipe (sweep=NAME)."
        )
    return axes


def points(axes: Axes) -> Iterator[list[str]]:
    """Overrides of so many trials that each value of each axis is in one of them, of an interval both ends."""
    choices = {**axes.choices, **({SEED: axes.seeds} if axes.seeds else {})}
    choices |= {key: [*interval.ends()] for key, interval in axes.intervals.items()}
    first = {key: values[0] for key, values in choices.items()}
    yield [*axes.fixed, *(f"{key}={value}" for key, value in first.items())]
    for key, values in choices.items():
        for value in values[1:]:
            yield [*axes.fixed, *(f"{k}={v}" for k, v in {**first, key: value}.items())]


def axes_of(params: Mapping[str, Any], arguments: Sequence[str]) -> Axes:
    """The axes as `parse` has them, or none.

    Raises:
        SettingsError: an override cannot be read.
    """
    given = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    try:
        overrides = {each.get_key_element(): each for each in OverridesParser.create().parse_overrides(given)}
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise SettingsError(f"{str(error).splitlines()[0]} Values with spaces or commas need quotes.") from error
    axes = Axes([], {}, {}, [])
    for key, override in overrides.items():
        if key.lstrip("+").partition(".")[0] in OF_SWEEPS:
            continue
        if not override.is_sweep_override():
            axes.fixed.append(str(override.input_line))
        elif override.is_interval_sweep():
            axes.intervals[key] = _interval(key, override)
        elif key == SEED:
            axes.seeds.extend(_axis_values(override))
        else:
            axes.choices[key] = _axis_values(override)
    return axes


def _axis_values(override: Override) -> list[str]:
    key = override.get_key_element()
    try:
        values = list(itertools.islice(override.sweep_string_iterator(), MAX_VALUES + 1))
    except (HydraException, OmegaConfBaseException) as error:  # glob() wants the choices of a composition
        raise SettingsError(
            f"{key}: got {override.input_line}, expected the values, with commas between them."
        ) from error
    if len(values) > MAX_VALUES:
        raise SettingsError(f"{key}: {override.input_line} has more than {MAX_VALUES} values.")
    if not values:
        raise SettingsError(f"{key}: {override.input_line} has no values.")
    if len(set(values)) < len(values):
        raise SettingsError(f"{key}: a value is given twice: {', '.join(values)}.")
    return values


def _interval(key: str, override: Override) -> SearchInterval:
    value = override.value()
    assert isinstance(value, IntervalSweep)
    if value.start is None or value.end is None or not value.start < value.end:
        raise SettingsError(f"{key}: expected interval(low, high), got {override.input_line}.")
    log = "log" in value.tags
    if log and value.start <= 0:
        raise SettingsError(f"{key}: a logarithmic interval begins above 0, got {value.start}.")
    return SearchInterval(float(value.start), float(value.end), log, isinstance(value.start, int))
