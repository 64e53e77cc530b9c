"""A prediction that can be ended at any moment and goes on where it was: its rows, appended batch by batch."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from retinue.pipeline.documents import typed
from retinue.pipeline.errors import DataError, RetinueError
from retinue.pipeline.files import read_json, write_json
from retinue.serving.predict.rows import Row, Tally, line_of, read_lines, write_rows

_ROWS, _UNREADABLE, _STATE, _LOCK = "rows.jsonl", "unreadable.jsonl", "state.json", "lock"
UNREADABLE_COLUMNS = ("image", "reason")


@dataclass(frozen=True)
class _State:
    """What is certainly written.

    Attributes:
        made_with: what the rows depend on besides the images, by name.
        tally: of the images that have been taken, in whole batches.
        rows_bytes, unreadable_bytes: lengths of the two files; what is behind is of a batch that was not finished.
        names_sha256: over the names of the images taken, each with a line break.
    """

    made_with: dict[str, str]
    tally: Tally
    rows_bytes: int
    unreadable_bytes: int
    names_sha256: str


class Journal:
    """The rows of a prediction while it runs, in a folder beside the file that they become.

    After each batch the state is replaced in one step, so that a process killed at any moment leaves whole batches;
    who goes on cuts off what came after the last of them.

    Args:
        output: the file that the rows become.
        made_with: what the rows depend on besides the images; a journal of something else is not gone on with.

    Attributes:
        tally: of all images that have been taken, also before this process.
    """

    def __init__(self, output: Path, made_with: dict[str, str]):
        self._folder, self._output, self._made_with = journal_folder(output), output, made_with
        self.tally = Tally()
        self._names = hashlib.sha256()
        self._expected = ""
        self._rows: IO[bytes]
        self._unreadable: IO[bytes]

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Opens the journal for this process alone; what was begun before is gone on with.

        Raises:
            RetinueError: another process writes it.
            DataError: it is of other settings, or no journal.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RetinueError(
                f"{self._folder}: another process is writing {self._output}. Wait for its end."
            ) from error
        with lock:
            state = self._begun()
            with (
                self._file(_ROWS, state.rows_bytes) as self._rows,
                self._file(_UNREADABLE, state.unreadable_bytes) as self._unreadable,
            ):
                self.tally, self._expected = state.tally, state.names_sha256
                yield

    def pass_over(self, names: Iterator[str]) -> None:
        """Takes as many names as there were images before this process, and makes sure that they are the same.

        Raises:
            DataError: they are not.
        """
        for _ in range(self.tally.num_images):
            name = next(names, None)
            if name is None:
                break
            self._add(name)
        if self.tally.num_images and self._names.hexdigest() != self._expected:
            raise DataError(
                f"{self._folder}: what was begun there had other images, or another order of them. Delete this folder "
                "to begin anew, or name another --output."
            )

    def append(self, names: Sequence[str], rows: Sequence[Row], unreadable: Sequence[Row]) -> None:
        """Writes a batch; when this returns, it is not computed again.

        Args:
            names: of all its images.
            rows: of those that could be read.
            unreadable: of the others, with `UNREADABLE_COLUMNS`.
        """
        for file, lines in ((self._rows, rows), (self._unreadable, unreadable)):
            file.write("".join(map(line_of, lines)).encode())
            file.flush()
        for name in names:
            self._add(name)
        self.tally.add(rows, unreadable)
        self._write_state()

    def finish(self, columns: Sequence[str], unreadable: Path) -> None:
        """Makes the output of the rows, and `unreadable` where an image could not be read; the journal is deleted.

        Args:
            columns: of the output.
            unreadable: CSV of the images that could not be read; an old one is deleted where all could.
        """
        self._rows.flush()
        if self.tally.num_unreadable:
            self._replace(unreadable, UNREADABLE_COLUMNS, _UNREADABLE, like=Path("a.csv"))
        else:
            unreadable.unlink(missing_ok=True)
        self._replace(self._output, columns, _ROWS, like=self._output)
        shutil.rmtree(self._folder)

    def _replace(self, path: Path, columns: Sequence[str], rows: str, *, like: Path) -> None:
        partial = self._folder / f"whole-{rows}"
        write_rows(read_lines(self._folder / rows), columns, partial, like=like)
        partial.replace(path)

    def _begun(self) -> _State:
        path = self._folder / _STATE
        if not path.exists():
            return _State(self._made_with, Tally(), 0, 0, "")
        anew = f"Delete {self._folder} to begin anew."
        state = typed(_State, read_json(path, remedy=anew), "state")
        for name in self._made_with.keys() | state.made_with.keys():
            before, now = state.made_with.get(name), self._made_with.get(name)
            if before != now:
                raise DataError(
                    f"{self._folder}: what was begun there is of another {name} ({before}, now {now}). {anew} Or name "
                    "another --output."
                )
        return state

    def _file(self, name: str, length: int) -> IO[bytes]:
        """The file `name`, open behind its first `length` bytes, with nothing after them.

        Raises:
            DataError: it is shorter.
        """
        path = self._folder / name
        found = path.stat().st_size if path.exists() else 0
        if found < length:
            raise DataError(f"{path}: {found} bytes, {length} were written. Delete {self._folder} to begin anew.")
        if found > length:
            os.truncate(path, length)
        return path.open("ab")

    def _add(self, name: str) -> None:
        self._names.update(f"{name}\n".encode())

    def _write_state(self) -> None:
        state = _State(
            self._made_with,
            self.tally,
            self._rows.tell(),
            self._unreadable.tell(),
            self._names.hexdigest(),
        )
        partial = self._folder / f".{_STATE}"
        write_json(partial, asdict(state))
        partial.replace(self._folder / _STATE)


def journal_folder(output: Path) -> Path:
    """Where the rows of `output` are until it is whole."""
    return output.with_name(f"{output.name}.partial")
