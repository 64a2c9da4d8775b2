"""What a micro-batch makes a model compute: passes through stacks of blocks, and rows that the LM head scores.

Memory and operations are both counted from these. They follow `model.pipeline.ClueNet.see`, `.reason` and
`model.objective`: the prompts once, up to the clue layer or to the top; the extraction pass up to the clue layer; an answer
pass, another one for the counterfactual loss, and those without gradient that measure what clues are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from cluenet.config.train import Stage
from cluenet.estimate.sizes import Sizes
from cluenet.model.batch import Batch
from cluenet.model.pipeline import ClueNet


@dataclass(frozen=True)
class Pass:
    """`rows` rows of `length` tokens through `layers` blocks, each token looking at up to `columns` tokens."""

    name: str
    rows: int
    length: int
    columns: int
    layers: int
    times: int = 1
    gradient: bool = True
    open_top: bool = False  # only its keys and values are read, not what its top block gives
    taught: bool = True  # a gradient comes back to it

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True)
class Scored:
    """Rows of logits over the vocabulary, each kept `copies` times in fp32 for the backward pass."""

    name: str
    rows: int
    copies: int = 1
    times: int = 1
    gradient: bool = True
    read: bool = False  # their softmax is multiplied by the embeddings


@dataclass(frozen=True)
class Work:
    """Of one micro-batch on one worker."""

    vision: Pass | None
    decoder: tuple[Pass, ...]
    scored: tuple[Scored, ...]
    visual_tokens: int
    text_tokens: int  # what stands around the videos, the questions twice where clues are extracted, options, chains

    def after_features(self) -> Work:
        """The same where the tower's states were kept (`data.features`): of vision only the projector runs."""
        return self if self.vision is None else replace(self, vision=replace(self.vision, layers=0))

    def __getitem__(self, name: str) -> Pass | None:
        return next((one for one in self.decoder if one.name == name), None)


def work_of(model: ClueNet, batch: Batch, stage: Stage, sizes: Sizes) -> Work:
    """`batch`: collated by this model; its pixels may be on the meta device."""
    watched = model.extracts or model.reasoner.sees_video
    prompts = _prompts(model, batch) if watched else None
    passes = [one for one in (prompts, *_extraction(model, batch, stage), *_answers(model, batch, stage)) if one]
    visual = int(batch.prefix.visual_mask_BN.sum()) if watched else 0
    tokens = sum(one.tokens for one in passes if one.name in ("prompts", "extraction", "answer"))
    vision = _vision(model, batch, sizes) if watched else None
    return Work(vision, tuple(passes), tuple(_scored(model, batch, stage)), visual, tokens - visual)


def _vision(model: ClueNet, batch: Batch, sizes: Sizes) -> Pass:
    """Frames (temporal blocks) are chunks that do not see each other."""
    patches, chunks = batch.prefix.pixels.numel() // sizes.patch_values, sum(grid.blocks for grid in batch.grids)
    length = patches // chunks
    return Pass(
        "vision", chunks, length, sizes.vision_columns(length), sizes.vision_layers, taught=_video_is_taught(model)
    )


def _video_is_taught(model: ClueNet) -> bool:
    """Extractors without training hold the video's states, and send no gradient back."""
    return bool(model.reasoner.sees_video or isinstance(model.extractor, nn.Module))


def _prompts(model: ClueNet, batch: Batch) -> Pass:
    clips, length = batch.prefix.ids_BP.shape
    whole = model.reasoner.sees_video
    layers, taught = model.vlm.layers if whole else _clue_layer(model), _video_is_taught(model)
    return Pass("prompts", clips, length, length, layers, open_top=whole, taught=taught)


def _clue_layer(model: ClueNet) -> int:
    assert model.extractor.layer is not None
    return model.extractor.layer


def _extraction(model: ClueNet, batch: Batch, stage: Stage) -> list[Pass]:
    """An extractor with as many tokens as its clues have words writes them: one pass a word, then one with gradient."""
    if batch.extraction is None:
        return []
    rows, length = batch.extraction.ids_BL.shape
    extractor, columns = model.extractor, length + batch.prefix.ids_BP.shape[1]

    def passes(name: str, times: int, gradient: bool) -> Pass:
        return Pass(name, rows, length, columns, _clue_layer(model), times, gradient)

    if not isinstance(extractor, nn.Module):
        return [passes("extraction", 1, False)]
    if not writes_words(model):
        return [passes("extraction", 1, True)]
    taught, own = bool(stage.losses.concept), model.reads_own(stage)
    written = [passes("writing", extractor.queries, False)] if own else []
    return [passes("extraction", max(1, taught + own), True), *written]


def writes_words(model: ClueNet) -> bool:
    return bool(model.extractor.queries == model.extractor.slots * model.extractor.words)


def _answers(model: ClueNet, batch: Batch, stage: Stage) -> list[Pass]:
    rows, length = batch.answer.packed.ids_BL.shape
    columns = length + (batch.prefix.ids_BP.shape[1] if model.reasoner.sees_video else 0)

    def passes(name: str, times: int, gradient: bool = True) -> Pass:
        return Pass(name, rows, length, columns, model.vlm.layers, times, gradient)

    other = [passes("counterfactual", 1)] if model.slots and stage.losses.counterfactual else []
    probes = probes_of(model, stage)
    return [passes("answer", 1), *other, *([passes("probes", probes, gradient=False)] if probes else [])]


def probes_of(model: ClueNet, stage: Stage) -> int:
    """Answer passes without gradient that measure what clues are worth (`model.utilities.Probe.utilities`)."""
    settings = stage.filter_loss
    taught = stage.losses.filter and model.filter.learned and model.reads_own(stage)
    if not taught or settings.source == "offline":
        return 0
    measured = min(settings.measured, model.slots)
    return {"leave_one_out": measured, "add_one": measured + 1, "mean": 2 * measured + 1}[settings.utility]


def _scored(model: ClueNet, batch: Batch, stage: Stage) -> list[Scored]:
    questions, own = batch.valid_BQ.numel(), model.reads_own(stage)
    right = _right_rows(batch)
    found = [Scored("answers", (questions if stage.losses.answer else 0) + right)]
    if model.letters:
        found.append(Scored("training accuracy", questions, 0, gradient=False))
    if stage.losses.chain:
        found.append(Scored("chains", len(batch.answer.chain_rows)))
    if model.extracts and isinstance(model.extractor, nn.Module) and (stage.losses.concept or own):
        gate = own and bool(stage.losses.filter) and model.filter.learned
        copies = bool(stage.losses.concept) + own + gate
        found.append(Scored("clue words", questions * model.slots * model.extractor.words, copies, read=own))
    if model.extracts and model.extractor.training_free:
        found.append(Scored("visual tokens", batch.prefix.visual_mask_BN.numel(), 0, gradient=False))
    measured = questions if model.letters else len(batch.answer.option_rows)
    if stage.losses.counterfactual and model.slots:
        found.append(Scored("counterfactual", measured, 1, times=2))
    if probes := probes_of(model, stage):
        found.append(Scored("probes", measured, 0, times=probes + 1, gradient=False))
    return [one for one in found if one.rows]


def _right_rows(batch: Batch) -> int:
    """Words of right answers that are scored as words."""
    rows: Tensor = batch.answer.option_rows
    return int((rows[:, 2] == batch.labels.gold_BQ[rows[:, 0], rows[:, 1]]).sum()) if len(rows) else 0
