"""Numbers as text: cut off, never rounded up, so that what is seen is where the full number begins."""

from decimal import ROUND_DOWN, Decimal

DECIMALS = 4


def cut(value: float, decimals: int = DECIMALS) -> str:
    """`value` with at most `decimals` decimals, the rest cut off; a whole number with its digits in threes.

    >>> cut(0.99449), cut(0.29, 2), cut(-0.00009), cut(591754)
    ('0.9944', '0.29', '0.0000', '591\u202f754')
    """
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    shown = str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-decimals), ROUND_DOWN))
    return shown.removeprefix("-") if not shown.strip("-0.") else shown.replace("-", "−")


def p_text(p: float) -> str:
    """A p value as text; below a ten-thousandth only that it is.

    >>> p_text(0.0409), p_text(0.00000012)
    ('0.0409', '<\u202f0.0001')
    """
    return cut(p) if p >= 1e-4 else "<\u202f0.0001"
