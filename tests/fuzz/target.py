"""What a target of the fuzzing is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinue.pipeline.errors import RetinueError


@dataclass(frozen=True)
class Target:
    """A reader, and what it is given.

    Attributes:
        name: on the command line and in the table.
        share: of a million inputs, thousands.
        seeds: makes valid inputs, which are changed at random.
        make: makes the reader in an empty folder, which is the working folder: bytes -> any result; an `AssertionError`
            says that the result is wrong.
        kind: what is changed as a whole (`Mutator`).
        errors: those that are explained.
        tokens: pieces that mean something to the reader.
        headed: whether the first line of an input says which file the rest is.
        repair: makes an input consistent again.
    """

    name: str
    share: float
    seeds: Callable[[], list[bytes]]
    make: Callable[[Path], Callable[[bytes], Any]]
    kind: str = "bytes"
    errors: tuple[type[Exception], ...] = (RetinueError,)
    tokens: tuple[bytes, ...] = ()
    headed: bool = False
    repair: Callable[[bytes], bytes] | None = None


def headed_file(data: bytes, names: dict[str, Any]) -> tuple[str, bytes]:
    """The name that the first line of `data` says, else the first of `names`, and the rest."""
    head, _, rest = data.partition(b"\n")
    name = head.decode("utf-8", "replace")
    return (name if name in names else next(iter(names))), rest


def of_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Callable[[bytes], Any]]:
    """Makes the reader of a file: `read` gets the path of `name`, which holds the input."""

    def make(folder: Path) -> Callable[[bytes], Any]:
        def write_and_read(data: bytes) -> Any:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return write_and_read

    return make
