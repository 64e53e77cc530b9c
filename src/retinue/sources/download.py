"""A file from the web: within limits of time and size, with its checksum, taken up again where it has broken off."""

import errno
import hashlib
import http.client
import multiprocessing
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from retinue.pipeline.errors import DownloadError
from retinue.pipeline.numbers import short, significant
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import first_line
from retinue.sources.opening import opened

_CHUNK = 2**20
_SHOWN_EVERY_S = 0.2
_BAR = 30
"""Characters of the bar on a terminal."""
_ATTEMPTS = 3
"""So often a server is asked in one go; each time for what is still missing."""
_OWN_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Not the server's doing: the stage says what is wrong with the disk."""
_UNAVAILABLE = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, OverflowError)


@dataclass(frozen=True)
class DownloadSettings(Checked, section="download"):
    """conf/download: limits of what is fetched from the web. They change no result, so no stage declares them.

    Attributes:
        timeout_s: a server that sends nothing for so long is given up.
        total_timeout_s: a download that has not ended by then is given up, however steadily it comes.
        max_gb: size of a file at most, 10^9 bytes.
    """

    timeout_s: float = field(metadata=allowed(gt=0, le=3600, unit="s"))
    total_timeout_s: float = field(metadata=allowed(gt=0, le=604800, unit="s"))
    max_gb: float = field(metadata=allowed(gt=0, le=10000, unit="GB"))


class Wanted(NamedTuple):
    """A file of the web.

    Attributes:
        url: http(s); or s3 and gs, which fsspec opens with the packages for them.
        digest: hexadecimal, or its first digits, in lower case.
        algorithm: of the digest, as hashlib calls it; sha1 and md5 where a publisher gives no other.
        setting: where the digest stands, for messages.
        instead: what to do where the server does not give the file, as a part of a sentence.
    """

    url: str
    digest: str
    algorithm: str
    setting: str
    instead: str


class _BrokenOff(Exception):
    """The connection ended before the file did."""


def download(wanted: Wanted, target: Path, limits: DownloadSettings) -> None:
    """Fetches `wanted` to `target`, which appears when it is whole.

    Until then it grows as `<target>.partial`, which stays where a server breaks off, and where this process is killed:
    the next call asks for the rest alone. What has the wrong checksum, or is too large, is not kept.

    The work is done by a thread that is left behind where the time is over: no time-out of a socket holds for a name
    server, for headers that come letter by letter and for the start of an encrypted connection together.

    Args:
        wanted: address and checksum; a redirection to anything but http and https is not followed.
        target: in a folder that exists; of two processes with one target, one has to wait (a lock of the caller).
        limits: of time and size.

    Raises:
        DownloadError: no such file, another digest, a server that breaks off, or a limit.
    """
    partial, stop = target.with_name(f"{target.name}.partial"), threading.Event()
    pool, found = ThreadPool(1), None
    work = pool.apply_async(_fetch, (wanted, partial, limits, stop))
    pool.close()
    try:
        found = work.get(limits.total_timeout_s)
    except multiprocessing.TimeoutError as error:
        allowed_s = significant(limits.total_timeout_s)
        why = f"it has not ended after {allowed_s} s, as long as download.total_timeout_s allows"
        raise _given_up(wanted, why) from error
    except _BrokenOff as error:
        raise _given_up(wanted, str(error)) from error
    except _UNAVAILABLE as error:
        if isinstance(error, OSError) and (error.errno in _OWN_DISK or error.filename == str(partial)):
            raise
        raise _given_up(wanted, first_line(error).rstrip(".:")) from error
    finally:
        stop.set()
        if found is None and partial.exists() and not partial.stat().st_size:
            partial.unlink()
    if not found.startswith(wanted.digest):
        partial.unlink()
        raise DownloadError(
            f"{wanted.url}: its {wanted.algorithm.upper().replace('SHA', 'SHA-')} does not begin with {wanted.digest}. "
            f"Nothing was kept; it is {found}. Correct {wanted.setting}, or the address."
        )
    partial.replace(target)


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a file, hexadecimal; of bytes that nobody trusts, so that MD5 and SHA-1 are told as such."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _fetch(wanted: Wanted, partial: Path, limits: DownloadSettings, stop: threading.Event) -> str:
    """Completes `partial`; the digest of the whole."""
    is_pieced = partial.exists()
    if is_pieced and (found := digest_of(partial, wanted.algorithm)).startswith(wanted.digest):
        return found  # whole, and not yet renamed
    for left in reversed(range(_ATTEMPTS)):
        try:
            _receive(wanted, partial, limits, stop)
        except (_BrokenOff, http.client.IncompleteRead, ConnectionError):
            if left == 0 or stop.is_set() or not partial.exists() or not partial.stat().st_size:
                raise
            is_pieced = True
            continue
        found = digest_of(partial, wanted.algorithm)
        if not is_pieced or found.startswith(wanted.digest) or left == 0:
            return found
        partial.unlink()  # the pieces may be of different files: the server's may have changed in between
        is_pieced = False
    raise AssertionError("the last attempt returns or raises")


def _receive(wanted: Wanted, partial: Path, limits: DownloadSettings, stop: threading.Event) -> None:
    """Appends to `partial` what is missing of it, or writes all of it where the server begins at the beginning."""
    largest = int(limits.max_gb * 1e9)
    with partial.open("ab") as file, opened(wanted.url, file.tell(), limits.timeout_s) as answer:
        file.truncate(answer.start)
        received, size = answer.start, answer.size
        if size is not None and size > largest:
            partial.unlink()
            raise _given_up(wanted, f"{short(size, 'B')}, and download.max_gb allows {short(largest, 'B')}")
        progress = _Progress(wanted.url, received, size)
        while not stop.is_set() and (chunk := answer.read(_CHUNK)):
            if stop.is_set():  # another process may go on with the file by now
                return
            received += len(chunk)
            if received > largest:
                partial.unlink()
                raise _given_up(wanted, f"more than {short(largest, 'B')}, which download.max_gb allows")
            file.write(chunk)
            progress.show(received)
        progress.end()
    if size is not None and received != size:
        raise _BrokenOff(f"the server broke off after {received} of {size} bytes")


def _given_up(wanted: Wanted, why: str) -> DownloadError:
    return DownloadError(f"{wanted.url}: cannot be downloaded ({why}). Download it elsewhere, then {wanted.instead}.")


class _Progress:
    """Tells how far a download is: at its start, and on a terminal in one line that is written over.

    Args:
        url: of the file.
        start: bytes that were there before.
        size: of the whole; None where the server does not say.
    """

    def __init__(self, url: str, start: int, size: int | None):
        self._size = size
        self._shown_at = 0.0
        told = "" if size is None else f", {short(size, 'B')}"
        told += f", from {short(start, 'B')} on" if start else ""
        print(f"downloading {url}{told}", file=sys.stderr, flush=True)

    def show(self, received: int) -> None:
        """`received` bytes are there."""
        if sys.stderr.isatty() and time.monotonic() - self._shown_at > _SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            print(f"\r\033[K{self._line(received)}", end="", file=sys.stderr, flush=True)

    def _line(self, received: int) -> str:
        if not self._size:
            return short(received, "B")
        done = min(_BAR, _BAR * received // self._size)
        return f"[{'#' * done}{'.' * (_BAR - done)}] {short(received, 'B')} of {short(self._size, 'B')}"

    def end(self) -> None:
        """Clears the line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
