"""What a decoder in C prints, kept from the error output, where nobody could tell which file it is about."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_MOST_BYTES = 2**16


@contextmanager
def native_messages() -> Iterator[list[str]]:
    """Collects the lines that are written to file descriptor 2 in the block; the list is filled when it ends.

    The descriptor belongs to the whole process: what other threads write there meanwhile is collected, too.
    """
    said: list[str] = []
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        shown = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(shown, 2)
            os.close(shown)
            file.seek(0)
            said += file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
