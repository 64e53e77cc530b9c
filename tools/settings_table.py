"""Writes docs/settings.md from the settings dataclasses: `make settings`; `make check` fails where the two differ.

Types and ranges are those that are checked, defaults those of conf/, meanings those of the docstrings.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from retinue.pipeline.ranges import range_of, shown
from retinue.preflight import SCHEMAS
from retinue.sources.archive import Archive
from retinue.sources.cifar import Cifar
from retinue.sources.idx import Idx
from retinue.sources.image_folder import ImageFolder
from retinue.sources.oxford_pets import OxfordPets
from retinue.sources.shards import Shards
from retinue.sources.surfaces import Surfaces
from retinue.sources.table import ImageTable
from retinue.sweeps.settings import SweepSettings
from retinue.transfer.automatic import Auto
from retinue.transfer.scenario import Scenario

ROOT = Path(__file__).resolve().parents[1]
PARTS: dict[str, list[tuple[str, type[Any], str]]] = {  # section -> heading, dataclass, file of the defaults
    "source": [
        ("source=image_folder", ImageFolder, "source/image_folder"),
        ("source=table", ImageTable, "source/table"),
        ("source=shards", Shards, "source/shards"),
        ("source=archive", Archive, "source/archive"),
        ("source=mnist", Idx, "source/mnist"),
        ("source=cifar10", Cifar, "source/cifar10"),
        ("source=oxford_pets", OxfordPets, "source/oxford_pets"),
        ("source=surfaces", Surfaces, "source/surfaces"),
    ],
    "transfer": [("transfer", Scenario, "transfer/scratch"), ("transfer=auto", Auto, "transfer/auto")],
}
HEAD = """# Settings

Made by `make settings` from the dataclasses that check these settings; not edited by hand. Every section of a
composition is checked before anything runs, by `retinue compose`, `retinue sweep` and each stage before its W&B run
begins: types, ranges and choices as below, unknown sections and keys, transforms and their arguments, the network with
one training batch, the optimizer, the schedule, the explainer, files, devices and optional packages. All faults
are listed at once:

```
$ retinue compose train.max_epochs=0 evaluate.confidence_level=2 +callbacks.patience=1
error: compose: 3 settings cannot be used:
  callbacks.patience: got 1, expected a setting or a group of conf/. Unknown key 'callbacks.patience'. Did you …
  train.max_epochs: got 0, expected an integer >= 1.
  evaluate.confidence_level: got 2, expected a number in (0, 0.999999].
```

What passes is remembered in `.cache/checked/` under a digest of the settings, the code, the installed packages, the
accelerators and what is found at the paths that the settings name; later stages of the same run look no further. `seed`
is an integer from 0 to 2⁶³ - 1. The sections `model`, `optimizer` and `schedule` take the arguments of their
`_target_`. Default is the value in the file of `conf/` named in the heading; `???` has to be given.
"""


def page() -> str:
    """The text of docs/settings.md."""
    return "\n".join([HEAD, *(_table(*each) for each in _tables())])


def _tables() -> Iterator[tuple[str, type[Any], str]]:
    """Heading, dataclass and file of the defaults of each table, in the order of conf/config.yaml."""
    composition = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text("utf-8"))
    chosen = {key: name for each in composition["defaults"] if isinstance(each, dict) for key, name in each.items()}
    for section, name in chosen.items():
        if section in SCHEMAS:
            yield section, SCHEMAS[section], f"{section}/{name}"
        yield from PARTS.get(section, [])
    yield "sweep", SweepSettings, "sweep/default"


def _table(heading: str, schema: type[Any], choice: str) -> str:
    defaults = _values(ROOT / "conf" / f"{choice}.yaml")
    meanings = {name: text for each in reversed(schema.__mro__) for name, text in _attributes(each)}
    hints = get_type_hints(schema)
    lines = [f"## {heading}", "", f"`conf/{choice}.yaml`", "", "| key | expected | default | meaning |"]
    lines.append("|---|---|---|---|")
    for entry in fields(schema):
        default = _default(defaults[entry.name]) if entry.name in defaults else ""
        cells = (f"`{entry.name}`", range_of(entry).words(hints[entry.name]), default, meanings.get(entry.name, ""))
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _values(path: Path) -> dict[str, Any]:
    """The settings of a file of conf/, those of its defaults beside it first."""
    values = yaml.safe_load(path.read_text("utf-8"))
    named = [name.partition("@") for name in values.pop("defaults", []) if isinstance(name, str)]
    beside = [name for name, _, package in named if package in ("", "_here_")]
    return {key: value for name in beside for key, value in _values(path.parent / f"{name}.yaml").items()} | values


def _attributes(schema: type[Any]) -> Iterator[tuple[str, str]]:
    """The attributes that the docstring of `schema` explains; one text may explain several."""
    text = inspect.getdoc(schema) or ""
    block = text.partition("Attributes:\n")[2]
    for names, meaning in re.findall(r"(?ms)^    (\w+(?:, \w+)*): (.*?)(?=^    \w|\Z)", block):
        for name in names.split(", "):
            yield name, re.sub(r"\bNone\b", "null", " ".join(meaning.split()))


def _default(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, dict) for item in items):
        return "see the file"
    return f"`{', '.join(shown(item).strip(chr(39)) for item in items) or '[]'}`"


def main() -> None:
    """Rewrites the page; with --check, says whether it would change."""
    path = ROOT / "docs" / "settings.md"
    text = page()
    if "--check" not in sys.argv[1:]:
        path.write_text(text, "utf-8")
    elif not path.is_file() or path.read_text("utf-8") != text:
        sys.exit("error: docs/settings.md is not what the settings say. Run `make settings` and commit it.")


if __name__ == "__main__":
    main()
