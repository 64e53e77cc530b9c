"""Numbers as text, the same on the console, in the report, on the dashboard and in the documents.

Digits are rounded, halves away from zero, and a rounded number never claims more than it is: what is below 1 is not
written as 1, and what is above 0 not as 0. `dashboard/numbers.js` writes the same texts.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from numbers import Integral
from typing import Any

MISSING = "–"
"""Where there is no number: None and NaN."""

DECIMALS = 4
TINY, LARGE = 1e-6, 1e9
"""Below the one and from the other on, scores and losses are written with an exponent."""

_EXACT = Context(prec=400)  # of the digits of any double before and after the point, enough to round it once
_PREFIXES = ("", "k", "M", "G", "T")


def figure(value: Any, decimals: int = DECIMALS) -> str:
    """A count with its digits in threes; any other number (score, loss, probability) with `decimals` decimals.

    Where rounding would reach 0 or 1 from between them, more digits are written.

    >>> figure(0.98333), figure(1797), figure(None), figure(float("nan"))
    ('0.9833', '1,797', '–', '–')
    >>> figure(1.0), figure(0.99997), figure(0.00002), figure(2e-12), figure(0.0)
    ('1.0000', '0.99997', '0.00002', '2e-12', '0.0000')
    """
    if value is None or math.isnan(value):
        return MISSING
    if isinstance(value, Integral):
        return _signed(value, f"{abs(int(value)):,}")
    return _signed(value, _bounded(abs(float(value)), decimals, top=1))


def interval(bounds: Sequence[float] | None) -> str:
    """Both ends of an interval.

    >>> interval([0.96666, 0.99444]), interval(None)
    ('0.9667 to 0.9944', '–')
    """
    return MISSING if bounds is None else f"{figure(bounds[0])} to {figure(bounds[1])}"


def percent(share: float) -> str:
    """A share in [0, 1] as per cent with at most one decimal; more where it would reach 0 or 100.

    >>> percent(0.95), percent(0.975), percent(1.0), percent(0.99997), percent(0.00002)
    ('95 %', '97.5 %', '100 %', '99.997 %', '0.002 %')
    """
    text = _bounded(abs(_EXACT.multiply(Decimal(share), Decimal(100))), 1, top=100)
    return f"{_signed(share, text.removesuffix('.0'))} %"


def p_value(p: float) -> str:
    """A p value; below a ten-thousandth only that it is.

    >>> p_value(0.0409), p_value(0.00000012)
    ('0.0409', '< 0.0001')
    """
    return figure(p) if p >= 1e-4 else "< 0.0001"


def significant(value: Any, digits: int = 4) -> str:
    """A learning rate, ratio or measured quantity: `digits` digits that count, no zeros after them.

    >>> [significant(v) for v in (0.001, 3e-05, 12.3456, 0.0, 20.0, 1234567.8)]
    ['0.001', '3e-05', '12.35', '0', '20', '1,234,568']
    """
    if value is None or math.isnan(value):
        return MISSING
    size = abs(float(value))
    if size == 0:
        return "0"
    if size < 1e-4 or size >= LARGE:
        return _signed(value, _exponent(size, digits - 1))
    decimals = max(0, digits - 1 - Decimal(repr(size)).adjusted())
    text = _fixed(Decimal(size), decimals)
    return _signed(value, text.rstrip("0").rstrip(".") if decimals else text)


def tick_text(value: float) -> str:
    """A value beside an axis; from ten thousand on with a decimal prefix.

    >>> [tick_text(v) for v in (0.30000000000000004, 20.0, 1e-05, 25000.0, 2e6)]
    ['0.3', '20', '1e-05', '25 k', '2 M']
    """
    size = abs(value)
    for least, unit, prefix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= least:
            return f"{significant(value / unit)} {prefix}"
    return significant(value, 6)


def short(number: int, unit: str = "") -> str:
    """A whole number (parameters, bytes) with three digits and a decimal prefix.

    >>> short(25_557_032), short(102_228_128, "B"), short(512)
    ('25.6 M', '102 MB', '512')
    """
    scaled, power = float(number), 0
    while abs(scaled) >= 999.5 and power < len(_PREFIXES) - 1:
        scaled, power = scaled / 1000, power + 1
    digits = 0 if power == 0 or scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()


def seconds(duration: float) -> str:
    """A duration given in seconds; below one in milliseconds.

    >>> seconds(0.0123), seconds(12.34), seconds(754.2)
    ('12.3 ms', '12.3 s', '754 s')
    """
    return f"{significant(duration, 3)} s" if duration >= 1 else f"{significant(duration * 1e3, 3)} ms"


def _signed(value: Any, text: str) -> str:
    return f"−{text}" if value < 0 else text


def _bounded(size: float | Decimal, decimals: int, *, top: int) -> str:
    """A number >= 0 with `decimals` decimals; with more where rounding reaches 0 or `top` from between them."""
    if size >= LARGE or 0 < size < TINY:
        return _exponent(float(size), 3 if size >= LARGE else 1)
    exact = Decimal(size)
    text = _fixed(exact, decimals)
    while 0 < exact < top and Decimal(text.replace(",", "")) in (0, top):
        decimals += 1
        text = _fixed(exact, decimals)
    return text


def _fixed(exact: Decimal, decimals: int) -> str:
    return f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, context=_EXACT):,f}"


def _exponent(size: float, decimals: int) -> str:
    if math.isinf(size):
        return "∞"
    mantissa, _, power = f"{size:.{decimals}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if decimals else mantissa}e{power}"
