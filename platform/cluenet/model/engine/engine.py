"""The inference engine: clips watched once, questions of anybody answered together, new ones let in while others run.

One thread owns the model. In every round it lets in the questions that wait, watches the clips that are not kept, extracts and
filters clues and scores options in one pass over all of them; texts (chains, open answers) grow by one token per round, so
that nobody waits for the end of somebody else's. An answer is the same, up to float rounding, whoever else asks at the time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from cluenet.config.pruning import Pruning
from cluenet.errors import CluenetError
from cluenet.model.engine.answering import MOST_TOKENS, Answering, Asked, Utilities
from cluenet.model.engine.cache import ByteCache
from cluenet.model.engine.clips import Watched, watch
from cluenet.model.pipeline import ClueNet
from cluenet.records import Answer, Example, Frames

CLIP_BYTES = 1 << 30
MOST_QUESTIONS = 64


class ClipNotKeptError(CluenetError):
    """The question came without frames, and its clip is not, or no longer, in the cache: decode it and ask again."""


@dataclass(frozen=True)
class Question:
    """`clip`: an exact key of what the model saw: content, bounds and frame policy. `frames`: needed where it is not kept.
    `on_text`: gets an open answer as it grows, from the engine's thread. `most_tokens`: of an open answer. `utilities`: also
    measure what every clue is worth, one more answer pass per clue slot."""

    clip: Hashable
    example: Example
    frames: Frames | None = None
    on_text: Callable[[str], None] | None = None
    most_tokens: int = MOST_TOKENS
    utilities: bool = False


@dataclass(frozen=True)
class Answered:
    """An answer, and what it took. `seconds`: {wait, watch, answer}; watching takes none where the clip was kept.

    `utilities`: of every stated clue, what leaving it out does to the log-probability of the given answer, in nats. None
    where they were not asked for, or nothing was answered. `together`: questions that were let in with this one."""

    answer: Answer
    kept: bool  # the clip had been watched before
    visual_tokens: int
    seconds: dict[str, float]
    utilities: Utilities = None
    together: int = 1


@dataclass(eq=False)
class _Request:
    question: Question
    future: Future[Answered] = field(default_factory=Future)
    asked_at: float = field(default_factory=time.perf_counter)
    taken_at: float = 0.0
    watch_seconds: float = 0.0
    kept: bool = True
    together: int = 1

    def finish(self, answer: Answer, utilities: Utilities, clip: Watched) -> None:
        if self.future.done():
            return
        waited, now = self.taken_at - self.asked_at, time.perf_counter()
        seconds = {"wait": waited, "watch": self.watch_seconds, "answer": now - self.taken_at - self.watch_seconds}
        self.future.set_result(Answered(answer, self.kept, clip.grid.tokens, seconds, utilities, self.together))

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Engine:
    """Answers questions with one model in one process. `close` it, or use it in a `with` block."""

    def __init__(
        self, model: ClueNet, *, device: str = "cpu", clip_bytes: int = CLIP_BYTES, most_questions: int = MOST_QUESTIONS
    ):  # fmt: skip
        """clip_bytes: budget of watched clips. most_questions: that are let in together, and whose texts grow at a time."""
        self.model, self.device, self.most_questions = model.to(device).eval(), device, most_questions
        self.clips: ByteCache[Watched] = ByteCache(clip_bytes, lambda clip: clip.bytes)
        self._answering = Answering(self.model, device)
        self._waiting: deque[_Request] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------- for callers
    def submit(self, question: Question) -> Future[Answered]:
        """The answer as a future; one that still waits can be cancelled. It raises ClipNotKeptError, DataError for a question
        that the model has no letters for, or what went wrong. Raises RuntimeError when the engine is closed."""
        request = _Request(question)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._waiting.append(request)
            self._changed.notify()
        return request.future

    def answer(self, questions: Iterable[Question]) -> list[Answered]:
        """All answers, in order; raises what the first failed one raises."""
        return [future.result() for future in [self.submit(question) for question in questions]]

    def keeps(self, clip: Hashable) -> bool:
        """Whether questions about it need no frames now."""
        return self._key(clip) in self.clips

    @property
    def waiting(self) -> int:
        """Questions that were not let in yet."""
        return len(self._waiting)

    @property
    def writing(self) -> int:
        """Texts that are being written."""
        return self._answering.count

    @property
    def running(self) -> bool:
        """Whether questions are answered: not after `close`, or where the thread has ended by a mistake of ours."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends after the round that runs. Questions that wait are cancelled, texts that are being written fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------------- the thread
    def _run(self) -> None:
        while (taken := self._take()) is not None:
            self._start([one for one in taken if one.future.set_running_or_notify_cancel()])
            self._answering.step()
        self._answering.fail(RuntimeError("the engine was closed"))
        for one in self._waiting:
            one.future.cancel()

    def _take(self) -> list[_Request] | None:
        """Waits until there is something to do; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self.writing)
            if self._closed:
                return None
            room = min(self.most_questions - self.writing, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(room)]
        for one in taken:
            one.taken_at, one.together = time.perf_counter(), room
        return taken

    def _start(self, taken: Sequence[_Request]) -> None:
        clips = self._watched(taken)
        self._answering.start([
            Asked(
                clip := clips[one.question.clip], one.question.example,
                lambda answer, utilities, one=one, clip=clip: one.finish(answer, utilities, clip),  # type: ignore[misc]
                one.fail, one.question.on_text, one.question.most_tokens, one.question.utilities,
            )
            for one in taken if one.question.clip in clips
        ])  # fmt: skip

    def _key(self, clip: Hashable) -> tuple[Hashable, Pruning]:
        """What is kept of a clip depends on what answers see of it."""
        return clip, self.model.pruning

    def _watched(self, taken: Sequence[_Request]) -> dict[Hashable, Watched]:
        """By key; requests whose clip cannot be had fail."""
        found: dict[Hashable, Watched] = {}
        missing: dict[Hashable, list[_Request]] = {}
        for one in taken:
            key = one.question.clip
            if key not in found and key not in missing and (clip := self.clips.get(self._key(key))) is not None:
                found[key] = clip
            if key not in found:
                missing.setdefault(key, []).append(one)
        return found | self._watch(missing)

    def _watch(self, missing: dict[Hashable, list[_Request]]) -> dict[Hashable, Watched]:
        frames = {
            key: next((f for one in ones if (f := one.question.frames) is not None), None)
            for key, ones in missing.items()
        }
        for key in [key for key, one in frames.items() if one is None]:
            for request in missing.pop(key):
                request.fail(
                    ClipNotKeptError(f"clip {key}: not kept, and the question brings no frames. Decode it again.")
                )
        return self._watch_all(missing, {key: one for key, one in frames.items() if one is not None})

    def _watch_all(
        self, missing: dict[Hashable, list[_Request]], frames: dict[Hashable, Frames]
    ) -> dict[Hashable, Watched]:
        """In one pass; where that fails one by one."""
        if not frames:
            return {}
        started = time.perf_counter()
        try:
            found = dict(zip(frames, watch(self.model, list(frames.values()), device=self.device)))
        except Exception as error:
            if len(frames) > 1:
                parts = [self._watch_all(missing, {key: one}) for key, one in frames.items()]
                return {key: clip for part in parts for key, clip in part.items()}
            for request in missing[next(iter(frames))]:
                request.fail(error)
            return {}
        for key, clip in found.items():
            self.clips.put(self._key(key), clip)
            for request in missing[key]:
                request.kept, request.watch_seconds = False, time.perf_counter() - started
        return found
