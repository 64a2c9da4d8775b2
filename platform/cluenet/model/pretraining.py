"""The short schooling of a from-scratch backbone, a stand-in for what a pretrained one brings: to name what is in a
patch, and to copy the letter of a stated answer. Neither sees a question about a video together with its answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.model.batch import Collator
from cluenet.model.optimizers import Optimizers
from cluenet.model.vlm import Grid, VisionLanguageModel
from cluenet.model.vocabulary import box_weights, nearest_block
from cluenet.records import CONCEPT_ROLES, Clue, Example, Frames, VideoRef

Report = Callable[..., None]
NOTHING = "<nothing>"
UNTAUGHT = -100
"""What `torch.nn.functional.cross_entropy` leaves out."""


STATE_TIMES = 3


def states_of(examples: Sequence[Example]) -> list[Clue]:
    """Located facts of one clip that last (boxes at three times or more), the longest first: what can be named where.

    Events are left out: their boxes also cover whom they happen to.
    """
    found = {clue.text: clue for example in examples for clue in (*(example.clues or ()), *example.distractors)
             if clue.concepts and len({box.seconds for box in clue.boxes}) >= STATE_TIMES}  # fmt: skip
    return sorted(found.values(), key=lambda clue: -len(clue.boxes))


def patch_targets(states: Sequence[Clue], grid: Grid, vocabularies: dict[str, list[str]]) -> Tensor:
    """[N, roles] class of every visual token per concept role; 0 where nothing is located, UNTAUGHT in blocks for which no state
    says where it is. Shorter states win."""
    located = sorted({nearest_block(box.seconds, grid) for clue in states for box in clue.boxes})
    targets = torch.full((grid.blocks, grid.per_block, len(CONCEPT_ROLES)), UNTAUGHT)
    targets[located] = 0
    targets = targets.flatten(0, 1)
    for clue in states:
        for box in clue.boxes:
            where = box_weights([box], grid) > 0
            for column, role in enumerate(CONCEPT_ROLES):
                if role in clue.concepts:
                    targets[where, column] = vocabularies[role].index(clue.concepts[role])
    return targets


def teach_perception(
    vlm: VisionLanguageModel,
    clips: Sequence[tuple[Frames, Sequence[Example]]],
    *,
    steps: int,
    batch: int,
    seed: int,
    report: Report,
) -> float:
    """Linear heads on the visual embeddings name who / what / whom of every located fact. Returns the accuracy on
    occupied tokens at the end. The heads are thrown away."""
    grids = [vlm.grid(frames.frames_THWC, frames.seconds_T) for frames, _ in clips]
    facts = [states_of(examples) for _, examples in clips]
    vocabularies = {
        role: [NOTHING, *sorted({c.concepts[role] for f in facts for c in f if role in c.concepts})]
        for role in CONCEPT_ROLES
    }
    targets = [patch_targets(fact, grid, vocabularies) for fact, grid in zip(facts, grids)]
    torch.manual_seed(seed)
    heads = nn.ModuleList(nn.Linear(vlm.width, len(vocabularies[role])) for role in CONCEPT_ROLES)
    vision = vlm.vision_parameters
    matrices = [p for name, p in vlm.matrices.items() if name in vision]
    optimizers = Optimizers([*vision.values(), *heads.parameters()], matrices, lr=0.02, adamw_lr=3e-3)
    rng, accuracy = random.Random(seed), 0.0
    for step in range(steps):
        chosen = [rng.randrange(len(clips)) for _ in range(batch)]
        pixels = torch.cat([vlm.pixels(clips[i][0].frames_THWC, grids[i]) for i in chosen])
        visual_MD = vlm.visual_tokens(pixels, [grids[i] for i in chosen])
        target = torch.cat([targets[i] for i in chosen])
        logits = [head(visual_MD) for head in heads]
        loss = sum(F.cross_entropy(value, target[:, column]) for column, value in enumerate(logits))
        optimizers.step(loss, factor=min(1.0, (step + 1) / 10) * max(0.1, 1 - step / steps))
        occupied = target > 0
        hits = torch.stack([value.argmax(-1) for value in logits], dim=-1).eq(target)[occupied]
        accuracy = float(hits.float().mean()) if len(hits) else 0.0
        report(step + 1, loss=float(loss.detach()), accuracy=accuracy)
    return accuracy


def copy_example(example: Example, rng: random.Random) -> Example:
    """The answer's words are the question: only copying its letter is left to learn. The answer is drawn anew, so that
    nothing about the real one is given away."""
    gold = rng.randrange(len(example.options))
    return replace(example, question=example.options[gold], answer=gold, clues=None, chain=None, video=VideoRef("none"))


def teach_copying(
    vlm: VisionLanguageModel, examples: Sequence[Example], *, steps: int, questions: int, seed: int, report: Report
) -> float:
    """Text only: a stated answer, the options, and its letter. Returns the accuracy over the last 10 steps."""
    collator = Collator(vlm, slots=0, words=2, extracts=False, sees_video=False, letters=True)
    choices = [example for example in examples if example.options]
    letters = torch.tensor(vlm.letter_ids())
    vision = vlm.vision_parameters
    matrices = [p for name, p in vlm.matrices.items() if name not in vision]
    parameters = [p for name, p in vlm.hf.named_parameters() if name not in vision]
    optimizers = Optimizers(parameters, matrices, lr=0.02, adamw_lr=1.5e-3)
    rng, recent = random.Random(seed), [0.0]
    for step in range(steps):
        asked = [copy_example(rng.choice(choices), rng) for _ in range(questions)]
        rows = [asked[start : start + 16] for start in range(0, questions, 16)]
        answer = collator.layout.rows(rows, [0] * len(rows), 16, chain=False)
        embeds = F.embedding(answer.packed.ids_BL, vlm.embeddings_VD)
        hidden = vlm.text_pass(embeds, answer.packed.positions_BL, answer.packed.allowed_BLL, prefix=None)
        places = [(b, int(answer.answer_index_BQ[b, q])) for b, row in enumerate(rows) for q in range(len(row))]
        index = torch.tensor(places)
        logits = vlm.head(hidden[index[:, 0], index[:, 1]])
        gold = torch.tensor([example.answer for example in asked])
        loss = F.cross_entropy(logits, letters[gold])
        optimizers.step(loss, factor=min(1.0, (step + 1) / 30) * (0.3 + 0.7 * (1 - step / steps)))
        counts = torch.tensor([len(example.options) for example in asked])
        scores = logits[:, letters].masked_fill(torch.arange(len(letters)) >= counts[:, None], float("-inf"))
        recent = [*recent, float(scores.argmax(-1).eq(gold).float().mean())][-10:]
        report(step + 1, loss=float(loss.detach()), accuracy=sum(recent) / len(recent))
    return sum(recent) / len(recent)
