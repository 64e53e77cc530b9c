"""Axes of charts: round ends, round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

LOG_FACTOR = 30
"""From this ratio of the largest to the smallest value an axis that may be logarithmic is."""

_NOTHING = 1e-290  # below it a tenth of a step underflows to zero

_EQUAL = 1e-6  # of their size: values as close as this are shown as one


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        name: what is shown, with its unit.
        low, high: the ends, low < high.
        ticks: values that are labelled, in order.
        log: logarithmic; then low > 0.
    """

    name: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def around(
        cls,
        name: str,
        values: Iterable[float],
        *,
        within: tuple[float, float] | None = None,
        whole: bool = False,
        may_be_log: bool = False,
    ) -> "Axis":
        """The axis that fits `values`, with round ends and, where it is linear, three to seven ticks.

        Args:
            name: of the axis.
            values: those that are not finite do not count.
            within: limits that the axis never leaves (a score stays in [0, 1]).
            whole: ticks at integers only.
            may_be_log: logarithmic where all values are positive and span more than a factor of 30.
        """
        finite = [float(v) if abs(v) > _NOTHING else 0.0 for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if may_be_log and low > 0 and high > LOG_FACTOR * low:
            return cls._decades(name, low, high)
        if high - low <= _EQUAL * max(abs(low), abs(high)):
            low, high = (low - 1, high + 1) if whole else (low - 0.1 * (abs(low) or 1), high + 0.1 * (abs(high) or 1))
        step = _round_step((high - low) / 5, whole=whole)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        if within is not None:
            low, high = max(low, within[0]), min(high, within[1])
        first = math.ceil(low / step - 1e-9)
        count = math.floor(high / step + 1e-9) - first + 1
        return cls(name, low, high, tuple((first + i) * step for i in range(count)))

    @classmethod
    def _decades(cls, name: str, low: float, high: float) -> "Axis":
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        parts = (1, 2, 5) if last - first <= 2 else (1,)
        ticks = [part * 10.0**decade for decade in range(first, last + 1) for part in parts]
        return cls(name, 10.0**first, 10.0**last, tuple(t for t in ticks if t <= 10.0**last * 1.001), log=True)

    def place(self, value: float) -> float:
        """Where `value` lies: 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def unit_axis(name: str) -> Axis:
    """The axis from 0 to 1."""
    return Axis(name, 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def _round_step(width: float, *, whole: bool) -> float:
    """The least of 1, 2, 2.5, 5 x 10^k that is not below `width`, among the integers where it must be `whole`."""
    width = max(1.0, width) if whole else width
    decade = 10.0 ** math.floor(math.log10(width))
    steps = [part * decade for part in (1, 2, 2.5, 5, 10) if part * decade >= width * (1 - 1e-9)]
    return next(step for step in steps if not whole or step.is_integer())
