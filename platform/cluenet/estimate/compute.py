"""Operations of a micro-batch, by formula: a multiplication and an addition are two, as `cluenet.train.flops` counts them.

A matrix of n parameters takes 2n operations a token forward, 2n more backward for the gradient of its input, and 2n for its
own (Kaplan et al. 2020, arXiv 2001.08361); attention takes 4 x query width for each pair of tokens forward, and 2.5 times that
backward, where scores are computed again (Dao et al. 2022, arXiv 2205.14135). Masked pairs count: kernels compute them.
"""

from __future__ import annotations

from dataclasses import replace

from cluenet.estimate.activations import Mode, Modes
from cluenet.estimate.passes import Pass, Scored, Work
from cluenet.estimate.sizes import Block, Sizes

ATTENTION_BACKWARD = 2.5


def step_operations(work: Work, sizes: Sizes, modes: Modes) -> float:
    """Forward and backward of one micro-batch, without the clue parts (`cluenet.estimate.clue_parts`)."""
    total = sum(stack_operations(run, sizes.decoder, modes.decoder) for run in work.decoder)
    total += sum(head_operations(scored, sizes, modes.head) for scored in work.scored)
    if work.vision is None:
        return total
    if not work.vision.taught:
        modes = replace(modes, vision=_forward_only(modes.vision), projector=_forward_only(modes.projector))
    patches = work.vision.tokens
    looks = work.vision.layers > 0  # else its states were kept
    embedding = 2 * patches * sizes.patch_values * sizes.vision.width * (looks + modes.vision.trained)
    projector = 2 * sizes.projector_rows(patches) * sizes.projector_parameters * _factor(modes.projector)
    return total + stack_operations(work.vision, sizes.vision, modes.vision) + embedding + projector


def stack_operations(run: Pass, block: Block, mode: Mode) -> float:
    """Of one pass through a stack of blocks."""
    if not run.taught:
        mode = _forward_only(mode)
    back = run.gradient and mode.reached
    adapters = _adapters(block, mode) * (3 + mode.checkpointed if back else 1)
    matrices = 2 * run.tokens * (block.matrix_parameters * _factor(mode, run) + adapters)
    pairs = 4 * run.rows * run.length * run.columns * block.query
    attention = pairs * (1 + back * (ATTENTION_BACKWARD + mode.checkpointed))
    unread = _unread_top(run, block, mode) if back and run.open_top else 0
    return run.times * (run.layers * (matrices + attention) - unread)


def _forward_only(mode: Mode) -> Mode:
    return replace(mode, trained=False, reached=False)


def _unread_top(run: Pass, block: Block, mode: Mode) -> float:
    """Where only a cache is read of a pass, no gradient comes to the top block's output: all but its keys and values."""
    rest = block.matrix_parameters - 2 * block.width * block.key
    pairs = 4 * run.rows * run.length * run.columns * block.query
    return 2 * run.tokens * rest * (_factor(mode, run) - 1) + pairs * ATTENTION_BACKWARD


def _factor(mode: Mode, run: Pass | None = None) -> int:
    """Products with each matrix: forward, for its input, for itself, and forward again."""
    back = mode.reached and (run is None or run.gradient)
    return 1 + back * (1 + mode.trained + mode.checkpointed)


def _adapters(block: Block, mode: Mode) -> int:
    """Parameters of a block's adapters: rank x (inputs + outputs) of each matrix."""
    attention = 4 * block.width + 2 * (block.query + block.key)
    return mode.adapted * (attention + (3 if block.gated else 2) * (block.width + block.inner))


def head_operations(scored: Scored, sizes: Sizes, mode: Mode) -> float:
    """Of rows through the LM head, and where words are read as expected embeddings, back through the embeddings."""
    row = 2 * sizes.decoder.width * sizes.vocabulary
    if not scored.gradient:
        return scored.times * scored.rows * row
    return scored.times * scored.rows * row * (_factor(mode) + 2 * scored.read)
