"""`POST /v1/videoqa`: a question about a video, as JSON or as a form with the file, and the answer with its clues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from cluenet.plain import rounded
from cluenet.serve.errors import ServeError
from cluenet.serve.protocol import ClueShown, VideoQARequest, VideoQAResponse
from cluenet.serve.service import Outcome, ServedModel

MOST_FIELDS = 100


async def parsed(request: Request) -> tuple[VideoQARequest, UploadFile | None]:
    """The request and, from a form, its file. Raises ServeError, RequestValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request)
    if kind != "application/json":
        message = f"Content-Type is {kind or 'missing'!r}; send application/json or multipart/form-data"
        raise ServeError(415, "invalid_request_error", message)
    try:
        asked = VideoQARequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    if asked.video_url is None:
        raise ServeError(400, "invalid_request_error", "video_url is missing: where is the video?", param="video_url")
    return asked, None


async def _of_form(request: Request) -> tuple[VideoQARequest, UploadFile | None]:
    form = await request.form(max_files=1, max_fields=MOST_FIELDS)
    fields: dict[str, Any] = {name: form.get(name) for name in form if name not in ("video", "options")}
    if options := form.getlist("options"):
        fields["options"] = options
    video = form.get("video")
    try:
        asked = VideoQARequest.model_validate(_without_blanks(fields))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
    if isinstance(video, UploadFile) == (asked.video_url is not None):
        message = "send the video once: as a file in `video`, or its address in `video_url`"
        raise ServeError(400, "invalid_request_error", message, param="video")
    if video is not None and not isinstance(video, UploadFile):
        raise ServeError(
            400, "invalid_request_error", "`video` is not a file; put an address in `video_url`", param="video"
        )
    return asked, video


def _without_blanks(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A form sends fields that nobody filled in as empty ones."""
    return {name: value for name, value in fields.items() if value != "" or name == "question"}


def response(id_: str, outcome: Outcome, model: ServedModel, *, explain: bool) -> VideoQAResponse:
    reply, clip = outcome.reply, outcome.clip
    start, facts = clip.start_seconds, reply.facts
    video = {
        "sha256": outcome.sha256, "start_seconds": start, "end_seconds": start + facts.duration_seconds,
        "frame_seconds": [start + seconds for seconds in facts.frame_seconds], "reader": facts.reader,
    }  # fmt: skip
    shown = [ClueShown(**{name: row[name] for name in ClueShown.model_fields}) for row in rounded(reply.clues)]
    return VideoQAResponse(
        id=id_, model=model.name, answer=reply.answer, index=reply.index,
        probabilities=reply.probabilities, clues=shown if explain else None, chain=reply.chain if explain else None,
        video=rounded(video), seconds=rounded(outcome.seconds), cached=reply.cached, usage=reply.usage,
        frame_policy=model.frame_policy, fingerprint=model.fingerprint,
    )  # fmt: skip
