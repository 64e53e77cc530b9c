"""How a stage starts and ends: settings, lock, tracking, errors, exit status.

This file imports neither torch nor Lightning, so that a stage that needs neither (report) stays light.
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retinue.pipeline.artifacts import CACHE
from retinue.pipeline.checked import ensure_checked_for
from retinue.pipeline.composition import compose, load_params, project_root
from retinue.pipeline.errors import RetinueError, SettingsError
from retinue.pipeline.files import remove_partial
from retinue.pipeline.interruption import end_interrupted, interruptible, interruption
from retinue.pipeline.limits import met_limit
from retinue.pipeline.names import escaped
from retinue.pipeline.record import declared
from retinue.pipeline.settings import Settings
from retinue.pipeline.snapshot import InputSnapshot
from retinue.pipeline.tracker import Tracker, track

_LOCKS = CACHE / "locks"

_DVC_WRITES = Path(".dvc/tmp/rwlock")
"""DVC's record of the paths that its processes write; one that was killed leaves its entry."""

_LINE_BREAK = "\n"
_MOMENT_S = 2.0
"""How long a lock may be held by who only looks whether it is free and tidies up."""

_DISK_ERRORS = {
    errno.EROFS: "the disk is read-only. Work in a checkout you can write to",
    errno.EACCES: "permission denied. Check who owns the file",
    errno.EPERM: "operation not permitted. Check who owns the file",
    errno.ENOSPC: "no space left on the disk. Free some; what was finished before is kept",
    errno.EIO: "the disk cannot read or write it. Look at the system's log; it may be failing",
    errno.EISDIR: "a folder, where a file is expected. Move it away and run `dvc repro`",
    errno.ENOTDIR: "a file on the way, where a folder is expected. Move it away and run `dvc repro`",
    errno.ENAMETOOLONG: "longer than a path may be. Check the setting that names it",
    errno.EDQUOT: "the disk quota is used up. Free some; what was finished before is kept",
}


def main(name: str, run: Callable[[Settings, Tracker], None], sections: Sequence[str]) -> None:
    """Runs the stage `name` as a process: `run(settings, tracker)` inside its lock and its W&B run.

    The settings come from params.yaml where the command line has no overrides, inside DVC and by hand, else from conf/
    composed with them. All of them are checked before the W&B run begins, the sections of other stages, too. At its end
    the stage compares what it read with what is there, and fails where dvc.lock would describe another run. An error
    that is explained ends the process with its message alone and a non-zero status; RETINUE_TRACEBACK=1 adds the
    traceback.

    Args:
        name: of the stage, as in dvc.yaml.
        run: does the work.
        sections: of the settings the stage reads, exactly as dvc.yaml declares them.
    """
    with explained(f"stage {name}"):
        root = project_root()
        os.chdir(root)
        _check_checkout(root)
        overrides = sys.argv[1:]
        values = _values(overrides)
        settings = Settings(values, sections)
        if not is_first_process():  # rank 0 holds lock and W&B run
            run(settings, Tracker(None))
            return
        ensure_checked_for(name, values)
        stages = declared(values)
        with lock(name):
            _remove_leftovers(name, {stage: paths.outs for stage, paths in stages.items()})
            params = None if overrides else {section: values[section] for section in sections}
            snapshot = InputSnapshot.take(params, stages[name].deps if name in stages else ())
            with track(name, settings) as tracker:
                run(settings, tracker)
                snapshot.check()


def _values(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of this start.

    Raises:
        SettingsError: they cannot be used, or overrides would make dvc.lock record settings that were not used.
    """
    if not overrides:
        return load_params()
    if "DVC_STAGE" in os.environ:
        raise SettingsError(
            f"{' '.join(overrides)}: inside DVC a stage reads params.yaml, which is what dvc.lock records. Take the "
            "overrides out of dvc.yaml; `retinue compose` takes them."
        )
    values = compose(overrides)
    if is_first_process():
        print(f"settings: conf/ with {' '.join(overrides)}; params.yaml is not used", flush=True)
    return values


def is_first_process() -> bool:
    """Whether this process is the only one of its stage, or the first of several.

    Lightning's ddp, torchrun and SLURM's srun tell a process its place in these variables, before Lightning is there.
    """
    return not any(int(os.environ.get(key, 0)) for key in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Ends the process with a message, not a traceback, for every error that can be explained, and for Ctrl-C."""
    try:
        with interruptible():
            yield
    except (KeyboardInterrupt, SystemExit) as error:
        cause = interruption(error)
        if cause is None or os.environ.get("RETINUE_TRACEBACK") == "1":
            raise
        end_interrupted(what, error, cause)
    except RetinueError as error:
        _fail(what, str(error), error.exit_code, error)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _fail(what, f"{error.filename or 'writing'}: {_DISK_ERRORS[error.errno]}.", 1, error)
    except (MemoryError, RuntimeError) as error:
        message = met_limit(error)
        if message is None:
            raise
        _fail(what, message, 1, error)


def _fail(what: str, message: str, status: int, error: Exception) -> None:
    if os.environ.get("RETINUE_TRACEBACK") == "1":
        raise error
    print(f"error: {what}: {escaped(message, keep=_LINE_BREAK)}", file=sys.stderr, flush=True)
    sys.exit(status)


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


def _remove_leftovers(running: str, outs: Mapping[str, Sequence[str]]) -> None:
    """Deletes the half-written folders of stages that were killed: of this one, and of others that nobody runs now."""
    for name, paths in outs.items():
        with nullcontext(True) if name == running else _lock_if_free(name) as is_free:
            if is_free:
                remove_partial(paths)


def _check_checkout(root: Path) -> None:
    code = Path(__file__).resolve()
    if not code.is_relative_to(root.resolve()):
        raise RetinueError(
            f"the code that runs is {code.parent}, the checkout is {root}: a result would not belong to this commit. "
            "Start stages with PYTHONPATH=src from the checkout, as dvc.yaml does."
        )
