"""Which stages of a checkout run now: a lock for each, and what DVC says of its own processes."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.files import remove_partial

_LOCKS = CACHE / "locks"

_DVC_WRITES = Path(".dvc/tmp/rwlock")
"""DVC's record of the paths that its processes write; one that was killed leaves its entry."""

_MOMENT_S = 2.0
"""How long a lock may be held by who only looks whether it is free and tidies up."""


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Holds the stage's lock in .cache/locks/: one process at a time may run a stage of a checkout.

    `kill -9` of dvc leaves the stage it started running; a second `dvc repro` must not run the same stage beside it.
    The operating system gives the lock back when the process ends, however it ends.

    Raises:
        RetinueError: another process holds it.
    """
    try:
        held = _file_lock(name).acquire(timeout=_MOMENT_S)
    except Timeout as error:
        pid = _lock_owner(name)
        raise RetinueError(
            f"another process (pid {pid}) is running this stage in this checkout, perhaps left over from a killed dvc. "
            f"Wait for it, or end it with `kill {pid}`, and run `dvc repro` again; training resumes where it was."
        ) from error
    with held:
        (_LOCKS / f"{name}.pid").write_text(str(os.getpid()))
        yield


def running_stages() -> dict[str, str]:
    """Stage -> the process that runs it now, of the checkout that is the working folder; whoever started it."""
    running = {}
    for name in sorted(path.stem for path in _LOCKS.glob("*.lock")):
        with _lock_if_free(name) as is_free:
            if not is_free:
                running[name] = _lock_owner(name)
    return running


def refuse_while_running() -> None:
    """Refuses to change params.yaml in the checkout that is the working folder while a stage or DVC reads it.

    Raises:
        RetinueError: with who runs.
    """
    running = [f"stage {name} (pid {pid})" for name, pid in running_stages().items()]
    running = running or [f"`{command}` (pid {pid})" for pid, command in sorted(_dvc_at_work().items())]
    if running:
        raise RetinueError(
            f"{' and '.join(running)} is running in this checkout, and dvc.lock would record other settings than it "
            "used: params.yaml stays as it was. Wait, or end it, and run this again. `retinue sweep` and `dvc exp run "
            "--temp` try other settings meanwhile."
        )


def _dvc_at_work() -> dict[int, str]:
    """Process -> command of each dvc that runs a stage, as DVC's own record has it, be it between two commands."""
    try:
        written = json.loads(_DVC_WRITES.read_text("utf-8")).get("write", {})
    except (FileNotFoundError, ValueError):  # none yet, or being written
        return {}
    return {entry["pid"]: entry["cmd"] for entry in written.values() if _exists(entry["pid"])}


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


@contextmanager
def _lock_if_free(name: str) -> Iterator[bool]:
    """Holds the stage's lock where no process has it; whether that is so."""
    try:
        held = _file_lock(name).acquire(timeout=0)
    except Timeout:
        yield False
        return
    with held:
        yield True


def _file_lock(name: str) -> FileLock:
    _LOCKS.mkdir(parents=True, exist_ok=True)
    return FileLock(_LOCKS / f"{name}.lock")


def _lock_owner(name: str) -> str:
    """The process that had the stage's lock last."""
    path = _LOCKS / f"{name}.pid"
    return path.read_text().strip() if path.exists() else "unknown"


def remove_leftovers(running: str, outs: Mapping[str, Sequence[str]]) -> None:
    """Deletes the half-written folders of stages that were killed: of this one, and of others that nobody runs now."""
    for name, paths in outs.items():
        with nullcontext(True) if name == running else _lock_if_free(name) as is_free:
            if is_free:
                remove_partial(paths)
