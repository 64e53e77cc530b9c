"""The margin of a sheet of images, in which the name of each row stands."""

import textwrap

_WIDTH, _LINES = 14, 4


def row_name(name: str) -> str:
    """A class name as the margin holds it: lines of 14 signs, broken between words where it can be, four at most."""
    return "\n".join(textwrap.wrap(name, _WIDTH, max_lines=_LINES, placeholder="…"))
