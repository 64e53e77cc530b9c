"""Names of files and classes: what can be shown of them, which look alike, which are litter."""

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction

_JOINERS = "\u200c\u200d"  # part of words in Persian and Hindi, and of emoji
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}

_LITTER = {
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "@tmp"),  # Synology, QNAP
    *("lost+found", "$recycle.bin", "system volume information", "recycler"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"),
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *(".ds_store", ".directory", ".thumbnails", ".appledouble", ".picasa.ini", ".spotlight-v100", ".trashes"),
    *(".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".picasaoriginals", ".sync", ".stfolder"),
    *(".ipynb_checkpoints", ".trash"),
}
_LITTER_STARTS = ("._", ".trash-", ".nfs", "~$")  # AppleDouble, removable disks, network drives, open office documents

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def escaped(text: str, *, keep: str = "") -> str:
    r"""`text` with what a terminal or a page would obey or not show written as its code: control characters, marks of
    direction, invisible signs, and bytes that are no UTF-8 (Python keeps them as lone surrogates).

    Args:
        text: of any kind.
        keep: signs that stay as they are.

    >>> print(escaped("a\x1b[2J\u202egpj.b"))
    a\x1b[2J\u202egpj.b
    """
    if text.isprintable():
        return text
    return "".join(_code(sign) if sign not in keep and _is_hidden(sign) else sign for sign in text)


def name_problem(name: str) -> str:
    """Why a name cannot be used in tables and on pages; "" where it can."""
    if escaped(name) == name:
        return ""
    return "its name is not valid UTF-8 or holds control, invisible or direction characters"


def one_form(name: str) -> str:
    """`name` in Unicode's composed form (NFC): macOS and Linux may write é as one sign and as two."""
    return unicodedata.normalize("NFC", name)


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Those of `names` that differ in case, spaces or Unicode form alone, together.

    >>> look_alikes(["cat", "Cat", "dog", "dog ", "owl"])
    [['Cat', 'cat'], ['dog', 'dog ']]
    """
    alike: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        alike.setdefault(" ".join(unicodedata.normalize("NFKC", name).casefold().split()), []).append(name)
    return [group for group in alike.values() if len(group) > 1]


def is_litter(name: str) -> bool:
    """Whether a file or folder is what file managers, network drives and archives leave behind, not data."""
    return name.lower() in _LITTER or name.lower().startswith(_LITTER_STARTS)


def class_order(names: Iterable[str]) -> list[str]:
    """The different `names` of classes in the order of every list of them: numbers in them count as numbers.

    Where all names are numbers they are ordered by value; else their digits are, wherever they stand.

    >>> class_order(["10", "2", "1"]), class_order(["0.5", "-1", "0.25"]), class_order(["grade 10", "grade 9", "Bad"])
    (['1', '2', '10'], ['-1', '0.25', '0.5'], ['Bad', 'grade 9', 'grade 10'])
    """
    different = set(names)
    if all(_NUMBER.fullmatch(name) for name in different):
        return sorted(different, key=lambda name: (Fraction(name), name))
    return sorted(different, key=lambda name: (_text_and_numbers(name), name))


def _text_and_numbers(name: str) -> list[str | int]:
    """Text and numbers in turns, so that any two such lists can be compared."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def _is_hidden(sign: str) -> bool:
    return unicodedata.category(sign) in _HIDDEN and sign not in _JOINERS


def _code(sign: str) -> str:
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number & 0xFF:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
