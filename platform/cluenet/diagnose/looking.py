"""Asks a model, and keeps what it saw of each question: attention, what the layers say, and vectors of everything in play.

All through the adapter of `cluenet.model`, so that every backbone, with or without clues, is looked at in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluenet.diagnose.questions import Source
from cluenet.evaluate.batches import BatchEvaluator, Part
from cluenet.evaluate.option_order import stored_record
from cluenet.evaluate.samples import Sample
from cluenet.metrics.grounding import pointing
from cluenet.model import diagnostics
from cluenet.model.attention_map import at_visual_tokens, attention_map
from cluenet.model.batch import Batch
from cluenet.model.diagnostics import Place
from cluenet.model.evidence import Evidence
from cluenet.model.grid import Grid
from cluenet.model.pipeline import Look
from cluenet.records import Clue

ANSWER_LAYER = 0.5
"""Whose attention is read where a model states no clues, as a fraction of the depth: where MLLMs look at what a question is
about (Zhang et al., arXiv 2502.17422)."""
TOKENS_EACH = 3
"""Visual tokens of a question that stand in the map, inside labelled boxes and outside."""


@dataclass(frozen=True)
class Gaze:
    """One look at the video: of a stated clue, or of the answer. None: no labelled clue has a box."""

    text: str
    kept: bool
    attention_N: np.ndarray
    pointing: bool | None
    pointing_chance: float | None
    energy: dict[str, float] | None  # {share, chance}, see `model.diagnostics`


@dataclass(frozen=True)
class Vectors:
    """In the language model's input space, where the projector puts visual tokens beside words; means over a text's tokens."""

    question_D: np.ndarray
    options_AD: np.ndarray  # in the stored order
    clues_KD: np.ndarray
    clue_texts: list[str]
    inside_ND: np.ndarray  # some visual tokens on labelled boxes, with their places
    outside_ND: np.ndarray
    inside_D: np.ndarray | None  # the mean of all of them; None without boxes
    outside_D: np.ndarray | None


@dataclass(frozen=True)
class Seen:
    """One question. `lens` and `nearest` are what `model.diagnostics` calls `lens` and `proximity`."""

    sample: Sample
    grid: Grid
    clues: list[Clue]  # labelled, on the clip's clock
    regions: list[np.ndarray]  # bool [N] of each labelled clue: the visual tokens that its boxes touch
    gazes: list[Gaze]
    lens: dict[str, Any]
    nearest: list[float] | None
    tops_LN: np.ndarray | None  # first word of every visual token after every layer; None without boxes
    vectors: Vectors

    def as_sample(self) -> Sample:
        """As `metrics.biases` takes it."""
        looks = [{"pointing": one.pointing, "pointing_chance": one.pointing_chance} for one in self.gazes]
        energies = [gaze.energy for gaze in self.gazes]
        found = {"energy": energies, "lens": self.lens, "proximity": self.nearest}
        return {**self.sample, "clues": looks, "diagnostics": found}


class Looker:
    """One model. Raises CheckpointError when it cannot be loaded."""

    def __init__(self, source: Source):
        self.prepared = source.prepared
        self.evaluator = BatchEvaluator(source.model, source.asking)
        self.model = self.evaluator.model

    @property
    def of(self) -> str | None:
        """Whose attention is looked at: `clue`, `answer`, or None for a model without either."""
        if self.states_clues:
            return "clue"
        return "answer" if self.model.reasoner.sees_video else None

    @property
    def answer_layer(self) -> int:
        return max(1, round(ANSWER_LAYER * self.model.vlm.layers))

    @property
    def states_clues(self) -> bool:
        return bool(self.model.extracts)

    def word(self, token: int) -> str:
        """As it can be shown: a token of white space or of half a letter by its name."""
        tokenizer = self.model.vlm.tokenizer
        text = tokenizer.decode([token]).strip()
        return text if text.isprintable() and text else str(tokenizer.convert_ids_to_tokens(token))

    def __call__(self, parts: Sequence[Part]) -> list[Seen]:
        """Raises DataError when the prepared set is damaged, CheckpointError when the model's numbers are not finite."""
        samples, shown, look = self.evaluator.asked(self.prepared, parts)
        batch, model = shown.batch, self.model
        with model.inference():
            own, tops_BLNC = model.own_evidence(batch, look), diagnostics.lens_tops(model, batch)
            visual_BND = model.vlm.prefix(batch.prefix, layer=0, whole=False).visual_BND
            answer_BQN = self._answer_attention(batch, look, own) if self.of == "answer" else None
            return [
                self._seen(place, sample, order, own, tops_BLNC[place.b], visual_BND[place.b], answer_BQN)
                for place, sample, order in zip(diagnostics.places(batch), samples, shown.orders, strict=True)
            ]

    def _answer_attention(self, batch: Batch, look: Look, own: Evidence) -> Tensor:
        """[B, Q, N] how much the token before each answer looks at the visual tokens."""
        rows, embeds = batch.answer.packed, self.model.answer_inputs(batch, own.embeds_BQKWD)
        assert look.prefix is not None
        seen_BLS = attention_map(
            self.model.vlm, embeds, rows.positions_BL, rows.allowed_BLL, prefix=look.prefix, layer=self.answer_layer
        )
        return at_visual_tokens(seen_BLS, batch.answer.answer_index_BQ, batch.prefix)

    def _seen(
        self, place: Place, sample: Sample, order: tuple[int, ...], own: Evidence, tops_LNC: Tensor | None, visual_ND: Tensor,
        answer_BQN: Tensor | None,
    ) -> Seen:  # fmt: skip
        tokens, regions = place.grid.tokens, [diagnostics.region(clue, place.grid).cpu() for clue in place.clues]
        nearest = stored_record({"proximity": diagnostics.proximity(self.model, own, place)}, order)["proximity"]
        return Seen(
            sample, place.grid, place.clues, [region_N.numpy() for region_N in regions],
            self._gazes(place, sample, own, regions, answer_BQN), diagnostics.lens_words(self.model.vlm, place, tops_LNC),
            nearest, None if tops_LNC is None else tops_LNC[:, :tokens, 0].numpy(),
            self._vectors(place, sample, own, regions, visual_ND[:tokens].float().cpu()),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ attention
    def _gazes(
        self, place: Place, sample: Sample, own: Evidence, regions: list[Tensor], answer_BQN: Tensor | None
    ) -> list[Gaze]:
        if answer_BQN is not None:
            return [self._answer_gaze(place, regions, answer_BQN[place.b, place.q, : place.grid.tokens].float().cpu())]
        return self._clue_gazes(place, sample, own) if self.of == "clue" else []

    def _clue_gazes(self, place: Place, sample: Sample, own: Evidence) -> list[Gaze]:
        assert own.attention_BQKN is not None
        said_K = own.present_BQK[place.b, place.q]
        maps = own.attention_BQKN[place.b, place.q, said_K, : place.grid.tokens].float().cpu()
        return [
            Gaze(clue["text"], clue["kept"], attention_N.numpy(), clue["pointing"], clue["pointing_chance"], found)
            for clue, attention_N, found in zip(
                sample["clues"], maps, diagnostics.energies(self.model, own, place), strict=True
            )
        ]

    def _answer_gaze(self, place: Place, regions: list[Tensor], attention_N: Tensor) -> Gaze:
        grid, boxes = place.grid, [box for clue in place.clues for box in clue.boxes]
        shape = (grid.blocks, grid.rows, grid.cols)
        hit, likely = pointing(attention_N.tolist(), shape, boxes, grid.seconds) if boxes else (None, None)
        return Gaze(
            "answer", True, attention_N.numpy(), hit, likely, diagnostics.energy(attention_N, union(regions, grid))
        )

    # -------------------------------------------------------------------------------------------- vectors
    def _vectors(
        self, place: Place, sample: Sample, own: Evidence, regions: list[Tensor], visual_ND: Tensor
    ) -> Vectors:
        ids = self.model.vlm.ids
        clues = (
            self._stated(place, own) if self.states_clues else [(one.text, ids(f" {one.text}")) for one in place.clues]
        )
        inside_N = union(regions, place.grid)
        return Vectors(
            self._mean(ids(place.example.question)), self._means([ids(f" {option}") for option in sample["options"]]),
            self._means([words for _, words in clues]), [text for text, _ in clues],
            some(visual_ND[inside_N]), some(visual_ND[~inside_N]) if inside_N.any() else some(visual_ND),
            mean(visual_ND[inside_N]), mean(visual_ND[~inside_N]) if inside_N.any() else None,
        )  # fmt: skip

    def _stated(self, place: Place, own: Evidence) -> list[tuple[str, list[int]]]:
        """Text and words of the clues that the reasoner read, without `when`."""
        vocabulary = self.model.collator.vocabulary
        silent = (vocabulary.none, vocabulary.absent)
        shown = own.ids_BQKW[place.b, place.q][own.keep_BQK[place.b, place.q]].tolist()
        said = [(vocabulary.text(vocabulary.decode(row)), [i for i in row[1:] if i not in silent]) for row in shown]
        return [(text, words) for text, words in said if words]

    def _mean(self, ids: list[int]) -> np.ndarray:
        embeddings_VD = self.model.vlm.embeddings_VD
        vector_D = embeddings_VD[ids].float().mean(0) if ids else torch.zeros(embeddings_VD.shape[1])
        found: np.ndarray = vector_D.cpu().numpy()
        return found

    def _means(self, texts: Sequence[list[int]]) -> np.ndarray:
        return np.stack([self._mean(ids) for ids in texts]) if texts else np.zeros((0, self.model.vlm.width))


def union(regions: Sequence[Tensor], grid: Grid) -> Tensor:
    """Bool [N]: tokens of any of the regions."""
    return torch.stack(list(regions)).any(0) if regions else torch.zeros(grid.tokens, dtype=torch.bool)


def some(vectors_ND: Tensor) -> np.ndarray:
    """At most TOKENS_EACH of them, evenly spaced."""
    count = min(TOKENS_EACH, len(vectors_ND))
    places = np.linspace(0, len(vectors_ND) - 1, count).round().astype(int) if count else []
    found: np.ndarray = vectors_ND[places].numpy()
    return found


def mean(vectors_ND: Tensor) -> np.ndarray | None:
    return vectors_ND.mean(0).numpy() if len(vectors_ND) else None
