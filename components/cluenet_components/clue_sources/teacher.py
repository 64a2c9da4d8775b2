"""Clues and chains from a stronger model, for data that has none. See docs/teacher.md."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from cluenet.contracts import ClueSource
from cluenet.errors import DataError
from cluenet.records import Clue, Example, Frames
from cluenet.registry import ComponentConfig, register
from cluenet.steps import setting
from cluenet_components.clue_sources._teacher_cache import Memory, QuestionFailed, Request, Teacher
from cluenet_components.clue_sources._teacher_endpoint import EndpointTeacher, few
from cluenet_components.clue_sources._teacher_prompts import Prompts
from cluenet_components.clue_sources._teacher_replies import (
    LETTERS,
    BadReply,
    Reply,
    raises_answer,
    read_choice,
    read_proposal,
)

log = logging.getLogger("cluenet")

T = TypeVar("T")
R = TypeVar("R")

FAILURES_IN_A_ROW = 10
"""So many questions without a reply, one after the other, and the teacher is broken rather than the questions odd."""
JUDGED = ("kept", "dropped", "unparsable", "failed")
UNASKED = ("labelled", "unjudged")


@dataclass(frozen=True)
class Outcome:
    """What became of one question. `sent`: requests that were not remembered; `remembered`: those that were."""

    fate: str  # one of JUDGED or UNASKED
    example: Example
    sent: int = 0
    remembered: int = 0
    problem: str = ""


@register.clue_source("teacher")
class TeacherClues(ClueSource):
    """A stronger model proposes clues and a chain; kept only if they raise the right answer's probability.

    What the dataset labels itself is kept as it is. The teacher never sees the right answer; it is judged by it.
    """

    class Config(ComponentConfig):
        endpoint: str | None = setting(
            None, "none", description="URL of an OpenAI-compatible server, such as http://localhost:8000/v1."
        )
        model: str | None = Field(None, description="The model's name at the endpoint.")
        api_key_env: str | None = setting(
            None, "none", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
            description="Name of the environment variable that holds the endpoint's key; null: it asks for none.",
        )  # fmt: skip
        path: str | None = Field(
            None, description="Instead of an endpoint: a checkpoint folder in Hugging Face layout."
        )
        prompt: str | None = Field(
            None, description="Text file with a prompt of one's own, in place of the shipped one."
        )
        frames: int = Field(8, ge=1, description="How many of a clip's frames the teacher sees, at most.")
        max_clues: int = Field(4, ge=1, description="Most clues per question; a reply with more is not used.")
        keep_if: Literal["raises_answer", "all"] = Field(
            "raises_answer", description="Which clues are kept: those that make the right answer likelier, or all."
        )
        retries: int = Field(2, ge=0, description="How often a bad reply, or a request that fails, is tried again.")
        temperature: float | None = Field(0.0, ge=0, description="Sampling temperature; null: the endpoint's own.")
        max_tokens: int = Field(1024, ge=16, description="Longest reply, in tokens.")
        requests_per_minute: float | None = setting(None, "none", gt=0, description="Most requests; null: no limit.")
        concurrency: int = setting(4, "none", ge=1, description="Requests at a time.")
        timeout_seconds: float = setting(120.0, "none", gt=0, description="For one request to the endpoint.")

    config: Config
    sees_frames = True

    def __init__(self, config: Config):
        super().__init__(config)
        if found := wrong_settings(config):
            raise DataError("\n".join(found))
        self._fates: Counter[str] = Counter(dict.fromkeys((*JUDGED, *UNASKED), 0))
        self._costs: Counter[str] = Counter(dict.fromkeys(("asked", "from_cache", "requests"), 0))

    def sources(self) -> list[str]:
        """The prompts' texts and, for a folder, its weights. The endpoint may move: `model` says what answers."""
        weights = [str(self._teacher.identity())] if self.config.path is not None else []
        return [*self._prompts.sources(), *weights]

    def attach(self, example: Example) -> Example:
        """Unchanged: it is too early. But a key that is not there is told now and not after hours of decoding."""
        _ = self._teacher
        return example

    def attach_seen(self, seen: Iterable[tuple[Example, Frames]], folder: Path) -> Iterator[Example]:
        """Raises DataError when the teacher answers nobody: no such server, key or model, or one failure after another."""
        memory, failures, problem = Memory(self._teacher, folder), 0, ""
        for outcome in in_order(partial(self._outcome, memory), seen, workers=self.config.concurrency):
            self._count(outcome)
            failures = failures + 1 if outcome.fate == "failed" else 0
            problem = outcome.problem if failures else problem
            if failures == FAILURES_IN_A_ROW:
                raise DataError(
                    f"data.clue_source: the teacher failed at {failures} questions in a row; at {outcome.example.id}: "
                    f"{problem}. Look at the server's log and run again; replies so far are kept."
                )
            yield outcome.example
        if self._fates["failed"]:
            log.warning(
                "data.clue_source: %d questions stay without clues because the teacher failed at them, the last one with: %s. "
                "To ask again delete the prepared folder's manifest.json and run again; replies so far are kept.",
                self._fates["failed"], problem,
            )  # fmt: skip

    def summary(self) -> dict[str, int]:
        """How many questions were labelled by the dataset, could not be judged, and what became of the others."""
        return dict(self._fates)

    def costs(self) -> dict[str, int]:
        """Questions the teacher was asked about, those answered from the cache alone, and requests, of this run."""
        return dict(self._costs)

    def _count(self, outcome: Outcome) -> None:
        self._fates[outcome.fate] += 1
        self._costs["requests"] += outcome.sent
        if outcome.fate in JUDGED:
            self._costs["from_cache" if outcome.remembered and not outcome.sent else "asked"] += 1

    # ---------------------------------------------------------------------------------------- one question

    def _outcome(self, memory: Memory, pair: tuple[Example, Frames]) -> Outcome:
        example, frames = pair
        if example.clues is not None:
            return Outcome("labelled", example)
        if self.config.keep_if == "raises_answer" and not can_be_judged(example):
            return Outcome("unjudged", example)
        talk = Conversation(memory, self._prompts, self.config.retries)
        try:
            fate, labelled = self._labelled(talk, example, frames)
        except BadReply as error:
            return Outcome("unparsable", example, talk.sent, talk.remembered, str(error))
        except QuestionFailed as error:
            return Outcome("failed", example, talk.sent, talk.remembered, str(error))
        return Outcome(fate, labelled, talk.sent, talk.remembered)

    def _labelled(self, talk: Conversation, example: Example, frames: Frames) -> tuple[str, Example]:
        config, length = self.config, frames.duration_seconds
        prompt = self._prompts.clues(example, duration_seconds=length, max_clues=config.max_clues)
        read = partial(read_proposal, duration_seconds=length, max_clues=config.max_clues)
        proposal = talk.ask(Request(prompt, few(frames, config.frames)), lambda reply: read(reply.text))
        if config.keep_if == "raises_answer" and not self._helps(talk, example, proposal.clues):
            return "dropped", example
        clues = tuple(clue.shifted(example.video.start_seconds) for clue in proposal.clues)
        return "kept", example.with_clues(clues, example.chain or proposal.chain, example.distractors)

    def _helps(self, talk: Conversation, example: Example, clues: tuple[Clue, ...]) -> bool:
        number = len(example.options)
        blind, informed = (
            talk.ask(
                Request(self._prompts.answer(example, known), None, number), partial(read_choice, num_options=number)
            )
            for known in ((), clues)
        )
        return raises_answer(informed, blind, int(example.answer or 0))

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self.config.prompt)

    @cached_property
    def _teacher(self) -> Teacher:
        if self.config.path is None:
            return EndpointTeacher(self.config)
        from cluenet_components.clue_sources._teacher_local import LocalTeacher  # torch, only where it is needed

        return LocalTeacher(self.config.path, self.config.max_tokens)


class Conversation:
    """The requests about one question; each is repeated with what was wrong about the reply, `retries` times."""

    def __init__(self, memory: Memory, prompts: Prompts, retries: int):
        self._memory, self._prompts, self._retries = memory, prompts, retries
        self.sent = self.remembered = 0

    def ask(self, request: Request, read: Callable[[Reply], T]) -> T:
        """What `read` makes of the reply. Raises BadReply of the last one, QuestionFailed, DataError."""
        asked = request
        for attempt in range(1, self._retries + 1):
            reply = self._reply(asked)
            try:
                return read(reply)
            except BadReply as error:
                again = self._prompts.again(request.prompt, reply.text, error)
                asked = replace(request, prompt=again, attempt=attempt)
        return read(self._reply(asked))

    def _reply(self, request: Request) -> Reply:
        self.sent += 1
        reply, fresh = self._memory.ask(request)
        if not fresh:
            self.sent, self.remembered = self.sent - 1, self.remembered + 1
        return reply


def can_be_judged(example: Example) -> bool:
    """Only a right option can become likelier: not a hidden answer, nor an open-ended one."""
    return isinstance(example.answer, int) and len(example.options) <= len(LETTERS)


def wrong_settings(config: TeacherClues.Config) -> list[str]:
    """Every problem that concerns several settings at once."""
    found, where = [], "data.clue_source"
    if (config.endpoint is None) == (config.path is None):
        found.append(f"{where}: give `endpoint` and `model`, or `path` to a checkpoint folder, and not both.")
    if config.endpoint is not None and not config.endpoint.startswith(("http://", "https://")):
        found.append(f"{where}.endpoint: {config.endpoint!r} is no URL. Write it like http://localhost:8000/v1.")
    if config.endpoint is not None and not config.model:
        found.append(f"{where}.model: is required with `endpoint`. Name the model that the server serves.")
    if config.path is not None:
        names = ("model", "api_key_env", "requests_per_minute", "temperature")
        found += [
            f"{where}.{name}: {getattr(config, name)!r} is about an endpoint; a folder at `path` is asked without. Remove it."
            for name in names
            if getattr(config, name)
        ]
    return found


def in_order(function: Callable[[T], R], items: Iterable[T], *, workers: int) -> Iterator[R]:
    """`map` in threads: results in the order of the items, of which few are taken ahead; the first error ends it."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
