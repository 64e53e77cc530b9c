"""Overrides of the command line as Hydra can read them: values its grammar has no word for are quoted.

A value of a key that ends in .path is text, whatever it holds: spaces, brackets, commas, an equals sign, any script.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from retinue.pipeline.errors import Fault
from retinue.pipeline.ranges import shown

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_SEVERAL = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\(")
"""How the values of a sweep begin that are no list with commas."""

_STRUCTURED = re.compile(rf"""[\['"]|{{(?!\w+}})|(int|float|bool|str)\(|{_SEVERAL.pattern}""")
"""How lists, mappings, quoted texts and functions begin: what does not parse there is a slip, not text. A word
in braces, as in {path}_mask.png, stands for another one and is text."""

_LONGEST_NAME = 255
"""Bytes of a file's or folder's name that file systems take."""

_TEXT_BETWEEN_COMMAS = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,])+""")


def name_of(override: str) -> str:
    """The key of `override` without the signs before it (+ adds, ++ adds or sets, ~ removes)."""
    return override.partition("=")[0].lstrip("+~")


def readable(override: str, *, several: bool = False) -> str | Fault:
    """`override` as Hydra can read it, or what is wrong with it.

    Args:
        override: as it was given.
        several: a sweep's: a comma outside quotes stands between two values.
    """
    key, equals, value = override.partition("=")
    name = name_of(override)
    if not override.isascii() and any(0xD800 <= ord(sign) <= 0xDFFF for sign in override):
        return Fault(_shown_text(key), _shown_text(value), "text in UTF-8", "Rename the file or folder.")
    if override.startswith("~"):
        return override if parsed(override) else Fault(key, value or "no value", "~KEY, which removes a setting")
    if not equals or not name:
        return Fault(name or override, "no value" if not equals else value, "KEY=VALUE, such as optimizer.lr=0.01")
    if parsed(f"{key}=") is None:
        return Fault(key, value, "a key such as optimizer.lr or model")
    if not several:
        return _one(key, value)
    if _SEVERAL.match(value) or "=>" in value:
        return _one(key, value, several=True)
    if not name.endswith(".path") and parsed(override):
        return override
    values = [_one(key, part.strip()) for part in _TEXT_BETWEEN_COMMAS.findall(value)] or [_one(key, value)]
    wrong = next((each for each in values if isinstance(each, Fault)), None)
    return wrong or f"{key}={','.join(str(each).partition('=')[2] for each in values)}"


def value_of(override: str) -> str:
    """The value of `override` as a person would write it, without the quotes that Hydra needs; "nothing" for none."""
    found = parsed(override)
    text = None if found is None else _quoted_text(found)
    return text if text is not None else override.partition("=")[2] or "nothing"


def parsed(override: str) -> "Override | None":
    """`override` as Hydra reads it; None where it cannot."""
    from hydra.core.override_parser.overrides_parser import OverridesParser  # 0.2 s, and most stages have no overrides
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except (HydraException, OmegaConfBaseException, ValueError):  # ValueError: a number of more than 4,300 digits
        return None


def quoted(text: str) -> str:
    r"""`text` between double quotes, to be read by Hydra as that very text.

    >>> print(quoted('a "b" C:'))
    "a \"b\" C:"
    """
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)  # backslashes count for something before a quote alone
    return '"' + re.sub(r"(\\+)\Z", r"\1\1", escaped) + '"'


def _one(key: str, value: str, *, several: bool = False) -> str | Fault:
    """`key`=`value` for one value."""
    name = key.lstrip("+")
    found = parsed(f"{key}={value}")
    if name.endswith(".path") and not several:
        return _path(key, value, found)
    if "=>" in value and value[:1] not in "'\"":
        return f"{key}={quoted(value)}"  # a pattern of layers, which parses in parts
    if found is None and _STRUCTURED.match(value):
        return Fault(name, value, "a value that Hydra can read", "Count its brackets and quotes.")
    if found is None:
        return f"{key}={quoted(value)}"
    if found.is_sweep_override() and not several:
        hint = f"`retinue sweep` tries several; a list is {name}=[…], text with a comma {name}='\"…\"'."
        return Fault(name, value, "one value", hint)
    return f"{key}={value}"


def _path(key: str, given: str, found: "Override | None") -> str | Fault:
    """A path as text; ~ is the home folder, which DVC does not know.

    Args:
        key: with the signs before it.
        given: after the equals sign.
        found: what Hydra made of both; None: it could not.
    """
    name = key.lstrip("+")
    value = found.value() if found else given
    if value is None or isinstance(value, bool | int | float) or not str(value).strip():
        hint = f"A folder or file of that name is {name}=./{given or 'NAME'}."
        return Fault(name, given or "nothing", "a path", hint)
    unquoted = None if found is None else _quoted_text(found)
    text = given if unquoted is None else unquoted
    if text.startswith("~"):
        try:
            text = str(Path(text).expanduser())
        except RuntimeError:
            hint = f"This machine has no user {text[1:].split('/')[0]!r}; a folder of that name is {name}=./{text}."
            return Fault(name, given, "a path", hint)
    if any(len(part.encode()) > _LONGEST_NAME for part in Path(text).parts):
        return Fault(name, shown(text), f"a path whose names are at most {_LONGEST_NAME} bytes", "Check the spelling.")
    return f"{key}={quoted(text)}"


def _quoted_text(override: "Override") -> str | None:
    """The text between the quotes of a value that is quoted as a whole."""
    value = override.value()
    begins = str(override.input_line).partition("=")[2].lstrip()[:1]
    return value if isinstance(value, str) and begins in ('"', "'") else None


def _shown_text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
