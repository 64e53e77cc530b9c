"""How a process ends: with a message and an exit status where a person can act on it, else with a traceback."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from retinue.pipeline.errors import RetinueError
from retinue.pipeline.interruption import (
    Interruptions,
    interrupt_again,
    interruptible,
    interruption_status,
    interruption_text,
)
from retinue.pipeline.machine import met_limit
from retinue.pipeline.names import escaped

_LINE_BREAK = "\n"

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

_FOLLOWS = (SystemExit, RuntimeError, OSError, EOFError)
"""What libraries raise while they take down what another error has ended; behind anything else may be a bug."""


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Ends the process with a message, not a traceback, for every error that can be explained, and for Ctrl-C.

    RETINUE_TRACEBACK=1 shows the traceback instead.

    Args:
        what: runs, for the message.

    Raises:
        SystemExit: with the status of the error, 130 for Ctrl-C, 143 for SIGTERM.
    """
    before = sys.unraisablehook
    interruptions = Interruptions()
    try:
        with interruptible() as interruptions:
            sys.unraisablehook = lambda found: _unraisable(found, before)
            yield
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        ending = _message_and_status(error, interruptions.last)
        if ending is None or os.environ.get("RETINUE_TRACEBACK") == "1":
            raise
        message, status = ending
        print(f"error: {what}: {message}", file=sys.stderr, flush=True)
        _give_up(error)
        sys.exit(status)
    finally:
        sys.unraisablehook = before


def _message_and_status(error: BaseException, interruption: KeyboardInterrupt | None) -> tuple[str, int] | None:
    """Message and exit status of `error`, or of what it follows from; None where nothing explains it.

    Args:
        error: that ended the block.
        interruption: that came before; what then fails is no news, whatever it is.
    """
    for cause in _causes(error):
        if isinstance(cause, KeyboardInterrupt):
            return interruption_text(error, cause), interruption_status(cause)
        message = None if isinstance(error, SystemExit) else _explanation(cause)
        if message is not None:
            return escaped(message, keep=_LINE_BREAK), getattr(cause, "exit_code", 1)
    if interruption is None:
        return None
    return interruption_text(error, interruption), interruption_status(interruption)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error itself and, while it is of a kind that follows from others, what it was raised from or after."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = (cause.__cause__ or cause.__context__) if isinstance(cause, _FOLLOWS) else None


def _explanation(error: BaseException) -> str | None:
    match error:
        case RetinueError():
            return str(error)
        case OSError(errno=number) if number in _DISK_ERRORS:
            return f"{error.filename or 'writing'}: {_DISK_ERRORS[number]}."
        case MemoryError() | RuntimeError():
            return met_limit(error)
    return None


def _give_up(error: BaseException) -> None:
    """Frees what the functions that failed still hold, here, where what its taking down complains of is not told.

    Torch's loader that could not start its processes, for one, complains that it has none to end.
    """
    sys.unraisablehook = lambda _: None
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unraisable(found: Any, otherwise: Any) -> None:
    """What becomes of an error that Python cannot raise, for it came while an object was deleted.

    Ctrl-C comes again, and that a loading process has ended is told by its loader; all else is reported as ever.
    """
    error = found.exc_value
    if isinstance(error, KeyboardInterrupt):
        interrupt_again(error)
    elif not (isinstance(error, RuntimeError) and met_limit(error)):
        otherwise(found)
