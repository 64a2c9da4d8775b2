"""OpenAI's chat completions to a question about a video, and its answer back (platform.openai.com/docs/api-reference/chat).

video      the one `video_url` of the conversation, in whichever user message; the same one may be sent again
question   the text of the last message. Earlier turns stand before it, a line each: "system: ...", "user: ...",
           "assistant: ...", and the last one then begins with "user: " as well
options    of the last message, see `options_of`; then the reply is a letter, scored among the letters, with its
           log-probability. Without options the reply is written
"""

from __future__ import annotations

import re
from typing import Any

from cluenet.serve.errors import ServeError
from cluenet.serve.protocol import (
    ChatChoice,
    ChatRequest,
    ChatResponse,
    ChatUsage,
    Logprobs,
    Message,
    PromptDetails,
    ReplyMessage,
    TextPart,
    TokenLogprob,
    TopLogprob,
    VideoPart,
    VideoQAResponse,
)
from cluenet.serve.service import Outcome, ServedModel
from cluenet.serve.videoqa import response as videoqa_response

HARMLESS: dict[str, tuple[Any, ...]] = {
    "n": (1,), "temperature": (0,), "top_p": (1,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "logit_bias": ({},), "stop": ([],), "tools": ([],), "modalities": (["text"],), "response_format": ({"type": "text"},),
}  # fmt: skip
"""Values of fields that change nothing here, besides null."""
IGNORED = ("user", "metadata", "store", "seed", "service_tier", "safety_identifier", "prompt_cache_key")
_LINE = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_INLINE = re.compile(r"(?:^|(?<=\s))\(([A-Z])\)[ \t]+(\S.*?)(?=\s+\([A-Z]\)[ \t]|\s*$)", re.DOTALL)


def check(request: ChatRequest, model: str) -> None:
    """Raises ServeError for another model, and for a field that would have to be ignored although it asks for something."""
    if request.model != model:
        message = f"no model {request.model!r} here; this endpoint serves {model!r}"
        raise ServeError(404, "not_found_error", message, param="model", code="model_not_found")
    for name, value in (request.model_extra or {}).items():
        if name in IGNORED or value is None or value in HARMLESS.get(name, ()):
            continue
        allowed = " or ".join(map(repr, HARMLESS.get(name, ()))) or "nothing"
        message = f"{name} is not supported by this model: leave it out ({allowed} is accepted)"
        raise ServeError(400, "invalid_request_error", message, param=name, code="unsupported_parameter")
    if request.top_logprobs is not None and not request.logprobs:
        raise ServeError(400, "invalid_request_error", "top_logprobs needs logprobs: true", param="top_logprobs")


def video_of(request: ChatRequest) -> str:
    """URL of the conversation's video. Raises ServeError where there is none, or more than one."""
    urls = {
        part.video_url.url for message in request.messages for part in _parts(message) if isinstance(part, VideoPart)
    }
    if len(urls) == 1:
        return urls.pop()
    found = "no video" if not urls else f"{len(urls)} videos"
    message = (
        f'the conversation has {found}; send one {{"type": "video_url", "video_url": {{"url": ...}}}} in a user message'
    )
    raise ServeError(400, "invalid_request_error", message, param="messages")


def question_of(request: ChatRequest) -> tuple[str, tuple[str, ...]]:
    """(question with the turns before it, options). Raises ServeError where the last message asks nothing."""
    *before, last = request.messages
    if last.role != "user":
        message = f"the last message is of the {last.role}; it must be the user's question"
        raise ServeError(400, "invalid_request_error", message, param="messages")
    question, options = options_of(_text(last))
    if not question:
        raise ServeError(400, "invalid_request_error", "the last message has no question", param="messages")
    turns = [f"{message.role}: {text}" for message in before if (text := _text(message))]
    return ("\n".join((*turns, f"user: {question}")) if turns else question), options


def options_of(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, options) of a text that lists its options: at least two, lettered from A on in order, "(A) red", "A. red",
    "A) red" or "A: red" on lines of their own, or "(A) red (B) blue" in one line.

    Lines after the options say how to reply ("Answer with the letter only."): scoring the letters does that, so they are
    not read. A text without such a list is a question without options.
    """
    for pattern in (_LINE, _INLINE):
        found = list(pattern.finditer(text))
        letters = [next(group for group in match.groups()[:-1] if group) for match in found]
        if len(found) > 1 and letters == [chr(ord("A") + place) for place in range(len(found))]:
            question = text[: found[0].start()].strip()
            options = [match.groups()[-1].splitlines()[0].strip() for match in found]
            return re.sub(r"\s*\n\s*Options:$", "", question), tuple(options)
    return text.strip(), ()


def most_tokens(request: ChatRequest) -> int | None:
    return request.max_completion_tokens or request.max_tokens


def content_of(outcome: Outcome) -> str:
    """The reply: the letter of an option, or words."""
    index = outcome.reply.index
    return outcome.reply.answer if index is None else chr(ord("A") + index)


def response(request: ChatRequest, id_: str, outcome: Outcome, model: ServedModel, created: int) -> ChatResponse:
    choice = ChatChoice(
        message=ReplyMessage(content=content_of(outcome)), logprobs=logprobs(request, outcome),
        finish_reason=finish_reason(outcome),
    )  # fmt: skip
    return ChatResponse(
        id=id_, created=created, model=model.name, choices=[choice], usage=usage(outcome),
        system_fingerprint=model.fingerprint, cluenet=evidence(id_, outcome, model),
    )  # fmt: skip


def finish_reason(outcome: Outcome) -> str:
    return "length" if outcome.reply.cut else "stop"


def evidence(id_: str, outcome: Outcome, model: ServedModel) -> VideoQAResponse:
    return videoqa_response(id_, outcome, model, explain=True)


def usage(outcome: Outcome) -> ChatUsage:
    numbers, visual = dict(outcome.reply.usage), outcome.reply.usage["visual_tokens"]
    numbers.pop("visual_tokens")
    details = PromptDetails(visual_tokens=visual, cached_tokens=visual if outcome.reply.cached["clip"] else 0)
    return ChatUsage(**numbers, prompt_tokens_details=details)


def logprobs(request: ChatRequest, outcome: Outcome) -> Logprobs | None:
    """Of the letter that answers, among the letters of the options."""
    if not request.logprobs or outcome.reply.index is None:
        return None
    values = outcome.reply.option_logprobs
    letters = [_top(chr(ord("A") + place), value) for place, value in enumerate(values)]
    best = sorted(letters, key=lambda one: -one.logprob)[: request.top_logprobs or 0]
    chosen = letters[outcome.reply.index]
    return Logprobs(content=[TokenLogprob(**chosen.model_dump(), top_logprobs=best)])


def check_logprobs(request: ChatRequest, options: tuple[str, ...]) -> None:
    if request.logprobs and not options:
        message = (
            "log-probabilities are of options, and this question has none. List them in the text, as (A) ... (B) ..., or "
            "leave logprobs out"
        )
        raise ServeError(400, "invalid_request_error", message, param="logprobs", code="unsupported_parameter")


def _top(token: str, logprob: float) -> TopLogprob:
    return TopLogprob(token=token, logprob=logprob, bytes=list(token.encode()))


def _parts(message: Message) -> list[TextPart | VideoPart]:
    return [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content


def _text(message: Message) -> str:
    return "\n".join(part.text for part in _parts(message) if isinstance(part, TextPart)).strip()
