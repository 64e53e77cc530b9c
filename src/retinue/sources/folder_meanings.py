"""Folders that may mean something else than classes: told by the names that they have in common."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from retinue.pipeline.errors import DataError
from retinue.pipeline.names import class_order
from retinue.sources.split_names import split_named

_LISTED = 5  # names in a message


class UnclearFolders(DataError):
    """Folders that may mean something else than they usually do.

    Attributes:
        choices: values of source.folders that may be meant, the likeliest first.
    """

    def __init__(self, message: str, choices: Sequence[list[str]] = ()):
        super().__init__(message)
        self.choices = choices


def refuse_other_meanings(
    where: str, image_folders: Iterable[Sequence[str]], levels: Sequence[str], splits: Collection[str]
) -> None:
    """Refuses folders that would be the classes where those below them look like the classes or the splits.

    Args:
        where: what messages call the whole.
        image_folders: the names of the folders above each image, from the top down.
        levels: what they are taken for; the last of them is the class.
        splits: the names of the split folders, at the top; none where there are none.

    Raises:
        UnclearFolders: the message says what they probably are and with which setting.
    """
    at = len(levels) - 1
    below: dict[str, set[str]] = {}
    for folders in image_folders:
        if len(folders) <= at or (splits and folders[0] not in splits):
            continue
        if len(folders) == at + 1:  # an image of its own: the folder is a class
            return
        below.setdefault(folders[at], set()).add(folders[at + 1])
    shared = _shared(below)
    if len(shared) < 2:
        return
    tops, before = class_order(below), list(levels[:at])
    usual = [*before, "class"]
    if not before and len(tops) == 1 and all(map(split_named, shared)):
        meaning, choices = "split folders", [["any", "split", "class"], ["class", "split"], usual]
        said = _setting(choices[0])
    elif not before and all(map(split_named, shared)):
        meaning, choices = "split folders inside of classes", [["class", "split"], usual]
        said = _setting(choices[0])
    elif len(tops) == 1:
        meaning, choices = "the classes", [[*before, "any", "class"], usual]
        said = _setting(choices[0])
    else:
        meaning, choices = "the classes", [[*before, "group", "class"], [*before, "any", "class"], usual]
        said = (
            f"{_setting(choices[0])} if {some_of(tops)} are places, patients or days, whose images stay in one split "
            f"each; {_setting(choices[1])} if they mean nothing"
        )
    raise UnclearFolders(
        f"{where}: the classes would be {some_of(tops)}, but all images lie deeper, in folders called "
        f"{some_of(class_order(shared))}{' in several of them' if len(tops) > 1 else ''}. These are probably "
        f"{meaning}. "
        f"Say what the folders are: {said}; {_setting(usual)} if {some_of(tops)} are the classes.",
        choices,
    )


def _shared(below: dict[str, set[str]]) -> list[str]:
    """The names of folders that most of those below several folders have; below one folder, all."""
    counts = Counter(name for names in below.values() for name in names)
    shared = [name for name, count in counts.items() if count > 1 or len(below) == 1]
    most = 2 * sum(counts[name] for name in shared) > sum(counts.values())
    return shared if most else []


def _setting(levels: Sequence[str]) -> str:
    return f"source.folders=[{','.join(levels)}]"


def some_of(names: Sequence[str]) -> str:
    """The first of `names`, for a message."""
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
