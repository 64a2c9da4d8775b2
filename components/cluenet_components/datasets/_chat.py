"""Conversations in the shapes of instruction-tuning files -> questions, answers and the videos they are about.

Shapes and where they come from:
    {"messages": [{"role": "user", "content": "<video>..."}, ...], "videos": [...]}      ms-swift, LLaMA-Factory (OpenAI)
    {"conversations": [{"from": "human", "value": "<video>..."}, ...], "videos": [...]}  LLaMA-Factory (ShareGPT)
    {"conversations": [...], "video": "a.mp4"}                                           LLaVA; "<image>" may stand for it
    {"messages": [{"role": "user", "content": [{"type": "video_url", ...}, ...]}]}       OpenAI, Qwen-VL, transformers
    {"question": "...", "video": "a.mp4", ...}                                           plain rows, e.g. MVBench
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluenet_components.datasets._rows import BadRowError, number_field, rate_field
from cluenet_components.datasets._videos import NamedVideo, named_videos

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
_PLACEHOLDER = re.compile(r"[ \t]*<(video|image)>[ \t]*")
_VIDEO_PARTS = ("video", "video_url")


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str | None  # None: nobody answers


@dataclass
class _Message:
    role: str
    text: str
    videos: list[NamedVideo] = field(default_factory=list)
    video_marks: int = 0  # places that say "the video comes here" without naming it
    image_marks: int = 0
    other_media: list[str] = field(default_factory=list)


def read_chat(row: Mapping[str, Any]) -> tuple[list[Turn], NamedVideo]:
    """The (user, assistant) pairs of a row and its one video; system messages are left out.

    A row without any placeholder is taken to show its video before the first question, as ms-swift does.
    Raises BadRowError with reason malformed, no_video, placeholder_mismatch, several_videos or unsupported_media.
    """
    messages = list(_messages(row))
    return _turns(messages), _one_video(row, messages)


def _messages(row: Mapping[str, Any]) -> Iterator[_Message]:
    key = next((key for key in ("messages", "conversations") if row.get(key)), None)
    if key is None:
        if not isinstance(row.get("question"), str):
            raise BadRowError("malformed", "no messages, conversations or question; one of them must be given")
        yield _message("user", row["question"])
        return
    if not isinstance(row[key], list):
        raise BadRowError("malformed", f"{key} must be a list, not {row[key]!r:.80}")
    for number, item in enumerate(row[key]):
        if not isinstance(item, Mapping):
            raise BadRowError("malformed", f"{key}.{number} must be an object, not {item!r:.80}")
        spoken_by = item.get("role", item.get("from"))
        if not isinstance(spoken_by, str) or spoken_by not in ROLES:
            raise BadRowError("malformed", f"{key}.{number}: role {spoken_by!r:.80} is none of {', '.join(ROLES)}")
        yield _message(ROLES[spoken_by], item.get("content", item.get("value")))


def _message(role: str, content: Any) -> _Message:
    message = _Message(role, "")
    texts = []
    for part in content if isinstance(content, list) else [content or ""]:
        texts.append(part if isinstance(part, str) else _read_part(part, message))
    text = "\n".join(text for text in texts if text)
    marks = [match[1] for match in _PLACEHOLDER.finditer(text)]
    message.video_marks += marks.count("video")
    message.image_marks += marks.count("image")
    message.text = _PLACEHOLDER.sub(" ", text).strip()
    return message


def _read_part(part: Any, message: _Message) -> str:
    """The text of one content part; media are noted in the message."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        raise BadRowError("malformed", f"a content part is text or an object with a type, not {part!r:.80}")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise BadRowError("malformed", f"a text part needs a text, not {part!r:.80}")
        return str(part["text"])
    if kind not in _VIDEO_PARTS:
        message.other_media.append(kind)
        return ""
    value = next((part[key] for key in ("video_url", "video", "path", "url") if part.get(key)), None)
    if value is None:
        message.video_marks += 1
        return ""
    fps, start, end = rate_field(part, "fps"), *(number_field(part, key) for key in ("video_start", "video_end"))
    message.videos += [NamedVideo(video.name, fps, start, end) for video in named_videos(value)]
    return ""


def _turns(messages: list[_Message]) -> list[Turn]:
    turns: list[Turn] = []
    question: str | None = None
    for message in messages:
        if message.role == "user":
            if question is not None:
                raise BadRowError("malformed", f"two user messages in a row: {question!r:.60}, {message.text!r:.60}")
            question = message.text
        elif message.role == "assistant":
            if question is None:
                raise BadRowError(
                    "malformed", f"the assistant speaks without a question before it: {message.text!r:.60}"
                )
            turns.append(Turn(question, message.text))
            question = None
    if question is not None:
        turns.append(Turn(question, None))
    if not turns:
        raise BadRowError("malformed", "no user message")
    return turns


def _one_video(row: Mapping[str, Any], messages: list[_Message]) -> NamedVideo:
    videos = [*named_videos(row.get("videos")), *named_videos(row.get("video"))]
    videos += [video for message in messages for video in message.videos]
    if not videos:
        raise BadRowError("no_video", "no video in videos, video or a content part of the messages")
    _check_placeholders(row, messages, len(videos))
    if len(videos) > 1:
        names = ", ".join(str(video.name) for video in videos)
        raise BadRowError("several_videos", f"{len(videos)} videos, a question can be about one: {names:.200}")
    return videos[0]


def _check_placeholders(row: Mapping[str, Any], messages: list[_Message], videos: int) -> None:
    images = [*_listed(row.get("images")), *_listed(row.get("image"))]
    audios = [*_listed(row.get("audios")), *_listed(row.get("audio"))]
    video_marks = sum(message.video_marks for message in messages)
    image_marks = sum(message.image_marks for message in messages)
    if not images:  # LLaVA-Video writes <image> where the video goes
        video_marks, image_marks = video_marks + image_marks, 0
    if video_marks not in (0, videos) or image_marks not in (0, len(images)):
        raise BadRowError(
            "placeholder_mismatch",
            f"{video_marks} <video> for {videos} videos, {image_marks} <image> for {len(images)} images; "
            "write as many placeholders as there are files, or none",
        )
    other = [kind for message in messages for kind in message.other_media]
    if images or audios or other:
        shown = sorted({*other, *(["images"] if images else []), *(["audios"] if audios else [])})
        raise BadRowError(
            "unsupported_media", f"besides its video the row shows {', '.join(shown)}; only a video can be used"
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in (None, "") else [value]
