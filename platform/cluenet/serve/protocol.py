"""What clients send and get: OpenAI's chat completions with `video_url`, and `/v1/videoqa`, which shows the clues.

Field names of chat completions are OpenAI's (platform.openai.com/docs/api-reference/chat); `video_url` stands where
`image_url` does, as in vLLM's and SGLang's servers. Times are seconds of the video file, boxes fractions of the frame.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VideoQARequest(Request):
    """`POST /v1/videoqa`, as JSON, or as multipart with these fields and the file in `video`."""

    question: str = Field(min_length=1)
    options: list[str] = Field(default_factory=list, description="None: an open question.")
    video_url: str | None = Field(None, description="data:, http(s):// or file:// below an allowed root.")
    start_seconds: float = Field(0.0, ge=0)
    end_seconds: float | None = Field(None, gt=0)
    explain: bool = Field(True, description="Also give clues, chain and timings.")
    utilities: bool = Field(False, description="Also measure what every clue is worth (more answer passes).")


class ClueShown(BaseModel):
    """A clue that the model stated."""

    text: str
    start_seconds: float | None
    end_seconds: float | None
    box: dict[str, float] | None = Field(description="{seconds, x1, y1, x2, y2}")
    gate: float | None
    kept: bool
    utility: float | None = Field(
        None, description="What leaving it out does to the log-probability of the given answer, in nats."
    )


class VideoQAResponse(BaseModel):
    id: str
    model: str
    answer: str
    index: int | None = Field(description="Of the answer among the options.")
    probabilities: list[float] | None
    clues: list[ClueShown] | None = Field(description="Null without `explain`.")
    chain: str | None
    video: dict[str, Any] = Field(description="{sha256, start_seconds, end_seconds, frame_seconds, reader}")
    seconds: dict[str, float] = Field(description="{fetch, decode, wait, watch, answer, total}")
    cached: dict[str, bool] = Field(description="{frames, clip}: found in a cache.")
    usage: dict[str, int] = Field(description="{visual_tokens, prompt_tokens, completion_tokens, total_tokens}")
    frame_policy: str = Field(description="Fingerprint: sampler, size and codec that the model was trained with.")
    fingerprint: str = Field(description="Of the model.")


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    message: str
    type: Literal[
        "invalid_request_error", "authentication_error", "not_found_error", "rate_limit_error", "overloaded_error",
        "timeout_error", "server_error",
    ]  # fmt: skip
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    error: ErrorBody


# ------------------------------------------------------------------------------------------------ OpenAI's chat


class VideoUrl(Request):
    url: str


class VideoPart(Request):
    type: Literal["video_url"]
    video_url: VideoUrl


class TextPart(Request):
    type: Literal["text"]
    text: str


class Message(Request):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | VideoPart]
    name: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Fields of OpenAI's API that mean nothing here are accepted only where ignoring them changes nothing (`user`, `metadata`,
    `store`, `n: 1`, `temperature: 0`); others are refused by name."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class ReplyMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int = 0
    message: ReplyMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class PromptDetails(BaseModel):
    visual_tokens: int
    cached_tokens: int = Field(description="Visual tokens of a clip that had been watched before.")


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatResponse(BaseModel):
    """OpenAI's `chat.completion`, and the evidence in `cluenet`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    system_fingerprint: str
    cluenet: VideoQAResponse


# ------------------------------------------------------------------------------------------------ about the model


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "cluenet"
    fingerprint: str
    frame_policy: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    model: str
    version: str
