"""Ctrl-C and SIGTERM: one line and the exit status that shells give them, 130 and 143, at any moment of a process."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_MOMENT_S = 0.02


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is to be treated as Ctrl-C is: Lightning, W&B and `with` blocks end in order."""


def end_at_once(what: str) -> None:
    """Has both signals end this process with a line before and after `interruptible`, when nothing can be lost.

    A KeyboardInterrupt would not do: C code makes an ImportError of it while a library is imported, and a traceback
    of dozens of lines, and none is left to catch it when the process ends.

    Args:
        what: starts, for the line.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, f"error: {what}: interrupted.\n".encode())
        os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else who started it wants something else
        signal.signal(signal.SIGINT, end)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


class Interruptions:
    """The last interruption that came; None where none has."""

    last: KeyboardInterrupt | None = None


@contextmanager
def interruptible() -> Iterator[Interruptions]:
    """While the block runs, Ctrl-C is a KeyboardInterrupt and SIGTERM is `Terminated`, a kind of it.

    Not so where a signal is ignored, in another thread than the first, or in a process that is forked in the block: a
    worker ends of SIGTERM as ever.

    Yields:
        what has come so far: a library may make another error of an interruption, or lose it.
    """
    interruptions = Interruptions()
    if threading.current_thread() is not threading.main_thread():
        yield interruptions
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner and number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        interruptions.last = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        raise interruptions.last

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield interruptions
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interruption_status(cause: KeyboardInterrupt) -> int:
    """The exit status that shells give it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + _signal_of(cause)


def interruption_text(error: BaseException, cause: KeyboardInterrupt) -> str:
    """One line, in which the notes of `cause`, and of `error` that came of it, say what was kept."""
    notes = dict.fromkeys(note for each in (error, cause) for note in getattr(each, "__notes__", ()))
    return " ".join(["interrupted.", *notes])


def interrupt_again(cause: KeyboardInterrupt) -> None:
    """Has the same signal come again in a moment, for an interruption that was lost where Python can raise nothing."""
    again = threading.Timer(_MOMENT_S, os.kill, (os.getpid(), _signal_of(cause)))
    again.daemon = True
    again.start()


def _signal_of(cause: KeyboardInterrupt) -> signal.Signals:
    return signal.SIGTERM if isinstance(cause, Terminated) else signal.SIGINT
