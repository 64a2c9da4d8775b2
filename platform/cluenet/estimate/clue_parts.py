"""Memory and operations of the clue extractor and the filter's gate, which may be anybody's: they run on the meta device,
where autograd says what it saves and torch counts operations, while nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cluenet.config.train import Stage
from cluenet.estimate.passes import writes_words
from cluenet.model.batch import Batch
from cluenet.model.pipeline import ClueNet

BACKWARD = 2  # a matrix product has two in its backward pass


@dataclass(frozen=True)
class Cost:
    saved_bytes: int = 0  # in fp32
    operations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.saved_bytes + other.saved_bytes, self.operations + other.operations)


def clue_parts_cost(model: ClueNet, batch: Batch, stage: Stage) -> Cost:
    """Of one micro-batch. `model`: on the meta device."""
    return _extractor(model, batch) + _gate(model, batch, stage)


def _extractor(model: ClueNet, batch: Batch) -> Cost:
    if not (model.extracts and isinstance(model.extractor, nn.Module)) or writes_words(model):
        return Cost()
    clips, visual = batch.prefix.visual_index_BN.shape
    query = _states(clips, batch.valid_BQ.shape[1], model.slots, model.vlm.width)
    seen, mask = _states(clips, visual, model.vlm.width), torch.ones(clips, visual, dtype=torch.bool, device="meta")
    return measured(model, lambda: model.extractor.extract(query, seen, mask))


def _gate(model: ClueNet, batch: Batch, stage: Stage) -> Cost:
    if not (stage.losses.filter and model.filter.learned and model.reads_own(stage)):
        return Cost()
    shape = (*batch.valid_BQ.shape, model.slots)
    clues = _states(*shape, model.extractor.words, model.vlm.width)
    stem, confidence = _states(*shape[:2], model.vlm.width), torch.zeros(shape, device="meta")
    return measured(model, lambda: model.filter.gate_logits(clues, stem, confidence))


def _states(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", requires_grad=True)


def measured(model: nn.Module, work: Callable[[], Any]) -> Cost:
    """Bytes of the distinct storages that autograd saves, the model's own left out; operations forward and backward."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda tensor: tensor):
        result = work()  # noqa: F841  (holds what is saved until it is summed up)
    saved = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    return Cost(saved, (1 + BACKWARD) * int(counter.get_total_flops()))
