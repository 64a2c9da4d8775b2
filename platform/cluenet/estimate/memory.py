"""Peak memory of one worker's accelerator in a stage, by part."""

from __future__ import annotations

from dataclasses import replace

from cluenet.config.strategy import Fsdp
from cluenet.config.train import Stage, TrainSection
from cluenet.config.tuning import FullTuning, LoraTuning
from cluenet.estimate import activations, parameters
from cluenet.estimate.activations import Mode, Modes
from cluenet.estimate.passes import Work
from cluenet.estimate.sizes import Sizes
from cluenet.estimate.states import buffer_bytes, share_of
from cluenet.model.pipeline import ClueNet

RUNTIME_BYTES = 2**30
"""CUDA context, kernels and libraries: about 0.5 to 1 GiB, depending on the card and on what is loaded."""
COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


def modes_of(model: ClueNet, train: TrainSection) -> Modes:
    """From the precision, the tuning, and gradient checkpointing."""
    tuning, again = train.tuning, train.gradient_checkpointing
    stream = model.vlm.embeddings_VD.element_size()
    base = Mode(stream, min(stream, COMPUTE_BYTES[train.precision]))
    if isinstance(tuning, FullTuning):
        vision = replace(base, trained=tuning.vision, reached=tuning.vision, checkpointed=again)
        projector = replace(base, trained=tuning.projector, reached=tuning.vision or tuning.projector)
        return Modes(replace(base, checkpointed=again), vision, projector, base)
    frozen = replace(base, trained=False)
    decoder = _adapted(replace(frozen, checkpointed=again), tuning)
    vision = _adapted(decoder, tuning) if tuning.vision else replace(frozen, reached=False)
    projector = replace(base, trained=tuning.projector, reached=tuning.projector or tuning.vision)
    return Modes(decoder, vision, projector, frozen)


def _adapted(mode: Mode, tuning: LoraTuning) -> Mode:
    return replace(mode, adapted=tuning.r, dropout=tuning.dropout > 0)


def memory_of(
    model: ClueNet, train: TrainSection, stage: Stage, work: Work, sizes: Sizes, modes: Modes, *, clue_bytes: int
) -> dict[str, float]:
    """Bytes by part. `update`: what the optimiser's update needs beyond the room that the passes before it leave."""
    total, workers = parameters.whole(parameters.parts_of(model, train)), train.min_workers
    share = share_of(train.strategy, workers)
    states = share.bytes(
        weights=total.weight_bytes, gradients=total.trained_bytes, trained=total.trained_bytes,
        moments=parameters.moments_bytes(model, stage),
    )  # fmt: skip
    layers = parameters.numbers_of(parameters.layers_of(model))
    passing = {
        "activations": activation_bytes(work, sizes, modes) + clue_bytes,
        "KV cache": cache_bytes(work, sizes, modes.decoder),
        "logits": logits_bytes(work, sizes),
        "bf16 copies": copies_bytes(model, train, work, sizes, modes),
    }
    update = update_bytes(stage, total.trained_bytes, share.optimizer)
    return {
        **states,
        **passing,
        "update": max(0.0, update - sum(passing.values())),
        "buffers": buffer_bytes(
            train.strategy, workers=workers, trained=total.trained, layers=layers, total=total.total
        ),
        "runtime": RUNTIME_BYTES,
    }


def activation_bytes(work: Work, sizes: Sizes, modes: Modes) -> int:
    """What forward keeps for backward, and the block that checkpointing computes again; without logits and clue parts."""
    again = [activations.again_bytes(run, sizes.decoder, modes.decoder, masked=True) for run in work.decoder]
    if work.vision is not None:
        again.append(activations.again_bytes(work.vision, sizes.vision, modes.vision, masked=False))
    return kept_bytes(work, sizes, modes) + max(again, default=0)


def kept_bytes(work: Work, sizes: Sizes, modes: Modes) -> int:
    """What forward keeps for backward."""
    kept = sum(
        activations.stack_bytes(run, sizes.decoder, modes.decoder, masked=True)
        + activations.top_bytes(run, sizes, modes.decoder)
        for run in work.decoder
    )
    if work.vision is not None:
        kept += activations.stack_bytes(work.vision, sizes.vision, modes.vision, masked=False)
        kept += activations.patches_bytes(work.vision, sizes, modes.vision)
        kept += activations.projector_bytes(work.vision.tokens, sizes, modes.projector)
    return kept


def cache_bytes(work: Work, sizes: Sizes, mode: Mode) -> int:
    """Keys and values of the prompts, and those of one later pass while it runs; where activations do not hold the same."""
    if not (mode.checkpointed or mode.copies or sizes.decoder.query > sizes.decoder.key):
        return 0
    prompts = work["prompts"]
    kept = activations.cache_bytes(prompts, prompts.tokens, sizes.decoder, mode) if prompts else 0
    later = [
        activations.cache_bytes(run, run.rows * run.columns, sizes.decoder, mode)
        for run in work.decoder
        if run is not prompts and not mode.checkpointed
    ]
    return kept + max(later, default=0)


def logits_bytes(work: Work, sizes: Sizes) -> int:
    """What is kept of them; and, for the largest block of rows, the logits themselves and their gradient in fp32."""
    kept = sum(activations.logits_bytes(scored, sizes.vocabulary) for scored in work.scored)
    return kept + 2 * 4 * sizes.vocabulary * max((scored.rows for scored in work.scored), default=0)


def copies_bytes(model: ClueNet, train: TrainSection, work: Work, sizes: Sizes, modes: Modes) -> float:
    """bf16 copies of fp32 weights that autocast makes: one of a weight that is trained, since it remembers those, else one
    for each time that a gradient goes through; blocks that are computed again keep none of those. FSDP may gather layers as
    bf16, which needs none."""
    if not modes.decoder.copies:
        return 0
    frozen = {
        "language model": _times_through(work) / sizes.layers * (not modes.decoder.checkpointed),
        "embeddings": sum(scored.times for scored in work.scored if scored.gradient),
        "vision tower": modes.vision.reached and not modes.vision.checkpointed, "projector": modes.projector.reached,
    }  # fmt: skip
    gathered = _gathered_as_bf16(model, train)
    copied = (
        (parameters.part_of_model(model, name, weight), weight)
        for name, weight in parameters.matrices_of(model)
        if id(weight) not in gathered and weight.element_size() > modes.decoder.matrix
        and not parameters.in_four_bits(model, name, weight, train)
    )  # fmt: skip
    numbers = (weight.numel() * (1 if weight.requires_grad else frozen.get(part, 0)) for part, weight in copied)
    return float(modes.decoder.matrix * sum(numbers))


def _times_through(work: Work) -> int:
    """Layers that passes with gradient go through, all together."""
    return sum(run.times * run.layers for run in work.decoder if run.gradient)


def _gathered_as_bf16(model: ClueNet, train: TrainSection) -> set[int]:
    if not (isinstance(train.strategy, Fsdp) and train.strategy.param_dtype == "bf16"):
        return set()
    return {id(parameter) for layer in parameters.layers_of(model) for parameter in layer.parameters()}


def update_bytes(stage: Stage, trained_bytes: float, share: float) -> float:
    """What an update needs for itself: AdamW a square root of each second moment, since torch updates all weights at once;
    Muon the directions and, orthogonalised, as much again."""
    return share * trained_bytes * (2 if stage.optimizer == "muon" else 1)
