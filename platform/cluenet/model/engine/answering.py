"""From clips that were watched to answers: clues and scores in one pass, texts token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from cluenet.config.pruning import NoPruning
from cluenet.model import evidence
from cluenet.model.batch import Batch
from cluenet.model.chains import MOST_CHAIN_TOKENS
from cluenet.model.engine.clips import Watched, together
from cluenet.model.evidence import Evidence
from cluenet.model.generate import Writing
from cluenet.model.pipeline import ClueNet
from cluenet.model.predict import answers_of
from cluenet.model.prefix import Prefix
from cluenet.model.pruning import pruned
from cluenet.model.utilities import all_slots
from cluenet.model.writing import Text, Writer
from cluenet.records import Answer, Example

MOST_TOKENS = Writing().most_tokens


Utilities: TypeAlias = tuple[float, ...] | None


@dataclass(eq=False)
class Asked:
    """One question on its way. `finish` or `fail` is called once, `on_text` with an open answer as it grows."""

    clip: Watched
    example: Example
    finish: Callable[[Answer, Utilities], None]
    fail: Callable[[Exception], None]
    on_text: Callable[[str], None] | None = None
    most_tokens: int = MOST_TOKENS
    utilities: bool = False


@dataclass(eq=False)
class _Writing:
    """A question whose text is being written. `answer` lacks what is not known yet."""

    asked: Asked
    answer: Answer
    clues_11KWD: Tensor
    chain: list[int] | None = None  # finished; None while a model that writes chains writes it


class Answering:
    """The questions that are being answered with one model."""

    def __init__(self, model: ClueNet, device: str):
        self.model, self.device, self.writer = model, device, Writer(model.vlm)

    @property
    def count(self) -> int:
        return self.writer.running

    def start(self, asked: Sequence[Asked]) -> None:
        """Answers the questions whose options are scored at once, begins the texts of the others."""
        writes = [one for one in asked if self.model.reasoner.config.generate_chain or not one.example.options]
        self._each_or_all([one for one in asked if one not in writes], self._score)
        self._each_or_all(writes, self._begin)

    def step(self) -> None:
        """One token of every text that is being written, and what follows from those that ended."""
        try:
            ended = self.writer.step()
        except Exception as error:  # its rows cannot be trusted any more: their texts fail, the engine goes on
            self.fail(error)
            return
        self._ended(ended)

    def fail(self, error: Exception) -> None:
        """Give up everything that is being written."""
        for text in self.writer.drop_all():
            text.name.asked.fail(error)

    def _each_or_all(self, asked: Sequence[Asked], work: Callable[[Sequence[Asked]], None]) -> None:
        """All in one pass; where that fails one by one, so that only whose fault it is fails."""
        if not asked:
            return
        try:
            with self.model.inference():
                work(asked)
        except Exception as error:
            if len(asked) == 1:
                asked[0].fail(error)
                return
            for one in asked:
                self._each_or_all([one], work)

    # ---------------------------------------------------------------------------------------- passes
    def _score(self, asked: Sequence[Asked]) -> None:
        batch, prefix, read, places = self._read(asked)
        hidden = self.model.reason(batch, prefix, read.embeds_BQKWD)
        answers = answers_of(self.model, batch, read, self.model.option_logprobs(batch, hidden), {})
        for one, answer in zip(places, answers, strict=True):
            self._finish(one, answer)

    def _begin(self, asked: Sequence[Asked]) -> None:
        """Questions that write: a chain, or an open answer."""
        batch, prefix, read, places = self._read(asked)
        unknown = read.embeds_BQKWD.new_zeros(*batch.valid_BQ.shape, int(max(1, batch.labels.num_options_BQ.max())))
        answers = answers_of(self.model, batch, read, unknown, _Nothing())
        cells = [(b, q) for b, clip in enumerate(batch.clips) for q in range(len(clip))]
        writing = [
            _Writing(one, answer, read.embeds_BQKWD[b, q][None, None])
            for one, answer, (b, q) in zip(places, answers, cells, strict=True)
        ]
        chains = self.model.reasoner.config.generate_chain
        last = batch.answer.chain_index_BQ if chains else batch.answer.answer_index_BQ
        self._write(batch, prefix, read.embeds_BQKWD, last, writing)

    def _write(
        self, batch: Batch, prefix: Prefix | None, clues_BQKWD: Tensor, last_BQ: Tensor, writing: Sequence[_Writing]
    ) -> None:
        queue = iter(writing)
        texts = [
            [self._text(next(queue)) if q < len(clip) else None for q in range(last_BQ.shape[1])]
            for clip in batch.clips
        ]
        embeds = self.model.answer_inputs(batch, clues_BQKWD)
        self._ended(self.writer.begin(batch.answer.packed, embeds, self.model.seen(prefix), last_BQ, texts))

    def _text(self, one: _Writing) -> Text:
        most = MOST_CHAIN_TOKENS if self._writes_chain(one) else one.asked.most_tokens
        return Text(one, most, self._listener(one))

    def _listener(self, one: _Writing) -> Callable[[list[int]], None] | None:
        if one.asked.on_text is None or self._writes_chain(one):
            return None
        return lambda tokens: self._tell(one.asked, tokens)

    def _tell(self, asked: Asked, tokens: list[int]) -> None:
        """What a listener raises fails its own question only."""
        try:
            if asked.on_text is not None:
                asked.on_text(self._words(tokens))
        except Exception as error:
            asked.fail(error)

    def _writes_chain(self, one: _Writing) -> bool:
        return self.model.reasoner.config.generate_chain and one.chain is None

    def _ended(self, texts: Sequence[Text]) -> None:
        chains = []
        for text in texts:
            one: _Writing = text.name
            if self._writes_chain(one):
                one.chain, one.answer = text.tokens, replace(one.answer, chain=self._words(text.tokens))
                chains.append(one)
            else:
                words = self._words(text.tokens)
                self._finish(one.asked, replace(one.answer, prediction=words, reply=words))
        if chains:
            self._after_chains(chains)

    def _after_chains(self, writing: Sequence[_Writing]) -> None:
        """Answers that rest on finished chains: options are scored, open ones begin to be written."""
        for one in writing:
            try:
                with self.model.inference():
                    self._after_chain(one)
            except Exception as error:
                one.asked.fail(error)

    def _after_chain(self, one: _Writing) -> None:
        whole = isinstance(self.model.pruning, NoPruning)  # else which tokens are kept must be looked up again
        batch, prefix, *_ = self._batch([one.asked]) if whole else self._read([one.asked])
        batch = self.model.collator.with_chains(batch, [[one.chain or []]])
        if not one.asked.example.options:
            self._write(batch, prefix, one.clues_11KWD, batch.answer.answer_index_BQ, [one])
            return
        logprobs_A = self.model.option_logprobs(batch, self.model.reason(batch, prefix, one.clues_11KWD))[0, 0]
        values = tuple(logprobs_A[: len(one.asked.example.options)].tolist())
        self._finish(one.asked, replace(one.answer, prediction=int(logprobs_A.argmax()), option_logprobs=values))

    # --------------------------------------------------------------------------------- what clues are worth
    def _finish(self, one: Asked, answer: Answer) -> None:
        try:
            utilities = self._utilities(one, answer) if one.utilities else None
        except Exception as error:
            one.fail(error)
            return
        one.finish(answer, utilities)

    def _utilities(self, one: Asked, answer: Answer) -> Utilities:
        """What leaving out each stated clue does to the log-probability of the given answer, in nats: 0 for a dropped one.
        None for an answer without words."""
        if answer.prediction in (None, ""):
            return None
        asked = replace(one, example=replace(one.example, answer=answer.prediction))
        with self.model.inference():
            batch, prefix, read, _ = self._read([asked])
            if not read.present_BQK.any():
                return ()
            slots = all_slots(read.present_BQK)
            found = self.model.probe(batch, prefix).utilities(read.embeds_BQKWD, slots, kind="leave_one_out")
        return tuple(found[0, 0][read.present_BQK[0, 0]].tolist())

    # ---------------------------------------------------------------------------------------- pieces
    def _batch(self, asked: Sequence[Asked]) -> tuple[Batch, Prefix | None, list[Asked]]:
        """Questions of one clip in one row; and the questions in the order of the batch's examples."""
        by_clip: dict[int, list[Asked]] = {}
        for one in asked:
            by_clip.setdefault(id(one.clip), []).append(one)
        groups = list(by_clip.values())
        clips = [group[0].clip for group in groups]
        prompt, prefix = together(clips)
        examples = [[one.example for one in group] for group in groups]
        batch = self.model.collator.questions(prompt, [clip.grid for clip in clips], examples)
        return batch.to(self.device), prefix, [one for group in groups for one in group]

    def _read(self, asked: Sequence[Asked]) -> tuple[Batch, Prefix | None, Evidence, list[Asked]]:
        """The same with the clues that the answer pass reads, and with what it sees of the video."""
        batch, prefix, places = self._batch(asked)
        read = evidence.for_row(self.model, "own", batch, self.model.look_through(batch, prefix), 0)
        return *pruned(self.model, batch, prefix, read), places

    def _words(self, tokens: list[int]) -> str:
        text: str = self.model.vlm.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()


class _Nothing(dict[tuple[int, int], str]):
    """Texts that are not written yet."""

    def __missing__(self, key: tuple[int, int]) -> str:
        return ""
