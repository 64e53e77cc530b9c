"""The reports of experiments, taken out of DVC's cache to lie beside the page, each under a policy of our own."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from retinue.dashboard.results import Result
from retinue.experiments.outcomes import file_of
from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.numbers import short
from retinue.reports import page as report

LARGEST_BYTES = 25_000_000
"""A report stays below a fifth of it; what is larger is something else."""
_OURS = re.compile(r"[0-9a-f]{32}\.html")
_CACHED = re.compile(r"[0-9a-f]{32}")


def extract_reports(results: Sequence[Result], indices: Sequence[int], folder: Path) -> dict[int, str]:
    """Writes the reports of `results[i]` below `folder`, and removes those of an earlier page.

    A report is a page that whoever made the experiment has written: it may hold any script. In front of it goes the
    content security policy of this version's reports, under which nothing but this version's script runs and nothing is
    loaded; a policy that comes later can only forbid more. What cannot be read is a note on its result.

    Args:
        results: of the page.
        indices: of those whose report is wanted.
        folder: made where it is missing.

    Returns:
        Index of a result -> name of a file in `folder`.
    """
    script = (report.FOLDER / "script.js").read_text("utf-8")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{report.security_policy(script)}">'
    front = f'<!DOCTYPE html>\n<meta charset="utf-8">{meta}\n'.encode()
    names: dict[int, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        try:
            content = front + _report(results[index])
        except RetinueError as error:
            results[index].note("report", error)
            continue
        names[index] = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.html"
        (folder / names[index]).write_bytes(content)
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name) and file.name not in names.values():
            file.unlink()
    return names


def _report(result: Result) -> bytes:
    """The report of an experiment as DVC's cache or the workspace has it.

    Raises:
        RetinueError: it is missing, too large, or in the cache under the name of another content.
    """
    path = file_of(result.outcome, artifacts.REPORT)
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise DataError(f"{artifacts.REPORT} has {short(size, 'B')}, more than a report.")
    content = path.read_bytes()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    named = path.parent.name + path.name
    if _CACHED.fullmatch(named) and named != digest:
        raise DataError(f"{artifacts.REPORT} is not what DVC recorded of it. Delete {path} and `dvc exp pull` it.")
    return content
