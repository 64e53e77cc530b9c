"""What the folders above image files mean: names in, records out; no file is looked at."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from retinue.images.endings import is_stray, listed_endings
from retinue.pipeline.errors import DataError, Fault
from retinue.pipeline.names import class_order, escaped, name_problem, one_form
from retinue.pipeline.ranges import Checked, allowed, shown
from retinue.pipeline.watched import is_watched
from retinue.sources.folder_meanings import refuse_other_meanings, some_of
from retinue.sources.masks import MASK_EXPECTED, MASK_PATTERN, mask_place, masks_among
from retinue.sources.source import SourceRecord
from retinue.sources.split_names import split_named

_LEVELS = ("split", "class", "group", "any")


def _split_folders_differ(train_folder: str | None, val_folder: str | None, test_folder: str | None) -> Fault | None:
    keys = {"train_folder": train_folder, "val_folder": val_folder, "test_folder": test_folder}
    named = [name for name in keys.values() if name is not None]
    for key, name in reversed(keys.items()):
        if name is not None and named.count(name) > 1:
            return Fault(key, shown(name), "different train_folder, val_folder and test_folder")
    return None


def _folders_mean_a_class(folders: list[str] | None) -> Fault | None:
    if folders is None or ("class" in folders and all(folders.count(each) <= 1 for each in _LEVELS[:3])):
        return None
    return Fault("folders", shown(folders), "class once, split and group at most once, any as often as needed")


class _Tree(NamedTuple):
    """The files of a layout, neither litter nor masks, and the folders they lie in.

    Attributes:
        where: what messages call the whole.
        images: paths of files that may be images.
        strays: paths of files that are none.
        image_folders, stray_folders, empty_folders: the names of the folders above them, from the top down, each once;
            those of folders without files.
    """

    where: str
    images: Sequence[str]
    strays: Sequence[str]
    image_folders: Sequence[Sequence[str]]
    stray_folders: Sequence[Sequence[str]]
    empty_folders: Sequence[Sequence[str]]

    @classmethod
    def of(cls, where: str, names: Iterable[str]) -> "_Tree":
        """The tree of the paths `names`; what ends in `/` is a folder without files."""
        images, strays, empty = list[str](), list[str](), list[str]()
        for name in names:
            (empty if name.endswith("/") else strays if is_stray(name) else images).append(name)
        return cls(where, images, strays, _folders_of(images), _folders_of(strays), _folders_of(empty))

    def folders_at(self, level: int) -> set[str]:
        """The names of the folders that many levels below the top, those left out that hold strays alone."""
        return {folders[level] for folders in (*self.image_folders, *self.empty_folders) if len(folders) > level}


def _folders_of(names: Iterable[str]) -> list[list[str]]:
    folders = sorted({name.rpartition("/")[0] for name in names} - {""})
    return [[one_form(part) for part in folder.split("/")] for folder in folders]


@dataclass(frozen=True)
class Layout(Checked, section="source"):
    """How class folders and split folders are told from each other.

    Names of folders are taken in Unicode's composed form: é is one sign, however a system has written it.

    Attributes:
        train_folder, val_folder, test_folder: names of the split folders; None: there is none. Where there is no folder
            of that very name, one in other case is taken, or another usual name of the same split: train and training;
            val, valid, validation and dev; test and testing.
        folders: what the folders of a path are, from the top down: split, class, group (its images stay in one
            split) or any, which means nothing; what lies deeper means nothing, too. None: where there are split folders
            split and class, else class; what might mean something else is refused.
        masks: where the mask of an image lies, a path in which {path} stands for that of the image without its ending,
            {stem} for the last part of it, and {folder} for the name of the folder the image is in. What is not
            black in a mask is what the class is named after; a .txt of YOLO or .xml of Pascal VOC holds boxes around
            it. A mask is no image; an image without one shows nothing of the kind. None: there are no masks.
    """

    RELATIONS: ClassVar[Sequence[Callable[..., Fault | None]]] = (_split_folders_differ, _folders_mean_a_class)

    train_folder: str | None
    val_folder: str | None
    test_folder: str | None
    folders: list[str] | None = field(metadata=allowed(choices=_LEVELS, least=1))
    masks: str | None = field(metadata=allowed(pattern=MASK_PATTERN, expected=MASK_EXPECTED))

    def records_of(self, names: Iterable[str], where: str) -> list[SourceRecord]:
        """The records of files, sorted by path: of all of `names` but litter, hidden files and masks.

        Args:
            names: paths of files with `/`, in any order; what ends in `/` is a folder without files.
            where: what messages call the whole, such as the path of the folder.

        Raises:
            DataError: the layout is not understood, or there is no mask where there should be some.
        """
        counting = sorted(_counting(names))
        for folder in sorted({name.rpartition("/")[0] for name in counting}):
            _check_folder(where, folder)
        masks, alone = self._masks_among(counting, where)
        tree = _Tree.of(where, (name for name in counting if name not in masks and name not in alone))
        levels, split_of = self._meaning(tree)
        _check_splits_hold_classes(tree, levels, split_of)
        _check_classes_hold_images(tree, levels, split_of)
        problem = f"lies where source.masks ({self.masks}) has masks, and there is no image of it"
        lost = _Tree.of(where, alone)
        records = [
            *_records(tree.images, levels, split_of),
            *(SourceRecord(escaped(name), label="", problem=problem) for name in lost.images),
            *(SourceRecord(escaped(name), label="", is_stray=True) for name in (*tree.strays, *lost.strays)),
        ]
        return sorted(records, key=lambda record: record.image_id)

    def _masks_among(self, names: Sequence[str], where: str) -> tuple[set[str], set[str]]:
        first = next((name for name in names if not (name.endswith("/") or is_stray(name))), None)
        if self.masks is None or first is None:
            return set(), set()
        masks, alone = masks_among(self.masks, names)
        if not masks:
            raise DataError(
                f"source.masks: got {shown(self.masks)}, under which no image in {where} has a mask: that of "
                f"{escaped(first)} would be {escaped(mask_place(self.masks, first))}. Correct it; null: there are none."
            )
        return masks, alone

    def _meaning(self, tree: _Tree) -> tuple[Sequence[str], dict[str, str]]:
        """What the folders are from the top down, and the split of each split folder."""
        if self.folders is not None:
            if "split" not in self.folders:
                return self.folders, {}
            return self.folders, self._splits(tree, tree.folders_at(self.folders.index("split")))
        split_of = self._splits(tree, tree.folders_at(0))
        levels = ("split", "class") if split_of else ("class",)
        refuse_other_meanings(tree.where, tree.image_folders, levels, split_of)
        return levels, split_of

    def _splits(self, tree: _Tree, folders: Collection[str]) -> dict[str, str]:
        """Folder -> split, of the split folders among `folders`; empty where there is none and none has to be."""
        found = self._named_splits(tree, folders)
        others = class_order(set(folders) - set(found))
        if others and (found or self.folders is not None):
            raise DataError(
                f"{tree.where}: holds the split folder(s) {', '.join(sorted(found)) or 'none'} beside "
                f"{some_of(others)}. Expected either split folders alone or class folders alone: name the "
                "split folders with source.train_folder, source.val_folder and source.test_folder (null: none), or "
                "move the others away."
            )
        if found and "train" not in found.values():
            raise DataError(
                f"{tree.where}: holds {', '.join(sorted(found))} but no folder of training images. Expected "
                f"source.train_folder ({self.train_folder}); name it, or set the others to null if they are classes."
            )
        return found

    def _named_splits(self, tree: _Tree, folders: Collection[str]) -> dict[str, str]:
        settings = {"train": self.train_folder, "val": self.val_folder, "test": self.test_folder}
        named = {split: one_form(name) for split, name in settings.items() if name}
        found = {name: split for split, name in named.items() if name in folders}
        for split, name in named.items():
            alike = [folder for folder in sorted(folders) if folder not in found and _is_alias(folder, name)]
            if split in found.values():
                continue
            if len(alike) > 1:
                raise DataError(
                    f"{tree.where}: {', '.join(alike)} may each be the {split} split. Put their images into one, or "
                    f"name one with source.{split}_folder and move the others away."
                )
            found |= dict.fromkeys(alike, split)
        return found


def _is_alias(folder: str, name: str) -> bool:
    """Whether `folder` may be the split folder that the settings call `name`."""
    split = split_named(name)
    return split_named(folder) == split if split else folder.casefold() == name.casefold()


def _counting(names: Iterable[str]) -> Iterator[str]:
    """Those of `names`, each once, that are neither hidden nor litter, nor lie in such a folder."""
    of_folder = {"": True}
    for name in set(names):
        folder, _, file = name.rstrip("/").rpartition("/")
        if folder not in of_folder:
            of_folder[folder] = all(map(_is_name_taken, folder.split("/")))
        if of_folder[folder] and _is_name_taken(file):
            yield name


def _is_name_taken(name: str) -> bool:
    return not name.startswith(".") and is_watched(name)


def _check_folder(where: str, folder: str) -> None:
    if name_problem(folder):
        parts = folder.split("/")
        number = next(number for number, part in enumerate(parts, 1) if name_problem(part))
        path, problem = "/".join(parts[:number]), name_problem(parts[number - 1])
        raise DataError(f"{escaped(where)}/{escaped(path)}: {problem}. Rename the folder.")


def _records(names: Iterable[str], levels: Sequence[str], split_of: Mapping[str, str]) -> Iterator[SourceRecord]:
    """The records of files that may be images."""
    wanted = "a class folder" if "group" not in levels else f"folders that are {', '.join(levels)}"
    without = SourceRecord("", label="", problem=f"not in {wanted}, so it has no label")
    of_folder = dict[str, SourceRecord]()
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in of_folder:
            parts = [one_form(part) for part in folder.split("/") if part]
            of_folder[folder] = without if len(parts) < len(levels) else _in_folder(parts, levels, split_of)
        usual = of_folder[folder]
        problem = usual.problem or name_problem(file)
        yield SourceRecord(escaped(name), usual.label, usual.group, usual.split, problem)


def _in_folder(folders: Sequence[str], levels: Sequence[str], split_of: Mapping[str, str]) -> SourceRecord:
    meaning = dict(zip(levels, folders, strict=False))
    split = split_of[meaning["split"]] if "split" in meaning else ""
    return SourceRecord("", meaning["class"], meaning.get("group", ""), split)


def _check_splits_hold_classes(tree: _Tree, levels: Sequence[str], split_of: Mapping[str, str]) -> None:
    """Refuses a split folder of which no image lies in a class folder: what they show is not known."""
    at = levels.index("split") if "split" in levels else len(levels)
    deepest: dict[str, int] = {}
    for folders in tree.image_folders:
        if len(folders) > at:
            deepest[folders[at]] = max(deepest.get(folders[at], 0), len(folders))
    for folder, split in split_of.items():
        if folder in deepest and deepest[folder] < len(levels):
            raise DataError(
                f"{tree.where}: the images of {folder} are in no class folder, so they have no labels and cannot be "
                f"the {split} split. Sort them into class folders, or move {folder} out of the folder."
            )


def _check_classes_hold_images(tree: _Tree, levels: Sequence[str], split_of: Mapping[str, str]) -> None:
    """Refuses a class folder without images: it would go unnoticed, or it is none."""
    depth = levels.index("class") + 1
    with_images = {tuple(folders[:depth]) for folders in tree.image_folders}
    with_files = with_images | {tuple(folders[:depth]) for folders in tree.stray_folders}
    for folders in tree.empty_folders:
        if len(folders) == depth and tuple(folders) not in with_files:
            at = f"{tree.where}/{'/'.join(folders)}"
            raise DataError(f"{at}: a class folder without files. Add images, or remove the folder.")
    for folders in tree.stray_folders:
        path = folders[:depth]
        in_split = "split" not in levels or folders[levels.index("split")] in split_of
        if len(path) == depth and tuple(path) not in with_images and in_split:
            inside = [name for name in tree.strays if [*map(one_form, name.split("/")[:-1])][:depth] == path]
            raise DataError(
                f"{tree.where}/{'/'.join(path)}: a class folder without an image ({listed_endings(inside)}). Convert "
                "its files to images, or move it out of the folder if it is no class."
            )
