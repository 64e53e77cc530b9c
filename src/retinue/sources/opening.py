"""Opens a file on the web from any of its bytes on, and follows redirections to http and https alone."""

import http
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from retinue.pipeline.errors import DownloadError
from retinue.pipeline.settings import first_line


class WebAnswer(NamedTuple):
    """What a server sends: from byte `start` of the file on, in all `size` bytes (None: it does not say)."""

    start: int
    size: int | None
    read: Callable[[int], bytes]


def why_no_address(url: str) -> str:
    """Why no connection can be made to `url`, which a pattern cannot tell; "" where one can."""
    try:
        parts = urlsplit(url)
        reason = "" if parts.hostname and parts.port != 0 else "it names no host"
        if parts.username is not None:
            reason = "it holds user and password, which would stand in params.yaml; download it and give its path"
    except ValueError as error:  # [ without ], a port that is none
        reason = str(error)
    if not reason and not re.fullmatch(r"[!-~]+", url):
        reason = "other characters than those of ASCII, and blanks, are written as %XX"
    return reason


@contextmanager
def opened(url: str, start: int, timeout_s: float) -> Iterator[WebAnswer]:
    """The file at `url` from byte `start` on, or from its beginning where the server knows no parts."""
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        with _opened_by_fsspec(url, start) as answer:
            yield answer
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = _opener().open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        response = _opener().open(url, timeout=timeout_s)
    with response:
        begins = 0
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            part = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
            begins = int(part[1]) if part else -1
            if begins != start:
                raise ValueError(f"the server sent another part than bytes {start}-")
        yield WebAnswer(begins, None if response.length is None else begins + response.length, response.read1)


@contextmanager
def _opened_by_fsspec(url: str, start: int) -> Iterator[WebAnswer]:
    """The file at an address of an object store; access and endpoints are settings of fsspec and its packages."""
    import fsspec  # half a second that a download by http does not need

    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DownloadError(
            f"{url}: {first_line(error)}. Install the extra: pip install '.[s3]' or '.[gs]'."
        ) from error
    with system.open(path, "rb") as file:
        start = min(start, file.size)
        file.seek(start)
        yield WebAnswer(start, file.size, file.read)


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
