"""Images out of the bodies of requests, within limits that hold whatever a client says of them."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retinue.pipeline.numbers import significant
from retinue.serving.serve.options import ServeOptions

MULTIPART, JSON, ANY_BYTES = "multipart/form-data", "application/json", "application/octet-stream"

_MB = 10**6
_MOST_FIELDS = 8  # of a form, besides its files; they are not used
_LONGEST_FIELD = 2**16
_JSON_SHAPE = 'expected {"images": ["<base64>", …]}'


class _FormInMemory(MultiPartParser):
    """Starlette's parser, which writes nothing to the disk: the size of the whole body is bounded."""

    spool_max_size = 2**40


class _Body:
    """What has arrived of one body."""

    def __init__(self) -> None:
        self.size = 0


class BodyReader:
    """Reads images from requests; what all of them hold together is bounded, too.

    Args:
        options: see `ServeOptions`.
    """

    def __init__(self, options: ServeOptions):
        self._options = options
        self._most, self._most_pending = int(options.max_body_mb * _MB), int(options.max_pending_mb * _MB)
        self._pending = 0

    @asynccontextmanager
    async def images(self, request: Request, most: int) -> AsyncIterator[list[bytes]]:
        """The encoded images of a request, which count as held until the block ends.

        Args:
            request: with a multipart form of files, one raw image, or JSON with base64.
            most: images that the request may have.

        Raises:
            HTTPException: 400 the body is not what its type says; 408 it came too slowly; 413 it is too large, or of
                too many images; 415 another type; 422 no image in it; 503 too much is held for others.
        """
        body = _Body()
        try:
            try:
                async with asyncio.timeout(self._options.read_timeout_s):
                    images = await self._read(request, body, most)
            except TimeoutError as error:
                limit = significant(self._options.read_timeout_s)
                close = {"Connection": "close"}
                raise HTTPException(408, f"The body did not arrive within {limit} s.", close) from error
            except ClientDisconnect as error:
                raise HTTPException(400, "The connection ended within the body.") from error
            if not images:
                raise HTTPException(422, "No image in this request.")
            if len(images) > most:
                raise _too_many(most)
            yield images
        finally:
            self._pending -= body.size

    async def _read(self, request: Request, body: _Body, most: int) -> list[bytes]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == MULTIPART:
            return await self._files(request, body, most)
        if kind == JSON:
            return await asyncio.to_thread(_decoded_json, await self._whole(request, body), most)
        if kind == ANY_BYTES or kind.startswith("image/"):
            data = await self._whole(request, body)
            return [data] if data else []
        raise HTTPException(
            415, f"Content-Type {kind[:100] or 'missing'}: expected {MULTIPART}, image/…, {ANY_BYTES} or {JSON}."
        )

    async def _chunks(self, request: Request, body: _Body) -> AsyncGenerator[bytes, None]:
        """The body as it arrives, counted.

        Raises:
            HTTPException: see `images`.
        """
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._most:
            raise self._too_large()
        async for chunk in request.stream():
            body.size += len(chunk)
            self._pending += len(chunk)
            if body.size > self._most:
                raise self._too_large()
            if self._pending > self._most_pending:
                raise HTTPException(503, "Too many bodies are arriving. Try again later.", {"Retry-After": "1"})
            yield chunk

    async def _whole(self, request: Request, body: _Body) -> bytes:
        return b"".join([chunk async for chunk in self._chunks(request, body)])

    async def _files(self, request: Request, body: _Body, most: int) -> list[bytes]:
        parser = _FormInMemory(
            request.headers,
            self._chunks(request, body),
            max_files=most,
            max_fields=_MOST_FIELDS,
            max_part_size=_LONGEST_FIELD,
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if "Too many files" in error.message:
                raise _too_many(most) from error
            raise HTTPException(400, f"Not a multipart form: {error.message}") from error
        except FormParserError as error:  # earlier versions of Starlette let it through
            raise HTTPException(400, "Not a multipart form: invalid data.") from error
        try:
            return [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
        finally:
            await form.close()

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than {significant(self._options.max_body_mb)} MB.")


def _too_many(most: int) -> HTTPException:
    return HTTPException(413, f"Too many images in one request: at most {most}.")


def _decoded_json(body: bytes, most: int) -> list[bytes]:
    """The images of a JSON document; their order is kept.

    Raises:
        HTTPException: it is not JSON, of another shape, or of too many images.
    """
    # Base64 has none of these signs. They are counted first, for a body of `[[],[],…` becomes objects of 20 times its
    # size.
    if sum(map(body.count, (b",", b"[", b"{", b":"))) > most + 2:
        if body.lstrip().startswith(b"{"):
            raise _too_many(most)
        raise HTTPException(422, f"JSON of another shape: {_JSON_SHAPE}.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The body is not JSON.") from error
    encoded = document.get("images") if isinstance(document, dict) else None
    if not isinstance(encoded, list) or not all(isinstance(each, str) for each in encoded):
        raise HTTPException(422, f"JSON of another shape: {_JSON_SHAPE}.")
    try:
        return [base64.b64decode(each, validate=True) for each in encoded]
    except (binascii.Error, ValueError) as error:  # ValueError: other characters than ASCII
        raise HTTPException(422, "An image is not base64.") from error
