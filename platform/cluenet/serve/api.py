"""The endpoint's routes: OpenAI's chat completions, `/v1/videoqa`, models, health, metrics, and the page at `/`. Ray-free."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

import cluenet
from cluenet.serve import chat, metrics, videoqa
from cluenet.serve.errors import ServeError
from cluenet.serve.guard import Guard
from cluenet.serve.protocol import (
    ChatRequest,
    ChatResponse,
    ErrorResponse,
    Health,
    ModelCard,
    ModelList,
    VideoQARequest,
    VideoQAResponse,
)
from cluenet.serve.service import Outcome, Service, Wish
from cluenet.serve.spool import from_upload
from cluenet.serve.streaming import events, piped

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: nothing from elsewhere, no code but its own files."""
PAGE = {"index.html": "text/html", "style.css": "text/css"} | {
    f"{name}.js": "text/javascript" for name in ("answer", "api", "app", "dom", "options", "player", "timeline")
}
UPLOAD_CHUNK = 1 << 20
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": what}
    for status, what in {
        400: "What is asked for cannot be done", 401: "No or an unknown key", 404: "No such model here",
        408: "The request did not arrive in time", 413: "Larger than the limits allow",
        415: "A body that is neither JSON nor a form", 422: "Not a valid request", 429: "Too many requests wait",
        503: "Too much work waits, or a replica ended", 504: "Not answered in time",
    }.items()
}  # fmt: skip
router = APIRouter()


def build_app(service: Service, keys: tuple[str, ...] = ()) -> ASGIApp:
    """The application around a service. keys: bearer keys, of which requests need one; empty: none is needed."""
    app = FastAPI(title="ClueNet", version=cluenet.__version__, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(ServeError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _of_framework)
    if service.section.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(service.section.cors_origins), allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )  # fmt: skip
    limits, numbers = service.section.limits, service.numbers
    return Guard(app, keys=keys, limits=limits, numbers=numbers, admission=service.admission)


# ------------------------------------------------------------------------------------------------------ questions


@router.post("/v1/chat/completions", response_model=ChatResponse, responses=ERRORS)
async def chat_completions(body: ChatRequest, request: Request) -> Any:
    """OpenAI's chat completions about the video of a `video_url` part."""
    service: Service = request.app.state.service
    chat.check(body, service.model.name)
    question, options = chat.question_of(body)
    chat.check_logprobs(body, options)
    id_, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    video = partial(service.fetcher.fetch, chat.video_of(body))
    wish = Wish(id_, video, question, options, most_tokens=chat.most_tokens(body))
    if not body.stream:
        return chat.response(body, id_, await service.answer(wish), service.model, created)
    items = piped(service.stream(wish))
    first = await anext(items)  # an error before the first piece still has its status
    stream = events(body, id_, created, service.model, first, items)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


FORM = {
    **VideoQARequest.model_json_schema(),
    "properties": {
        **VideoQARequest.model_json_schema()["properties"],
        "video": {"type": "string", "format": "binary", "description": "The file; instead of `video_url`."},
    },
}


@router.post(
    "/v1/videoqa", response_model=VideoQAResponse, responses=ERRORS,
    openapi_extra={"requestBody": {"required": True, "content": {
        "application/json": {"schema": VideoQARequest.model_json_schema()}, "multipart/form-data": {"schema": FORM},
    }}},
)  # fmt: skip
async def video_qa(request: Request) -> VideoQAResponse:
    """A question about a video: answer, probabilities, and the clues that it rests on."""
    service: Service = request.app.state.service
    asked, upload = await videoqa.parsed(request)
    id_ = f"videoqa-{uuid.uuid4().hex}"
    if upload is None:
        video = partial(service.fetcher.fetch, asked.video_url)
    else:
        video = partial(from_upload, _pieces(upload), service.section.limits)
    wish = Wish(
        id_, video, asked.question, tuple(asked.options), asked.start_seconds, asked.end_seconds, asked.utilities
    )
    try:
        outcome: Outcome = await service.answer(wish)
    finally:
        if upload is not None:
            await upload.close()
    return videoqa.response(id_, outcome, service.model, explain=asked.explain)


async def _pieces(upload: UploadFile) -> AsyncIterator[bytes]:
    while piece := await upload.read(UPLOAD_CHUNK):
        yield piece


# ------------------------------------------------------------------------------------------------------ about it


@router.get("/v1/models", response_model=ModelList, responses={401: ERRORS[401]})
async def models(request: Request) -> ModelList:
    """The one model that is served."""
    return ModelList(data=[_card(request)])


@router.get("/v1/models/{name}", response_model=ModelCard, responses={401: ERRORS[401], 404: {"model": ErrorResponse}})
async def model(name: str, request: Request) -> ModelCard:
    card = _card(request)
    if name != card.id:
        raise ServeError(
            404, "not_found_error", f"no model {name!r} here; this endpoint serves {card.id!r}", code="model_not_found"
        )
    return card


def _card(request: Request) -> ModelCard:
    one = request.app.state.service.model
    return ModelCard(id=one.name, created=one.created, fingerprint=one.fingerprint, frame_policy=one.frame_policy)


@router.get("/health", response_model=Health)
async def health(request: Request) -> Health:
    return Health(model=request.app.state.service.model.name, version=cluenet.__version__)


@router.get("/metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """The numbers of all replicas for Prometheus."""
    service: Service = request.app.state.service
    return Response(metrics.page(await service.backend.metrics()), media_type=metrics.CONTENT_TYPE)


@router.get("/", include_in_schema=False)
async def page() -> Response:
    return _file("index.html")


@router.get("/static/{name}", include_in_schema=False)
async def static(name: str) -> Response:
    return _file(name)


def _file(name: str) -> Response:
    if name not in PAGE:
        raise HTTPException(404)
    content = (files("cluenet.serve") / "page" / name).read_bytes()
    headers = {
        "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }  # fmt: skip
    return Response(content, media_type=PAGE[name], headers=headers)


# -------------------------------------------------------------------------------------------------------- errors


def _refused(_: Request, error: Any) -> Response:
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers())


def _not_valid(request: Request, error: Any) -> Response:
    """Every place and what is wrong with it; what was sent there is not repeated."""
    problems = [(".".join(map(str, one["loc"][one["loc"][:1] == ("body",) :])), one["msg"]) for one in error.errors()]
    message = "; ".join(f"{place}: {what}" if place else what for place, what in problems)
    return _refused(request, ServeError(422, "invalid_request_error", message, param=problems[0][0] or None))


def _of_framework(request: Request, error: Any) -> Response:
    known = {
        404: f"no route {request.url.path}; GET /openapi.json lists them",
        405: f"{request.method} is not allowed for {request.url.path}; GET /openapi.json lists what is",
    }
    response = _refused(
        request, ServeError.of_status(error.status_code, known.get(error.status_code, str(error.detail)))
    )
    response.headers.update(error.headers or {})
    return response
