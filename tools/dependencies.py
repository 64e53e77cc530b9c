"""Writes into dvc.yaml the code that each stage imports: `make deps`; `make check` fails where the two differ.

A stage depends on every file that its own imports, at any depth, functions included, and on the parts that its settings
choose, which are written with the setting that names the file. A folder stands for its files where the stage imports
all of them.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from import_graph import SRC, closure, is_empty

ROOT = SRC.parent
CODE = "src/retinue/"
BUILDS_MODELS = SRC / "retinue" / "bundle.py"
"""Who imports it builds the network of a bundle, whether or not the stage reads the section `model`."""

SHOWS_SETTINGS = ("report",)
"""Stages that show settings and build nothing from them."""


def stage_file(stage: str) -> Path:
    """The file of a stage."""
    return SRC / "retinue" / "stages" / f"{stage}.py"


def targets(node: Any) -> Iterator[str]:
    """All `_target_`s of the package anywhere below `node`, interpolations as they stand in conf/."""
    if isinstance(node, dict):
        target = str(node.get("_target_", ""))
        if target.startswith("retinue."):
            yield target
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from targets(child)


def target_file(target: str) -> Path:
    """The file in which a `_target_` stands."""
    return SRC.joinpath(*target.split(".")[:-1]).with_suffix(".py")


def chosen(section: str) -> tuple[set[Path], set[str]]:
    """What the choices of conf/<section>/ name: files, and paths with a setting in place of the file's name."""
    files, templates = set[Path](), set[str]()
    for path in sorted((ROOT / "conf" / section).rglob("*.yaml")):
        document = yaml.safe_load(path.read_text("utf-8")) or {}
        for target in targets(document):
            if "${" in target:
                family = target.split(".")[1]
                templates.add(f"{CODE}{family}/${{{section}.module}}.py")
                module = target.split("}.")[0].split("${")[0] + document["module"]
                files |= closure(SRC.joinpath(*module.split(".")).with_suffix(".py")) - {
                    SRC.joinpath(*module.split(".")).with_suffix(".py")
                }
            else:
                files |= closure(target_file(target))
    return files, templates


def dependencies(stage: str, sections: Iterable[str]) -> list[str]:
    """The code of a stage as dvc.yaml declares it: its own file, then the rest by name.

    Args:
        stage: a file of stages/.
        sections: of the settings, those the stage reads.
    """
    own = stage_file(stage)
    files, templates = set(closure(own)), set[str]()
    builds = {} if stage in SHOWS_SETTINGS else dict.fromkeys(sections)
    for section in [*builds, *(["model"] if BUILDS_MODELS in files else [])]:
        more, named = chosen(section)
        files |= more
        templates |= named
    names = {name for path in _folded(files - {own}) for name in [path.relative_to(ROOT).as_posix()]}
    return [own.relative_to(ROOT).as_posix(), *sorted(names | templates)]


def _folded(files: set[Path]) -> set[Path]:
    """`files`, with each folder below the package in place of its files where all of them are there."""
    folders = {folder for file in files for folder in file.parents if (SRC / "retinue") in folder.parents}
    whole = {f for f in folders if {p for p in f.rglob("*.py") if not is_empty(p)} <= files}
    covered = {file for file in files if whole & set(file.parents)}
    outer = {folder for folder in whole if not whole & set(folder.parents)}
    return files - covered | outer


def rewritten(text: str) -> str:
    """dvc.yaml with the code dependencies of today; all else stays as it is, comments included."""
    stages = yaml.safe_load(text)["stages"]
    for stage, definition in stages.items():
        lines = "".join(f"      - {path}\n" for path in dependencies(stage, definition["params"]))
        block = re.compile(rf"(?ms)^(  {stage}:.*?\n    deps:\n)(.*?)(?=^    \w|^  \w|^\w)")
        text, count = block.subn(
            lambda m, lines=lines: m[1] + re.sub(rf"(?m)^      - {CODE}.*\n", "", m[2]) + lines, text, count=1
        )
        if count != 1:
            raise SystemExit(f"error: dvc.yaml: stage {stage} has no deps: where its code would be declared.")
    return text


def main() -> None:
    """Rewrites dvc.yaml; with --check, says whether it would change."""
    path = ROOT / "dvc.yaml"
    text = path.read_text("utf-8")
    new = rewritten(text)
    if "--check" not in sys.argv[1:]:
        path.write_text(new, "utf-8")
    elif new != text:
        sys.exit("error: dvc.yaml does not declare the code that the stages import. Run `make deps` and commit it.")


if __name__ == "__main__":
    main()
