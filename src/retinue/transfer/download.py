"""A file from the web: over http or https, within limits of time and size, whole or not at all."""

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
from typing import Any

from retinue.pipeline.errors import ModelError
from retinue.pipeline.numbers import short, significant
from retinue.pipeline.ranges import Checked, allowed
from retinue.pipeline.settings import first_line

_CHUNK = 2**20
_SHOWN_EVERY_S = 0.2
_OWN_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Not the server's doing: the stage says what is wrong with the disk."""


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


def download(url: str, target: Path, digest: str, limits: DownloadSettings) -> None:
    """Fetches `url` to `target`, which appears when it is whole.

    The work is done by a thread that is left behind where the time is over: no time-out of a socket holds for a name
    server, for headers that come letter by letter and for the start of an encrypted connection together.

    Args:
        url: http or https; a redirection to anything else is not followed.
        target: in a folder that exists.
        digest: hexadecimal SHA-256 of the file, or its first digits, in lower case.
        limits: of time and size.

    Raises:
        ModelError: no such file, another digest, a server that breaks off, or a limit.
    """
    partial, stop = target.with_name(f"{target.name}.partial"), threading.Event()
    pool = ThreadPool(1)
    work = pool.apply_async(_fetch, (url, partial, limits, stop))
    pool.close()
    try:
        found = work.get(limits.total_timeout_s)
    except multiprocessing.TimeoutError as error:
        allowed_s = significant(limits.total_timeout_s)
        why = f"it has not ended after {allowed_s} s, as long as download.total_timeout_s allows"
        raise _given_up(url, why) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and (error.errno in _OWN_DISK or error.filename == str(partial)):
            raise
        raise _given_up(url, first_line(error).rstrip(".:")) from error
    else:
        if not found.startswith(digest):
            raise ModelError(
                f"{url}: its SHA-256 does not begin with {digest}. Nothing was kept; it is {found}. Correct "
                "weights.sha256, or the address."
            )
        partial.replace(target)
    finally:
        stop.set()
        partial.unlink(missing_ok=True)


def _fetch(url: str, partial: Path, limits: DownloadSettings, stop: threading.Event) -> str:
    """Writes what the server sends to `partial`; its SHA-256."""
    largest, received, digest = int(limits.max_gb * 1e9), 0, hashlib.sha256()
    with _opener().open(url, timeout=limits.timeout_s) as response, partial.open("wb") as file:
        promised: int | None = response.length
        if promised is not None and promised > largest:
            raise _given_up(url, f"{short(promised, 'B')}, and download.max_gb allows {short(largest, 'B')}")
        progress = _Progress(url, promised)
        while not stop.is_set() and (chunk := response.read1(_CHUNK)):
            received += len(chunk)
            if received > largest:
                raise _given_up(url, f"more than {short(largest, 'B')}, which download.max_gb allows")
            digest.update(chunk)
            file.write(chunk)
            progress.show(received)
        progress.end()
    if promised is not None and received != promised:
        raise _given_up(url, f"the server broke off after {received} of {promised} bytes")
    return digest.hexdigest()


def _given_up(url: str, why: str) -> ModelError:
    return ModelError(
        f"{url}: cannot be downloaded ({why}). Download it elsewhere, then weights=file weights.path=FILE."
    )


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https, through the proxies of the environment, and nothing else: no file:, ftp: or data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows ten redirections, to http and https, and reads nothing of the page that tells of one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fp.close()  # urllib would read it to its end, which may not come
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Progress:
    """Tells how far a download is: at its start, and on a terminal in one line that is written over.

    Args:
        url: of the file.
        promised: its bytes; None where the server does not say.
    """

    def __init__(self, url: str, promised: int | None):
        self._whole = "" if promised is None else f" of {short(promised, 'B')}"
        self._shown_at = 0.0
        print(f"downloading {url}{self._whole.replace(' of', ',')}", file=sys.stderr, flush=True)

    def show(self, received: int) -> None:
        """`received` bytes are there."""
        if sys.stderr.isatty() and time.monotonic() - self._shown_at > _SHOWN_EVERY_S:
            self._shown_at = time.monotonic()
            print(f"\r\033[K{short(received, 'B')}{self._whole}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clears the line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
