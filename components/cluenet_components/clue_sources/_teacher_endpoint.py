"""A teacher behind an OpenAI-compatible endpoint (chat completions), through the official client."""

from __future__ import annotations

import base64
import io
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cluenet.errors import DataError, suggestion
from cluenet.records import Frames
from cluenet_components.clue_sources._teacher_cache import QuestionFailed, Request, Teacher
from cluenet_components.clue_sources._teacher_replies import LETTER_TOKENS, LETTERS, Reply

if TYPE_CHECKING:
    from cluenet_components.clue_sources.teacher import TeacherClues

WHERE = "data.clue_source"
JPEG_QUALITY = 90
MOST_SAID = 300  # characters of a server's message
TOP_LOGPROBS = 20  # the most that the protocol allows
ROUND_A_LETTER = " ()[].:*\n"


class EndpointTeacher(Teacher):
    """The client waits and tries again on 408, 409, 429 (as long as Retry-After says), 5xx and broken connections.

    Raises DataError when the key is not in the environment or the `openai` package is missing.
    """

    def __init__(self, config: TeacherClues.Config):
        self._config, self._key = config, _key(config.api_key_env)
        self._openai = _library()
        pacer = Pacer(config.requests_per_minute)
        self._client = self._openai.OpenAI(
            base_url=config.endpoint,
            api_key=self._key or "none",  # else the client takes OPENAI_API_KEY, and strangers would get it
            max_retries=config.retries,
            timeout=config.timeout_seconds,
            http_client=self._openai.DefaultHttpxClient(event_hooks={"request": [pacer]}),  # repetitions count too
        )
        self._tells_logprobs = True

    def identity(self) -> dict[str, Any]:
        config = self._config
        return {"model": config.model, "temperature": config.temperature, "max_tokens": config.max_tokens}

    def ask(self, request: Request) -> Reply:
        if request.num_options and self._tells_logprobs:
            try:
                return self._complete(request, logprobs=True, top_logprobs=TOP_LOGPROBS)
            except QuestionFailed as failure:
                refused = (self._openai.BadRequestError, self._openai.UnprocessableEntityError)
                if not isinstance(failure.__cause__, refused):
                    raise
                reply = self._complete(request)  # where this works, it was the log-probabilities that are not known
                self._tells_logprobs = False
                return reply
        return self._complete(request)

    def _complete(self, request: Request, **more: Any) -> Reply:
        config = self._config
        if config.temperature is not None:
            more["temperature"] = config.temperature
        limit = LETTER_TOKENS if request.num_options else config.max_tokens
        message = {"role": "user", "content": content(request)}
        try:
            answer = self._client.chat.completions.create(
                model=config.model, messages=[message], max_tokens=limit, **more
            )
        except self._openai.OpenAIError as error:
            raise self._explained(error) from error
        except ValueError as error:  # JSON that is none
            raise QuestionFailed(f"the reply cannot be read: {error}") from error
        if not getattr(answer, "choices", None) or answer.choices[0].message is None:
            raise QuestionFailed("the endpoint answers with something that is no chat completion")
        choice = answer.choices[0]
        return Reply(choice.message.content or "", letters(choice.logprobs) if request.num_options else None)

    # ---------------------------------------------------------------------------------------------- errors

    def _explained(self, error: Exception) -> Exception:
        """QuestionFailed for what concerns one question, DataError for what concerns all of them."""
        library, endpoint = self._openai, self._config.endpoint
        said = self._said(error)
        if isinstance(error, (library.AuthenticationError, library.PermissionDeniedError)):
            return DataError(f"{WHERE}.api_key_env: {endpoint} refuses us ({said}). {self._about_the_key()}")
        if isinstance(error, library.NotFoundError):
            return DataError(
                f"{WHERE}.model: {endpoint} does not know {self._config.model!r} ({said}). {self._served()}"
            )
        if isinstance(error, library.RateLimitError):
            return DataError(
                f"{WHERE}.requests_per_minute: {endpoint} still refuses after {self._config.retries} repetitions ({said}). "
                "Lower requests_per_minute or concurrency, or check the account's quota, and run again; replies are kept."
            )
        if isinstance(error, library.APIConnectionError) and not isinstance(error, library.APITimeoutError):
            cause = error.__cause__ or error
            return DataError(
                f"{WHERE}.endpoint: {endpoint} cannot be reached ({self._hidden(str(cause))}). Start the server or correct the "
                "URL (it usually ends in /v1), and run again; replies so far are kept."
            )
        return QuestionFailed(said)

    def _said(self, error: Exception) -> str:
        message = " ".join(self._hidden(str(error)).split())
        return message.removeprefix("Error code: ")[:MOST_SAID]

    def _hidden(self, text: str) -> str:
        """Servers repeat a wrong key in their reply; we do not."""
        return text.replace(self._key, "***") if self._key else text

    def _about_the_key(self) -> str:
        name = self._config.api_key_env
        if name is None:
            return f"Put a key into an environment variable and name it: {WHERE}.api_key_env=OPENAI_API_KEY"
        return f"Put a valid key for this endpoint and model into the environment variable {name}."

    def _served(self) -> str:
        try:
            names = [model.id for model in self._client.models.list()]
        except Exception:  # the list is a courtesy
            return f"Correct the model's name, or {WHERE}.endpoint: it usually ends in /v1."
        return suggestion(str(self._config.model), names, label="Served there")


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise DataError(
            f"{WHERE}.api_key_env: the environment variable {variable} is not set. `export {variable}=...` before the run, "
            "name another one, or set null for a server that asks for no key."
        )
    return key


def _library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise DataError(
            f"{WHERE}: a teacher with an `endpoint` needs the openai package ({error}). Run: pip install 'cluenet[teacher]'"
        ) from error
    return openai


class Pacer:
    """Lets a request through every 60 / `per_minute` seconds; all at once for None. Called by the HTTP client."""

    def __init__(self, per_minute: float | None):
        self._gap_seconds = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def __call__(self, request: object) -> None:
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap_seconds
        time.sleep(max(0.0, turn - time.monotonic()))


def content(request: Request) -> str | list[dict[str, Any]]:
    """A message's content: every frame after its time, then the prompt; text alone stays a string."""
    if request.frames is None:
        return request.prompt
    parts: list[dict[str, Any]] = []
    for frame_HWC, seconds in zip(request.frames.frames_THWC, request.frames.seconds_T):
        parts.append({"type": "text", "text": f"Frame at {seconds:.2f} s:"})
        parts.append({"type": "image_url", "image_url": {"url": data_uri(frame_HWC)}})
    return [*parts, {"type": "text", "text": request.prompt}]


def data_uri(frame_HWC: Any) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def letters(logprobs: Any) -> dict[str, float] | None:
    """Log-probability of each letter where the reply has its first letter; None where that is not told."""
    for token in getattr(logprobs, "content", None) or ():
        if _letter(token.token) is None:
            continue
        found: dict[str, float] = {}
        for one in token.top_logprobs or [token]:
            if (letter := _letter(one.token)) is not None:  # "A" and " A" are one letter
                found[letter] = float(np.logaddexp(found.get(letter, -math.inf), one.logprob))
        return found or None
    return None


def _letter(token: str) -> str | None:
    letter = token.strip(ROUND_A_LETTER)
    return letter if len(letter) == 1 and letter in LETTERS else None


def few(frames: Frames, count: int) -> Frames:
    """At most `count` frames, evenly spread, first and last among them."""
    total = len(frames.frames_THWC)
    if total <= count:
        return frames
    indices = [total // 2] if count == 1 else [round(i * (total - 1) / (count - 1)) for i in range(count)]
    return Frames(frames.frames_THWC[indices], frames.seconds_T[indices], frames.duration_seconds)
