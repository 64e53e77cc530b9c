"""Ctrl-C and SIGTERM: one line and the exit status that shells give them, 130 and 143, at any moment of a process."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is to be treated as Ctrl-C is: Lightning, W&B and `with` blocks end in order."""


def end_at_once(what: str) -> None:
    """Has both signals end this process with a line until `interruptible`, while it imports and nothing can be lost.

    A KeyboardInterrupt would not do: what C code makes of it while a library is imported is an ImportError, and a
    traceback of dozens of lines.

    Args:
        what: starts, for the line.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"error: {what}: interrupted while it started.\n".encode())
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else who started it wants something else
        signal.signal(signal.SIGINT, end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, Ctrl-C is a KeyboardInterrupt and SIGTERM is `Terminated`, a kind of it.

    Not so where a signal is ignored, in another thread than the first, or in a process that is forked in the block: a
    worker ends of SIGTERM as ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    before = {number: signal.getsignal(number) for number in wanted}
    for number, handler in wanted.items():
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The interruption that `error` is or comes of: Lightning makes an exit with status 1 of one."""
    cause = error.__context__ if isinstance(error, SystemExit) else error
    return cause if isinstance(cause, KeyboardInterrupt) else None


def end_interrupted(what: str, error: BaseException, cause: KeyboardInterrupt) -> NoReturn:
    """Ends the process with one line, in which the notes of `error` and `cause` say what was kept.

    Raises:
        SystemExit: with status 130 for Ctrl-C, 143 for SIGTERM.
    """
    notes = dict.fromkeys(note for each in (error, cause) for note in getattr(each, "__notes__", ()))
    print(" ".join([f"error: {what}: interrupted.", *notes]), file=sys.stderr, flush=True)
    sys.exit(128 + (signal.SIGTERM if isinstance(cause, Terminated) else signal.SIGINT))
