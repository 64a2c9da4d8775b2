"""Bytes that a forward pass keeps for the backward pass: what autograd saves, operation by operation.

The method is that of Korthikanti et al. 2022 (arXiv 2205.05198, section 4) for the operations of Hugging Face's blocks:
a matrix keeps its input, RMSNorm its input and its normalised value, SwiGLU four vectors of the inner width, attention
query, key, value, output, one number per row and head, and its mask as numbers. tests/components/test_estimate_memory.py
compares the sum with what autograd does save.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluenet.estimate.passes import Pass, Scored
from cluenet.estimate.sizes import Block, Sizes


@dataclass(frozen=True)
class Mode:
    """How one part of the model computes. `stream`, `matrix`: bytes of a number between the blocks, and inside matrix
    products. `trained`: its own weights get gradients; `adapted`: adapters of rank `r` beside its matrices do."""

    stream: int = 4
    matrix: int = 4
    trained: bool = True
    adapted: int = 0  # rank of the adapters, 0 for none
    dropout: bool = False  # before the adapters
    checkpointed: bool = False
    reached: bool = True  # whether gradients flow through it at all

    @property
    def copies(self) -> bool:
        """Autocast makes a copy of its input for every matrix."""
        return self.stream != self.matrix


@dataclass(frozen=True)
class Modes:
    """How each part of the model computes."""

    decoder: Mode
    vision: Mode
    projector: Mode
    head: Mode

    def checkpointed(self, again: bool) -> Modes:
        """The same with gradient checkpointing, or without."""
        decoder, vision = (replace(mode, checkpointed=again) for mode in (self.decoder, self.vision))
        return replace(self, decoder=decoder, vision=vision)


def stack_bytes(run: Pass, block: Block, mode: Mode, *, masked: bool) -> int:
    """Of one pass through a stack of blocks. With checkpointing: the input of every block; a block is computed again in
    the backward pass, when all of it is there (`again_bytes`)."""
    if not run.gradient or not mode.reached:
        return 0
    angles = run.tokens * 2 * block.query // block.heads * mode.stream if block.rotary else 0
    if mode.checkpointed:
        return run.times * (run.layers * run.tokens * block.width * mode.stream + angles)
    return run.times * (run.layers * block_bytes(run, block, mode, masked=masked) + angles)


def again_bytes(run: Pass, block: Block, mode: Mode, *, masked: bool) -> int:
    """Of the one block that checkpointing computes again at a time."""
    return block_bytes(run, block, mode, masked=masked) if mode.checkpointed and run.gradient and mode.reached else 0


def block_bytes(run: Pass, block: Block, mode: Mode, *, masked: bool) -> int:
    """Of one block."""
    per_token = _norms(block, mode) + _inputs(block, mode) + _mlp(block, mode) + _adapters(block, mode)
    return run.tokens * per_token + _attention(run, block, mode, masked=masked)


def _norms(block: Block, mode: Mode) -> int:
    """Two norms over the width, and those of query and key; then the learned scale of each branch."""
    values = block.rms and mode.trained
    width = 2 * block.width * (mode.stream + values * mode.stream)
    heads = (block.query + block.key) * (4 + mode.trained * mode.matrix) if block.qk_norm else 0
    scales = 2 * block.width * mode.matrix if block.scaled and mode.trained else 0
    return width + heads + scales


def _inputs(block: Block, mode: Mode) -> int:
    """Of the matrices that read a norm: one tensor for all of them, or a copy each."""
    if not (mode.trained or mode.adapted):
        return 0
    attention, mlp = (1 if block.fused else 3), (2 if block.gated else 1)
    return block.width * mode.matrix * (attention + mlp if mode.copies else 2)


def _mlp(block: Block, mode: Mode) -> int:
    """SwiGLU: gate, its SiLU, the other factor, the product; else the input and output of GELU."""
    product = bool(mode.trained or mode.adapted)  # only the last matrix reads it
    return block.inner * mode.matrix * ((3 if block.gated else 1) + product)


def _adapters(block: Block, mode: Mode) -> int:
    """Adapters keep their hidden vector, and with dropout a copy of their input and its mask of bytes."""
    if not mode.adapted:
        return 0
    matrices, inputs = 4 + (3 if block.gated else 2), (4 + (2 if block.gated else 1)) * block.width
    dropped = (inputs + block.inner) * (1 + mode.matrix) if mode.dropout else 0
    return matrices * mode.adapted * mode.matrix + dropped


def _attention(run: Pass, block: Block, mode: Mode, *, masked: bool) -> int:
    """Keys and values are there once for each query head: a mask rules out the kernels that share them."""
    columns = run.rows * max(run.columns, run.length) if masked else run.tokens
    read = run.tokens * block.query + 2 * columns * block.query
    split = 2 * run.tokens * block.query if block.fused else 0  # the value is a view into all three
    mask = run.rows * run.length * run.columns if masked else 0
    statistics = run.tokens * block.heads * 4
    return (read + run.tokens * block.query + split + mask) * mode.matrix + statistics


def cache_bytes(run: Pass, tokens: int, block: Block, mode: Mode) -> int:
    """Of keys, which the rotation leaves as wide as the stream, and values, of so many tokens in all layers of a pass."""
    return run.layers * tokens * block.key * (mode.stream + mode.matrix)


def top_bytes(run: Pass, sizes: Sizes, mode: Mode) -> int:
    """Of the norm behind the last layer: its input, its value, and what the LM head picks its rows from."""
    reads = run.gradient and run.layers == sizes.layers and not run.open_top
    return run.times * run.tokens * sizes.decoder.width * mode.stream * (2 + mode.trained) if reads else 0


def patches_bytes(run: Pass, sizes: Sizes, mode: Mode) -> int:
    """Input of the patch embedding."""
    return run.tokens * sizes.patch_values * mode.matrix if mode.trained else 0


def projector_bytes(patches: int, sizes: Sizes, mode: Mode) -> int:
    """The norm's input and value, each matrix's input, and what the activation function reads."""
    rows = sizes.projector_rows(patches)
    inputs = sum(inputs for inputs, _ in sizes.projector)
    middle = sum(outputs for _, outputs in sizes.projector[:-1])
    return (rows * (inputs + middle) + patches * sizes.vision.width) * mode.matrix if mode.reached else 0


def logits_bytes(scored: Scored, vocabulary: int) -> int:
    """Log-probabilities in fp32, as cross-entropy and softmax keep them."""
    return scored.rows * vocabulary * 4 * scored.copies * scored.times if scored.gradient else 0
