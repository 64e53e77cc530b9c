"""Whether settings have been checked: once per composition, code and machine, and remembered in .cache/checked/.

The check itself (`retinue.preflight`) imports every stage, so it is called by name: a check can refuse a run and never
changes a result, hence no stage depends on its code (docs/decisions/0017).
"""

import hashlib
import importlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retinue.pipeline.artifacts import CACHE, WEIGHTS
from retinue.pipeline.errors import Fault, SettingsError, SettingsFaults
from retinue.pipeline.files import code_digests, kind_of
from retinue.pipeline.record import declared

FOLDER = CACHE / "checked"
_PATHS = (
    ("source", "path"),
    ("source", "labels_csv"),
    ("source", "table"),
    ("source", "inputs"),
    ("preprocess", "splits_csv"),
    ("preprocess", "inputs"),
    ("weights", "path"),
    ("weights", "inputs"),
)
"""Settings that name files."""


def ensure_checked(values: Mapping[str, Any], *, elsewhere: bool = False) -> None:
    """Checks the whole composition `values`, or finds that it has been checked; the working folder is the checkout.

    Args:
        values: as plain containers.
        elsewhere: the stages will run on another machine: files and devices are not looked for on this one.

    Raises:
        SettingsFaults: with every fault; nothing is remembered then.
    """
    stamp = FOLDER / f"{_stamp_name(values)}{'-elsewhere' if elsewhere else ''}"
    if stamp.exists():
        return
    importlib.import_module("retinue.preflight").check(values, elsewhere=elsewhere)
    FOLDER.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def ensure_checked_for(stage: str, values: Mapping[str, Any]) -> None:
    """`ensure_checked` for a stage of dvc.yaml: files of a source or of weights that it does not read may be gone.

    Raises:
        SettingsFaults: with every fault but those of files that the stage does not read.
    """
    try:
        ensure_checked(values)
    except SettingsFaults as error:
        unread = _unread_sections(stage, values)
        if not all(fault.key.partition(".")[0] in unread for fault in error.faults):
            raise
        ensure_checked(values, elsewhere=True)


def with_found_faults(told: Iterable[Fault], values: Mapping[str, Any], *, elsewhere: bool = False) -> list[Fault]:
    """The faults `told` and those for which `ensure_checked` refuses `values`, one story for each key."""
    faults = [*told]
    known = {fault.key for fault in faults}
    try:
        ensure_checked(values, elsewhere=elsewhere)
    except SettingsFaults as error:
        faults += [fault for fault in error.faults if fault.key not in known]
    return faults


def _stamp_name(values: Mapping[str, Any]) -> str:
    """Twenty hexadecimal digits of all that the answer depends on."""
    digest = hashlib.sha256()
    for part in (json.dumps(values, default=str), *_machine(), *_there(values), *code_digests()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:20]


def _machine() -> Iterator[str]:
    """The interpreter, the state of its packages, and the accelerators that can be seen."""
    yield sys.version
    yield str(Path(sysconfig.get_path("purelib")).stat().st_mtime_ns)  # changes when a package is added or removed
    yield os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    yield " ".join(sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*")))


def _there(values: Mapping[str, Any]) -> Iterator[str]:
    """What is found at the paths that the settings name."""
    root = ""
    for section, key in _PATHS:
        entry = values.get(section)
        name = entry.get(key) if isinstance(entry, Mapping) else None
        path = _expanded(Path(root if key in ("labels_csv", "table") else "", str(name)))
        root = str(path) if (section, key) == ("source", "path") else root
        yield "nothing" if name is None else f"{kind_of(path)}, {kind_of(path / WEIGHTS.name)}"


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # ~ and a name that no user has
        return path


def _unread_sections(stage: str, values: Mapping[str, Any]) -> set[str]:
    """The sections that name inputs which dvc.yaml does not give to `stage`; none where a setting it needs is wrong."""
    try:
        stages = declared(values)
    except SettingsError:
        return set()
    deps = stages[stage].deps if stage in stages else ()
    named = {name: section["inputs"] for name, section in values.items() if _names_inputs(section)}
    return {name for name, inputs in named.items() if inputs not in deps}


def _names_inputs(section: Any) -> bool:
    return isinstance(section, Mapping) and "inputs" in section
