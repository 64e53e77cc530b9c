"""The routes of `retinue serve`."""

import asyncio
import base64
import hashlib
import hmac
import io
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retinue.pipeline.errors import DataError
from retinue.pipeline.names import escaped
from retinue.serving.serve.answers import MOST_NEIGHBOURS, Answering, ServedAnswer, ServedNeighbour, Wanted
from retinue.serving.serve.bodies import ANY_BYTES, JSON, MULTIPART, BodyReader
from retinue.serving.serve.monitoring import METRICS_TYPE, ServiceMetrics
from retinue.serving.serve.options import ServeOptions
from retinue.serving.serve.page import page_and_policy
from retinue.serving.serve.service import ModelService

PNG = "image/png"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class ServedPrediction(BaseModel):
    """What the model says of an image."""

    predicted: str
    probability: float
    abstained: bool
    probs: dict[str, float]
    usual_share: float | None


class Unreadable(BaseModel):
    """Why an image could not be read."""

    error: str


class PredictAnswer(BaseModel):
    """An entry for each image, in the order of the request."""

    images: list[ServedPrediction | Unreadable]


class ExplainAnswer(ServedPrediction):
    """What the model says of an image, and the image under the map of that class: a PNG in base64."""

    overlay: str


class NearImage(BaseModel):
    """A training image: its class, its distance in what the network's head is given (0: the same), a PNG in base64."""

    label: str
    distance: float
    picture: str


class SimilarAnswer(ServedPrediction):
    """What the model says of an image, and the training images that it sees as it sees that one, the nearest first."""

    similar: list[NearImage]


class Refused(BaseModel):
    """Why a request was refused."""

    error: str


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {"type": "array", "items": _BINARY["schema"]}
_BASE64 = {"type": "array", "items": {"type": "string", "format": "byte"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART: {"schema": {"type": "object", "properties": {"image": _FILES}}},
            "image/*": _BINARY,
            ANY_BYTES: _BINARY,
            JSON: {"schema": {"type": "object", "properties": {"images": _BASE64}, "required": ["images"]}},
        },
    }
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused} for status in (400, 401, 408, 413, 415, 422, 429, 503)
}


def make_app(service: ModelService, options: ServeOptions) -> ASGIApp:
    """The application; it serves while `service.running()` does.

    Args:
        service: that answers.
        options: see `ServeOptions`.

    Raises:
        SettingsError: the key cannot be read.
    """
    app = FastAPI(title="retinue", docs_url=None, redoc_url=None, separate_input_output_schemas=False)
    guarded = [Security(_key_check(options.api_key()))]
    bodies = BodyReader(options)
    page, policy = page_and_policy(shows_similar=options.training_images is not None)

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": policy})

    @app.get("/health")
    async def health() -> dict[str, bool]:
        """Whether the process is alive."""
        return {"alive": True}

    @app.get("/ready", responses={503: {"model": Refused}})
    async def ready() -> dict[str, bool]:
        """Whether requests are wanted."""
        if service.is_ending:
            raise HTTPException(503, "Shutting down.")
        return {"ready": True}

    @app.get("/metrics", dependencies=guarded)
    async def metrics() -> Response:
        """Counters, histograms and gauges in Prometheus's text format."""
        return Response(service.metrics.text(), headers={"Content-Type": METRICS_TYPE})

    @app.post("/predict", dependencies=guarded, openapi_extra=_BODY, responses=_REFUSALS, response_model=PredictAnswer)
    async def predict(request: Request) -> Response:
        """Decides for a class of each image."""
        model = service.model
        async with bodies.images(request, options.max_images) as images:
            client = _check_room(service, request, len(images))
            answers = await service.answers(model, images, client=client)
        if len(answers) == 1 and isinstance(answers[0], DataError):
            raise _unreadable(answers[0])
        return JSONResponse({"images": [_entry(each) for each in answers]})

    async def answer_for_one(request: Request, wanted: Wanted) -> ServedAnswer:
        model = service.model
        _check_offered(model, wanted)
        async with bodies.images(request, 1) as images:
            client = _check_room(service, request, 1)
            (answer,) = await service.answers(model, images, client=client, wanted=wanted)
        if isinstance(answer, DataError):
            raise _unreadable(answer)
        return answer

    @app.post(
        "/explain",
        dependencies=guarded,
        openapi_extra=_BODY,
        responses={**_REFUSALS, 200: {"content": {PNG: _BINARY}}, 501: {"model": Refused}},
        response_model=ExplainAnswer,
    )
    async def explain(request: Request) -> Response:
        """Shows where in one image the evidence for its class lies: a PNG, or JSON where `Accept` asks for that."""
        answer = await answer_for_one(request, "overlay")
        assert answer.overlay is not None
        png = await asyncio.to_thread(_png_of, answer.overlay)
        if JSON in request.headers.get("accept", ""):
            return JSONResponse(_entry(answer) | {"overlay": base64.b64encode(png).decode("ascii")})
        return Response(png, media_type=PNG)

    @app.post(
        "/similar",
        dependencies=guarded,
        openapi_extra=_BODY,
        responses={**_REFUSALS, 501: {"model": Refused}},
        response_model=SimilarAnswer,
    )
    async def similar(request: Request, k: Annotated[int, Query(ge=1, le=MOST_NEIGHBOURS)] = 8) -> Response:
        """Finds the `k` training images nearest to one image."""
        answer = await answer_for_one(request, "neighbours")
        near = await asyncio.to_thread(lambda: [_near_image(each) for each in answer.neighbours[:k]])
        return JSONResponse(_entry(answer) | {"similar": near})

    @app.exception_handler(RequestValidationError)
    async def refuse_query(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}."}, 422)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The service failed at this; its log says how."}, 500)

    return Observed(app, service.metrics, list(app.openapi()["paths"]))


class Observed:
    """Counts and times what an application answers, and gives its answers headers that keep browsers strict.

    Args:
        app: that answers.
        metrics: that are told.
        routes: paths that are counted by their name; all others count as "other", so that their number is bounded.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, routes: Sequence[str]):
        self._app, self._metrics, self._routes = app, metrics, {"/", "/openapi.json", *routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request as the application does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.count_request(route, status, time.monotonic() - begun)


def _key_check(key: str | None) -> Any:
    """What refuses a request without the key; of a service that has none, nothing."""
    bearer = HTTPBearer(auto_error=False)
    expected = None if key is None else hashlib.sha256(key.encode()).digest()

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> None:
        if expected is None:
            return
        digest = hashlib.sha256(b"" if given is None else given.credentials.encode("utf-8", "replace")).digest()
        if not hmac.compare_digest(digest, expected):  # digests, so that not even the length of the key is told
            raise HTTPException(401, "Expected the header Authorization: Bearer KEY.", {"WWW-Authenticate": "Bearer"})

    return check


def _check_offered(model: Answering, wanted: Wanted) -> None:
    if (reason := model.why_not.get(wanted)) is not None:
        raise HTTPException(501, escaped(reason))


def _check_room(service: ModelService, request: Request, count: int) -> str:
    """The address of the client, which may have `count` more images in hand."""
    client = request.client.host if request.client else ""
    if not service.has_room_for(client, count):
        raise HTTPException(429, "Too many images of this address wait. Try again later.", {"Retry-After": "1"})
    if not service.has_room(count):
        raise HTTPException(503, "Too many images wait. Try again later.", {"Retry-After": "1"})
    return client


def _unreadable(error: DataError) -> HTTPException:
    return HTTPException(422, escaped(str(error)))


def _entry(answer: ServedAnswer | DataError) -> dict[str, Any]:
    if isinstance(answer, DataError):
        return {"error": escaped(str(answer))}
    found = answer._asdict()
    del found["overlay"], found["neighbours"]
    return found


def _near_image(near: ServedNeighbour) -> dict[str, Any]:
    picture = base64.b64encode(_png_of(near.pixels)).decode("ascii")
    return {"label": near.label, "distance": near.distance, "picture": picture}


def _png_of(pixels: np.ndarray) -> bytes:
    """A PNG of pixels uint8 (H, W, 1 or 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
