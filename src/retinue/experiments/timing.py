"""When experiments were committed, and how long those of a sweep took. Outs hold no times: git and sweeps are asked."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.composition import project_root
from retinue.pipeline.errors import DataError
from retinue.pipeline.files import read_json
from retinue.pipeline.git import ask

_AT_ONCE = 500  # of revisions in one command line


class Timing(NamedTuple):
    """When an experiment was made.

    Attributes:
        committed: seconds since 1970, UTC; None where git does not know the commit.
        duration_s: of its run, where a sweep of this checkout ran it; None where nobody noted it.
    """

    committed: int | None
    duration_s: float | None


def timings(revisions: Iterable[str]) -> dict[str, Timing]:
    """Revision -> when it was committed and how long it took, of all `revisions`."""
    asked = list(dict.fromkeys(revision for revision in revisions if revision))
    times, durations = _commit_times(asked), _durations()
    return {revision: Timing(times.get(revision), durations.get(revision)) for revision in asked}


def _commit_times(revisions: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(revisions), _AT_ONCE):
        some = revisions[start : start + _AT_ONCE]
        arguments = ("log", "--no-walk=unsorted", "--ignore-missing", "--format=%H %ct", "--end-of-options")
        lines = ask(project_root(), *arguments, *some)
        pairs = (line.split(" ") for line in (lines or "").splitlines())
        found |= {revision: int(seconds) for revision, seconds in pairs}
    return found


def _durations() -> dict[str, float]:
    """Revision -> seconds, as the trials of sweeps noted them; a note that cannot be read is as none."""
    found = {}
    for path in sorted((project_root() / CACHE / "sweeps").glob("*/*/result.json")):
        try:
            noted = _duration(read_json(path))
        except DataError:
            continue  # the sweep itself says what is wrong with it; a dashboard goes on without a duration
        if noted is not None:
            found[noted[0]] = noted[1]
    return found


def _duration(result: Any) -> tuple[str, float] | None:
    """Revision and seconds of a trial that is complete; None of any other document."""
    if not isinstance(result, Mapping):
        return None
    revision, seconds = result.get("revision"), result.get("seconds")
    if isinstance(revision, str) and revision and isinstance(seconds, int | float) and 0 <= seconds < 1e9:
        return revision, float(seconds)
    return None
