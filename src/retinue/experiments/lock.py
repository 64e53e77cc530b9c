"""Which entries of a dvc.lock are of the settings beside it.

DVC keeps the entry of a stage until the stage runs again. After `dvc exp run -S model=mlp evaluate` dvc.lock has the
predictions of the MLP, and the explanations of the model before.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from retinue.pipeline import artifacts
from retinue.pipeline.documents import check_yaml
from retinue.pipeline.errors import DataError
from retinue.pipeline.ranges import shown
from retinue.pipeline.record import PIPELINE, SETTINGS, paths_of
from retinue.pipeline.settings import first_line


class _Loader(yaml.CSafeLoader):
    """YAML with the numbers of DVC, for which 1e-05 is one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


_DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")
_LONGEST_NAME = 255
"""Bytes of a part of a path, as file systems have it."""


def checked_digest(digest: Any, path: str) -> str:
    """`digest`, which a commit of somebody says `path` has: DVC's hash of a file, or, with ".dir", of a folder.

    Raises:
        DataError: it is something else. A path is made of it, which would lead out of DVC's cache.
    """
    if isinstance(digest, str) and _DIGEST.fullmatch(digest):
        return digest
    raise DataError(f"{path}: got {shown(digest)} for its hash, expected 32 hexadecimal digits, .dir for a folder.")


def checked_name(name: Any, where: str) -> str:
    """`name`, which a commit of somebody gives a file below the folder `where`.

    Raises:
        DataError: it leads out of the folder, or no file can be called so.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > _LONGEST_NAME for part in parts):
        raise DataError(f"{where}: got {shown(name)} for a name, expected that of a file in it, such as a/b.png.")
    return str(name)


class StageRecord(NamedTuple):
    """What a stage read and wrote when it last ran: path -> DVC's hash."""

    deps: Mapping[str, str]
    outs: Mapping[str, str]


class Lock(NamedTuple):
    """A dvc.lock, read beside the dvc.yaml and the params.yaml of the same commit.

    Attributes:
        inputs: path -> DVC's hash of what the stages that are not stale read and no stage writes.
        outs: path -> DVC's hash of what the stages that are not stale wrote.
        stale: stage -> why what it last wrote is not of these settings, a sentence.
        writers: path -> the stage that writes it, as dvc.yaml declares.
    """

    inputs: Mapping[str, str]
    outs: Mapping[str, str]
    stale: Mapping[str, str]
    writers: Mapping[str, str]

    def why_not(self, path: str | Path) -> str | None:
        """Why the output `path`, the one it lies in or one in it is not of these settings, a sentence; None where all
        are."""
        stages = (stage for out, stage in self.writers.items() if _overlap(Path(path).as_posix(), out))
        return next((self.stale[stage] for stage in stages if stage in self.stale), None)

    def check(self, path: str | Path) -> None:
        """Passes where the output `path`, the one it lies in and those in it are of these settings.

        Raises:
            DataError: it is not, and why.
        """
        reason = self.why_not(path)
        if reason is not None:
            raise DataError(reason)


@lru_cache(maxsize=128)  # a dashboard comes back to those that it shows in full, 40 unless told otherwise
def read_lock(lock: str, pipeline: str, settings: str) -> Lock:
    """Tells which entries of a dvc.lock are of the settings beside it.

    An entry is, if it was made by the command and with the sections of the settings that dvc.yaml gives its stage, and
    if what it read of other stages is what their entries say they wrote, from the first stage to the last.

    Args:
        lock: text of dvc.lock; "" where there is none.
        pipeline: text of dvc.yaml.
        settings: text of params.yaml.

    Raises:
        DataError: one of them is in another format.
    """
    try:
        locked = _yaml(lock, "dvc.lock")["stages"] if lock else {}
        document, values = _yaml(pipeline, PIPELINE.as_posix()), _yaml(settings, SETTINGS)
        stages = document["stages"]
        names = {**values, **{key: value for each in document.get("vars", ()) for key, value in each.items()}}
        causes = {name: _cause(stage, locked.get(name), values, names) for name, stage in stages.items()}
        records = {name: _lock_record(stage, locked.get(name)) for name, stage in stages.items()}
        stale = stale_stages(records, {name: cause for name, cause in causes.items() if cause is not None})
        reasons = {name: _sentence(name, stages[name], cause, values) for name, cause in stale.items()}
        writers = {path: name for name, stage in stages.items() for path in _outs(stage)}
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"dvc.lock, dvc.yaml or {SETTINGS}: another format than this version reads ({first_line(error)}). "
            "`git checkout dvc.lock` brings back the committed one; without it, `dvc repro` makes all anew."
        ) from error
    current = [record for name, record in records.items() if name not in stale]
    outs = {path: md5 for record in current for path, md5 in record.outs.items()}
    return Lock(inputs_of(current, writers), outs, reasons, writers)


def stale_stages(records: Mapping[str, StageRecord], causes: Mapping[str, str]) -> dict[str, str]:
    """Finds the stages whose outs do not belong to the others: stage -> cause.

    Such a stage has a cause of its own, or read something else than another stage wrote, or read what a stage wrote
    that is itself stale.

    Args:
        records: what each stage read and wrote when it last ran.
        causes: stage -> a cause of its own.

    >>> train, explain = StageRecord({"data": "0"}, {"models": "2"}), StageRecord({"models": "1"}, {"maps": "3"})
    >>> records = {"train": train, "explain": explain, "report": StageRecord({"maps": "3"}, {"page": "4"})}
    >>> for stage, cause in stale_stages(records, {}).items():
    ...     print(f"{stage}: {cause}")
    explain: what it read as models is not what train wrote
    report: it read maps, and explain is not up to date
    """
    written = {path: (name, md5) for name, record in records.items() for path, md5 in record.outs.items()}
    stale = dict(causes)
    while True:
        fresh = {name: _mismatch(record, written, stale) for name, record in records.items() if name not in stale}
        found = {name: cause for name, cause in fresh.items() if cause is not None}
        if not found:
            return {name: stale[name] for name in records if name in stale}
        stale |= found


def inputs_of(records: Iterable[StageRecord], outs: Iterable[str]) -> dict[str, str]:
    """Path -> DVC's hash of what the stages of `records` read, without what belongs to the `outs` of any stage."""
    written = list(outs)
    read = {path: md5 for record in records for path, md5 in record.deps.items()}
    return {path: md5 for path, md5 in read.items() if not any(_overlap(path, out) for out in written)}


def _mismatch(record: StageRecord, written: Mapping[str, tuple[str, str]], stale: Mapping[str, str]) -> str | None:
    """Why what a stage read is not what others wrote; None where it is."""
    for path, md5 in record.deps.items():
        for out, (stage, current) in written.items():
            if stage in stale and _overlap(path, out):
                return f"it read {path}, and {stage} is not up to date"
            if path == out and md5 != current:
                return f"what it read as {path} is not what {stage} wrote"
    return None


def _cause(
    stage: Mapping[str, Any], entry: Mapping[str, Any] | None, values: Mapping[str, Any], names: Mapping[str, Any]
) -> str | None:
    """Why the `entry` of a stage in dvc.lock was not made as dvc.yaml and the settings say; None where it was."""
    if entry is None:
        return "dvc.lock has nothing of it"
    locked = entry.get("params", {}).get(SETTINGS, {})
    changed = [name for name in stage.get("params", ()) if name not in locked or locked[name] != values.get(name)]
    if changed:
        return f"it last ran with other settings ({', '.join(changed)})"
    command = re.sub(r"\$\{([\w.]+)\}", lambda found: str(reduce(getitem, found[1].split("."), names)), stage["cmd"])
    return None if command == entry["cmd"] else "it last ran by another command"


def _sentence(name: str, stage: Mapping[str, Any], cause: str, values: Mapping[str, Any]) -> str:
    reads = paths_of(stage.get("deps", ()))
    of_model = "model" in stage.get("params", ()) or any(_overlap(dep, artifacts.MODEL.as_posix()) for dep in reads)
    what = f"this model ({values['model']['name']})" if of_model else "these settings"
    return f"{name} has not run for {what}: {cause}. `dvc repro` runs it."


def _lock_record(stage: Mapping[str, Any], entry: Mapping[str, Any] | None) -> StageRecord:
    """The `entry` of a stage in dvc.lock; without one, what it would write, and no hash."""
    if entry is None:
        return StageRecord({}, dict.fromkeys(_outs(stage), ""))

    def hashes(kind: str) -> dict[str, str]:
        found = {each["path"]: each["md5"] for each in entry.get(kind, ()) if each.get("md5")}
        return {str(path): checked_digest(md5, str(path)) for path, md5 in found.items()}

    outs = hashes("outs")
    return StageRecord(hashes("deps"), {checked_name(path, "dvc.lock"): md5 for path, md5 in outs.items()})


def _outs(stage: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths that a stage of dvc.yaml writes."""
    return paths_of(path for kind in ("outs", "metrics", "plots") for path in stage.get(kind, ()))


def _overlap(one: str, other: str) -> bool:
    """Whether the paths are one, or one of them lies in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


@lru_cache(maxsize=8)
def _yaml(text: str, where: str) -> Any:
    """`text` with the types that DVC reads, to be read only: many experiments share a dvc.yaml.

    By the parser in C, which takes 12 ms for a dvc.lock instead of 100.
    """
    check_yaml(text, where)
    return yaml.load(text, _Loader)
