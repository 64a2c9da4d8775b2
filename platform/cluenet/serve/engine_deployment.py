"""A replica that answers: the model with its engine, the clips that it has watched and the frames that it may watch again."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable

import torch

from cluenet.ask import example_of
from cluenet.config.serve import ServeSection
from cluenet.decoding import decode_frames
from cluenet.errors import CluenetError, DataError
from cluenet.model.checkpoint import load_model
from cluenet.model.engine.answering import MOST_TOKENS
from cluenet.model.engine.cache import ByteCache
from cluenet.model.engine.engine import Answered, ClipNotKeptError, Engine, Question
from cluenet.plain import clue_row
from cluenet.records import Example, Frames
from cluenet.serve.errors import ServeError
from cluenet.serve.messages import Asked, ClipFacts, EncodedClip, EngineReply, FramesWanted, Reply
from cluenet.serve.metrics import EngineMetrics, Family, replica_id

FACTS_BYTES = 16 << 20
"""Budget of what is remembered of clips besides what was watched: times of frames."""
logger = logging.getLogger("ray.serve")


class EngineReplica:
    """Answers the questions of all clients together. Refusals are returned."""

    def __init__(self, model: str, section: ServeSection):
        torch.set_num_threads(section.threads)
        device = "cuda" if section.engine.gpu else "cpu"
        self.engine = Engine(
            load_model(model, device=device).prune(section.pruning), device=device, clip_bytes=section.clip_cache_bytes,
            most_questions=section.most_questions,
        )  # fmt: skip
        self.frames: ByteCache[EncodedClip] = ByteCache(section.frame_cache_bytes, lambda clip: len(clip.blob))
        self.facts: ByteCache[ClipFacts] = ByteCache(FACTS_BYTES, lambda facts: 200 + 8 * len(facts.frame_seconds))
        self.numbers = EngineMetrics()

    async def ask(self, asked: Asked, clip: EncodedClip | None = None) -> EngineReply:
        """FramesWanted where the clip must be decoded first: ask again with `clip`."""
        return await self._guarded(asked, clip, None)

    async def stream(self, asked: Asked, clip: EncodedClip | None = None) -> AsyncIterator[str | EngineReply]:
        """New words of an open answer as they are written, and then what `ask` returns."""
        words: asyncio.Queue[str | None] = asyncio.Queue()
        loop, sent = asyncio.get_running_loop(), ""
        task = asyncio.create_task(
            self._guarded(asked, clip, lambda text: loop.call_soon_threadsafe(words.put_nowait, text))
        )
        task.add_done_callback(lambda _: words.put_nowait(None))
        try:
            while (text := await words.get()) is not None:
                # a character that is not whole yet is shown as U+FFFD: wait for the rest of it
                if text.startswith(sent) and len(text) > len(sent) and not text.endswith("\ufffd"):
                    yield text[len(sent) :]
                    sent = text
            reply = await task
            if isinstance(reply, Reply) and reply.index is None and (rest := _rest(reply.answer, sent)):
                yield rest
            yield reply
        finally:
            task.cancel()

    def metrics(self) -> tuple[str, list[Family]]:
        """Which replica this is, and its numbers as of now."""
        caches = {"clips": self.engine.clips.stats, "frames": self.frames.stats}
        waiting, writing = self.engine.waiting, self.engine.writing
        return replica_id(), self.numbers.families(waiting=waiting, writing=writing, caches=caches)

    def check_health(self) -> None:
        if not self.engine.running:
            raise RuntimeError("the engine's thread has ended")

    def __del__(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close()

    # ------------------------------------------------------------------------------------------- inside
    async def _guarded(
        self, asked: Asked, clip: EncodedClip | None, on_text: Callable[[str], None] | None
    ) -> EngineReply:
        try:
            return await self._answer(asked, clip, on_text)
        except ServeError as error:
            return error
        except DataError as error:  # the model has no letters, or no words, for this question
            return ServeError(400, "invalid_request_error", str(error), param="question")
        except Exception as error:  # its message may have the client's words: the log gets the place alone
            logger.error(
                "%s: %s\n%s", asked.id, type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            return ServeError(500, "server_error", f"the model failed; the server's log has more about {asked.id}")

    async def _answer(
        self, asked: Asked, clip: EncodedClip | None, on_text: Callable[[str], None] | None
    ) -> EngineReply:
        example = _example(asked)
        found = await self._frames(asked, clip)
        if isinstance(found, FramesWanted):
            return found
        frames, cached = found
        question = Question(asked.clip.key, example, frames, on_text, asked.most_tokens or MOST_TOKENS, asked.utilities)
        try:
            answered = await asyncio.wrap_future(self.engine.submit(question))
        except ClipNotKeptError:  # it went while the question waited
            return await self._again(asked, clip, on_text)
        self.numbers.answered(answered)
        return self._reply(asked, example, answered, cached)

    async def _again(
        self, asked: Asked, clip: EncodedClip | None, on_text: Callable[[str], None] | None
    ) -> EngineReply:
        clip = clip or self.frames.get(asked.clip.key)
        return FramesWanted() if clip is None else await self._answer(asked, clip, on_text)

    async def _frames(self, asked: Asked, clip: EncodedClip | None) -> tuple[Frames | None, bool] | FramesWanted:
        """Frames to watch, None where the engine has watched them; and whether they were at hand."""
        key, cached = asked.clip.key, clip is None
        if clip is not None:
            self.frames.put(key, clip)
        if self.engine.keeps(key) and key in self.facts:
            return None, cached
        clip = clip or self.frames.get(key)
        if clip is None:
            return FramesWanted()
        frames = await asyncio.to_thread(decode_frames, clip.blob)
        self.facts.put(key, ClipFacts(tuple(frames.seconds_T.tolist()), frames.duration_seconds, clip.reader))
        return frames, cached

    def _reply(self, asked: Asked, example: Example, answered: Answered, cached: bool) -> EngineReply:
        facts = self.facts.get(asked.clip.key)
        if facts is None:
            return FramesWanted()
        answer, worth = answered.answer, answered.utilities
        index = answer.prediction if isinstance(answer.prediction, int) else None
        words = str(answer.prediction) if index is None else example.options[index]
        rows = [clue_row(clue, asked.clip.start_seconds) for clue in answer.clues]
        utilities = worth or [None] * len(rows)
        written = self._tokens(answer.reply or "") if index is None else 1
        return Reply(
            answer=words, index=index, option_logprobs=answer.option_logprobs if example.options else (),
            clues=tuple({**row, "utility": value} for row, value in zip(rows, utilities, strict=True)),
            chain=answer.chain, facts=facts, cached={"frames": cached, "clip": answered.kept},
            seconds=answered.seconds, usage=self._usage(asked, answered, written),
            cut=index is None and written >= (asked.most_tokens or MOST_TOKENS),
        )  # fmt: skip

    def _usage(self, asked: Asked, answered: Answered, written: int) -> dict[str, int]:
        prompt = answered.visual_tokens + self._tokens("\n".join((asked.question, *asked.options)))
        written += self._tokens(answered.answer.chain or "")
        return {
            "visual_tokens": answered.visual_tokens, "prompt_tokens": prompt, "completion_tokens": written,
            "total_tokens": prompt + written,
        }  # fmt: skip

    def _tokens(self, text: str) -> int:
        return len(self.engine.model.vlm.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0


def _example(asked: Asked) -> Example:
    clip = asked.clip
    try:
        return example_of(asked.clip.path, asked.question, asked.options, clip.start_seconds, clip.end_seconds)
    except CluenetError as error:
        raise ServeError(400, "invalid_request_error", str(error), param="question") from None


def _rest(answer: str, sent: str) -> str:
    return answer[len(sent) :] if answer.startswith(sent) else ""
