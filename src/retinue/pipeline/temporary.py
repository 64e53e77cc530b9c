"""Temporary files of a stage: in one folder, which goes with it, however it ends."""

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from retinue.pipeline.errors import RetinueError

_PREFIX = "retinue-"
"""Of the folders' names; short, for sockets are made in them, whose paths have a limit."""

_OWNED = "owned"
"""A file in each, locked while a process of its stage lives."""


@contextmanager
def temporary_folder() -> Iterator[None]:
    """While the block runs, all temporary files of this process and of those it starts go to one folder.

    A loading process that is killed leaves the folder of its sockets, W&B its copies: nobody tells them from those of
    others. The folder is deleted at the end, and by the next stage of any checkout where this one is killed. Loading
    processes that an error leaves behind are killed first: ending by themselves, they would miss their files.

    Raises:
        RetinueError: no temporary folder can be written to.
    """
    _remove_ownerless()
    folder, owned = _make_folder()
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield
    except BaseException:
        _kill_children()
        raise
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(folder, ignore_errors=True)
        owned.release()


def _make_folder() -> tuple[Path, FileLock]:
    """A new folder and the lock, held, that says whose it is.

    Until it is held, another stage may take the folder for one of a killed stage and delete it; then one more is made.

    Raises:
        RetinueError: no temporary folder can be written to.
    """
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except FileNotFoundError as error:
            raise RetinueError(f"{error.strerror}. Set TMPDIR to a folder that can be written to.") from error
        owned = FileLock(folder / _OWNED)
        with suppress(FileNotFoundError, FileExistsError):  # it went before or while the lock was made
            owned.acquire()
            if (folder / _OWNED).is_file():
                return folder, owned
            owned.release()


def _kill_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where torch raises that a loading process was killed
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def _remove_ownerless() -> None:
    """Deletes the folders whose stages have ended without doing so; those of other users, and all else, stay."""
    with suppress(OSError):  # none can be written to, which is told where one is made
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}{'[a-z0-9_]' * 8}"):  # as mkdtemp names them
            owned = folder / _OWNED
            if folder.is_symlink() or owned.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            if not owned.is_file():
                with suppress(OSError):  # it is not empty: none of ours
                    folder.rmdir()  # a stage was killed before it could say whose it is
                continue
            with suppress(Timeout, OSError), FileLock(owned).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
