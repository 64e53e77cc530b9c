"""What the trials of a sweep read from the user's checkout besides what git knows: images, a file of weights.

The settings that name them (`inputs` of a section, which DVC watches) are relative to the checkout, and so is what a
trial records. In the trial's clone a link stands at the same place.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from retinue.pipeline.checked import with_found_faults
from retinue.pipeline.composition import compose_collecting
from retinue.pipeline.errors import Fault, SettingsFaults
from retinue.pipeline.git import git


def check_trials(root: Path, trials: Iterable[Iterable[str]], *, elsewhere: bool = False) -> tuple[str, ...]:
    """Composes and checks conf/ for each of `trials`, so that what is wrong is said before anything runs.

    Args:
        root: the user's checkout.
        trials: overrides of each.
        elsewhere: the trials run on other machines: devices are not looked for on this one.

    Returns:
        The paths that they read, relative to `root`.

    Raises:
        SettingsFaults: overrides that cannot be used, inputs that are not there or that a trial would not find.
    """
    faults: list[Fault] = []
    paths: set[str] = set()
    for overrides in trials:
        values, wrong = compose_collecting(list(overrides))
        named = _named(values)
        known = {fault.key for fault in wrong}
        lost = [_input_fault(root, *each) for each in named.items() if each[0] not in known]
        told = [*wrong, *(fault for fault in lost if fault is not None)]  # these say more than that it is not there
        with chdir(root):
            faults += with_found_faults(told, values, elsewhere=elsewhere)
        paths |= {path for path in named.values() if not Path(path).is_absolute()}
    if faults:
        raise SettingsFaults(list(dict.fromkeys(faults)))
    return tuple(sorted(paths))


def link(root: Path, clone: Path, paths: Iterable[str]) -> None:
    """Makes `paths` of the checkout `root` readable at the same places of its `clone`.

    What git knows is in the clone already, and what `dvc add` put in the cache DVC brings; the rest is linked: all of a
    folder at once or, where git knows some of its files, each other file.
    """
    for path in paths:
        place = Path(os.path.normpath(path))
        if any(Path(clone, f"{each}.dvc").is_file() for each in (place, *place.parents)):
            continue
        known = _files(root, place)
        missing = [Path(name) for name in _files(root, place, "--others")] if known else [place]
        for each in missing:
            Path(clone, each).parent.mkdir(parents=True, exist_ok=True)
            Path(clone, each).symlink_to(Path(root, each))
        with Path(clone, ".git", "info", "exclude").open("a", encoding="utf-8") as file:
            file.writelines(f"/{_literal(each.as_posix())}\n" for each in missing)


def _named(values: Mapping[str, Any]) -> dict[str, str]:
    """Key of a setting -> the path in it that DVC watches."""
    sections = {name: section for name, section in values.items() if isinstance(section, dict) and "inputs" in section}
    return {
        f"{name}.path" if section.get("path") == section["inputs"] else f"{name}.inputs": str(section["inputs"])
        for name, section in sections.items()
    }


def _input_fault(root: Path, key: str, path: str) -> Fault | None:
    if path == "???":
        return Fault(key, "nothing", "a path", f"This setting has no default; give it as {key}=PATH.")
    if not Path(root, path).exists():
        return Fault(key, path, "a path that exists", f"There is no {Path(root, path)}; check the spelling.")
    normal = os.path.normpath(path)
    if Path(normal).parts[:1] in ((), (os.pardir,)):
        absolute = os.path.normpath(root / path)
        return Fault(
            key, path, "a path inside the checkout, or an absolute one", f"A trial runs elsewhere; give {absolute}."
        )
    return None


def _files(root: Path, path: Path, *options: str) -> list[str]:
    """The files at or below `path` that git knows; with --others, those that it does not."""
    found = git(root, "--literal-pathspecs", "ls-files", "-z", *options, "--", str(path))
    return [name for name in found.split("\0") if name]


def _literal(path: str) -> str:
    """`path` as a line of git's exclude file that means nothing else."""
    return "".join(f"\\{sign}" if sign in "\\*?[]!# " else sign for sign in path)
