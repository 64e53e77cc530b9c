"""Which columns of a table say what: named by the settings, or found by their names where only one can be meant."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retinue.pipeline.errors import DataError, Fault, nearest
from retinue.pipeline.names import one_form
from retinue.pipeline.ranges import shown

_NAMES = {
    "image": (
        ("image",),
        (
            *("images", "img", "imgs", "file", "filename", "file_name", "filepath", "file_path", "path", "image_path"),
            *("image_file", "image_name", "image_filename", "imagepath", "imagename", "img_path", "img_name"),
            *("photo", "picture", "relative_path"),
        ),
        ("image_id", "imageid", "img_id", "id", "name"),
    ),
    "label": (
        ("label",),
        (
            *("labels", "class", "classes", "category", "target", "class_name", "classname", "label_name", "cls"),
            *("category_name", "class_label", "image_class", "species", "breed", "diagnosis"),
        ),
        ("class_id", "label_id", "category_id", "class_index", "label_idx"),
        ("txt",),
    ),
    "group": (("group",), ("groups", "group_id")),
    "split": (("split",), ("splits", "subset", "partition")),
    "mask": (("mask",), ("masks", "mask_path", "mask_file", "mask_filename", "segmentation_path")),
}
"""Role -> tiers of names, in small letters: of a tier that occurs in a table, one alone may."""

_BOXES = (
    {"x": "x", "y": "y", "width": "width", "height": "height"},
    {"x": "x", "y": "y", "width": "w", "height": "h"},
    {"x": "bbox_x", "y": "bbox_y", "width": "bbox_width", "height": "bbox_height"},
    {"x": "xmin", "y": "ymin", "right": "xmax", "bottom": "ymax"},
    {"x": "x_min", "y": "y_min", "right": "x_max", "bottom": "y_max"},
    {"x": "x1", "y": "y1", "right": "x2", "bottom": "y2"},
    {"x": "left", "y": "top", "right": "right", "bottom": "bottom"},
)
_BOX = ("x", "y", "width", "height", "right", "bottom")
ROLES = (*_NAMES, *_BOX)
"""What a column may say: which image, its class, group, split and mask; of a box, px of its left and upper edge and
either its size or its right and lower edge."""

_NO_COLUMN = ""
LABELS_ONLY: Mapping[str, str | None] = dict.fromkeys(("mask", *_BOX), _NO_COLUMN)
"""Settings by which masks and boxes are further columns."""

_MOST_ATTRIBUTES = 100
_LISTED = 30


class Columns(NamedTuple):
    """The columns of a table by what they say.

    Attributes:
        image, label, group, split, mask: names; "" where there is none.
        box: names of x, y and either width and height or right and bottom, by these; empty where there is none.
        attributes: names of further columns.
    """

    image: str
    label: str
    group: str
    split: str
    mask: str
    box: Mapping[str, str]
    attributes: tuple[str, ...]

    def read(self) -> list[str]:
        """The names of all columns that are read, each once."""
        named = (self.image, self.label, self.group, self.split, self.mask, *self.box.values(), *self.attributes)
        return list(dict.fromkeys(name for name in named if name))


def columns_can_be(columns: dict[str, Any]) -> Fault | None:
    """The fault of the setting `columns`; None where it can be one."""
    for role, name in columns.items():
        if role not in ROLES:
            match = nearest(str(role), ROLES)
            hint = f"Did you mean {match}?" if match else ""
            return Fault(f"columns.{role}", shown(name), f"one of {', '.join(ROLES)} as the key", hint)
        if name is not None and (isinstance(name, bool) or not isinstance(name, str | int)):
            return Fault(f"columns.{role}", shown(name), "the name of a column, '' (there is none) or null (found)")
    return None


def columns_of(
    header: Sequence[str],
    settings: Mapping[str, Any],
    *,
    where: str,
    attributes: Sequence[str] | None = None,
    given: Sequence[str] = (),
) -> Columns:
    """The columns of a table with the names `header`.

    Args:
        header: the names; "" for a column without one, which nobody can mean.
        settings: role -> name; None: it is found; "": there is none. Names are compared as they are and, if none is
            the same, without regard to case, spaces and `-` for `_`.
        where: the table is; errors begin with it.
        attributes: names of the further columns to keep; None: all.
        given: roles that no column has to have, because the files themselves say it.

    Raises:
        DataError: a name is not in the table or twice; a role that is needed has no column, or several may be it.
    """
    named = {role: _column_setting(name) for role, name in settings.items()}
    finder = _Finder([name for name in header if name], named, where)
    found = {role: finder.column(role, needed=role in ("image", "label") and role not in given) for role in _NAMES}
    box = finder.box()
    used = {*found.values(), *box.values()}
    further = [name for name in finder.header if name not in used]
    if attributes is not None:
        further = [finder.named(name, "attributes") for name in attributes]
    elif len(further) > _MOST_ATTRIBUTES:
        raise DataError(
            f"{where}: {len(further)} further columns; at most {_MOST_ATTRIBUTES} are kept as attributes. Name those "
            f"to keep in source.attributes ([]: none). {finder.listed()}"
        )
    return Columns(**found, box=box, attributes=tuple(further))


def image_column(header: Sequence[str], name: str | None, *, where: str) -> str:
    """The column that says where the images are, of a table from which nothing else is wanted.

    Args:
        header: the names of its columns.
        name: of the column; None: it is found, also where it is the only one.
        where: the table is; errors begin with it.

    Raises:
        DataError: there is no such column, or several may be it.
    """
    named = [each for each in header if each]
    if name is None and len(named) == 1:
        return named[0]
    return _Finder(named, {"image": name}, where, option="--column").column("image", needed=True)


class _Finder:
    """Finds columns by name."""

    def __init__(
        self, header: Sequence[str], settings: Mapping[str, str | None], where: str, *, option: str | None = None
    ):
        self.header, self._settings, self._where, self._option = list(header), settings, where, option
        self._plain: dict[str, list[str]] = {}
        for name in self.header:
            self._plain.setdefault(_plain_name(name), []).append(name)
        twice = [name for name, times in Counter(self.header).items() if times > 1]
        if twice:
            raise DataError(f"{where}: a column is there twice: {shown(twice[0])}. Rename one. {self.listed()}")

    def listed(self) -> str:
        """A sentence with the names of the columns."""
        names = [shown(name) for name in self.header[:_LISTED]]
        more = f" and {len(self.header) - _LISTED} more" if len(self.header) > _LISTED else ""
        return f"Columns found: {', '.join(names) or 'none'}{more}."

    def named(self, name: str, role: str) -> str:
        """The column that the settings call `name`."""
        if name in self.header:
            return name
        like = self._plain.get(_plain_name(name), [])
        if len(like) == 1:
            return like[0]
        match = nearest(name, self.header[:1000])
        hint = f" Did you mean {match!r}?" if match else ""
        raise DataError(
            f"{self._where}: no column {shown(name)} ({self._option or f'source.{_key(role)}'}).{hint} {self.listed()}"
        )

    def column(self, role: str, *, needed: bool) -> str:
        """The column of a role; "" where there is none and none is needed."""
        given = self._settings.get(role)
        if given:
            return self.named(given, role)
        if given == _NO_COLUMN:
            if needed:
                raise DataError(
                    f"{self._where}: source.columns.{role}='' says that no column is the {role}, but one has to be. "
                    f"Name it, or leave the setting at null, and it is found. {self.listed()}"
                )
            return _NO_COLUMN
        for tier in _NAMES[role]:
            found = [name for plain in tier for name in self._plain.get(plain, [])]
            if len(found) == 1:
                return found[0]
            if found:
                raise DataError(
                    f"{self._where}: several columns may be the {role}: {', '.join(map(shown, found))}. Say which: "
                    f"{self._saying(role, found[0])}. {self.listed()}"
                )
        if not needed:
            return _NO_COLUMN
        match = nearest(role, self.header[:1000]) or "NAME"
        raise DataError(
            f"{self._where}: no column is known to be the {role}. Say which is: {self._saying(role, match)}. "
            f"{self.listed()}"
        )

    def _saying(self, role: str, name: str) -> str:
        """How a person says that column `name` has the role."""
        return f"{self._option} {shown(name)}" if self._option else f"source=table source.columns.{role}={name}"

    def box(self) -> dict[str, str]:
        """The columns of the box."""
        given = {role: name for role in _BOX if (name := self._settings.get(role))}
        if given:
            ends = {"x", "y", "width", "height"}, {"x", "y", "right", "bottom"}
            if given.keys() not in ends:
                raise DataError(
                    f"{self._where}: source.columns names {', '.join(given)} of a box. Expected x, y, width and "
                    "height, or x, y, right and bottom."
                )
            return {role: self.named(name, role) for role, name in given.items()}
        if any(self._settings.get(role) == _NO_COLUMN for role in _BOX):
            return {}
        found = [
            {role: self._plain[plain][0] for role, plain in names.items()}
            for names in _BOXES
            if all(len(self._plain.get(plain, [])) == 1 for plain in names.values())
        ]
        if len(found) > 1:
            raise DataError(
                f"{self._where}: several columns may be the box. Say which, with source.columns.x and so on, or "
                f"source.columns.x='' for none. {self.listed()}"
            )
        return found[0] if found else {}


def _key(role: str) -> str:
    return role if role == "attributes" else f"columns.{role}"


def _column_setting(name: Any) -> str | None:
    return None if name is None else str(name)


def _plain_name(name: str) -> str:
    return "_".join(one_form(name).casefold().replace("-", " ").replace("_", " ").split())
