"""Parameters of a ClueNet by part: how many, how many of them are trained, and how many bytes they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from cluenet.config.train import Stage, TrainSection
from cluenet.config.tuning import QloraTuning
from cluenet.model.pipeline import ClueNet
from cluenet.model.tuning import part_of

PARTS = ("language model", "embeddings", "vision tower", "projector", "clue parts", "adapters")
FOUR_BIT_BYTES = {True: 0.5 + 0.127 / 8, False: 0.5 + 0.5 / 8}
"""Of a weight in 4 bits with its quantisation constants; with double quantisation or without (QLoRA, arXiv 2305.14314, 3)."""


@dataclass(frozen=True)
class Part:
    """`total` includes what is trained."""

    total: int = 0
    trained: int = 0
    weight_bytes: float = 0.0
    trained_bytes: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.total + other.total, self.trained + other.trained, self.weight_bytes + other.weight_bytes,
            self.trained_bytes + other.trained_bytes,
        )  # fmt: skip


def parts_of(model: ClueNet, train: TrainSection) -> dict[str, Part]:
    """By PARTS. `model`: tuned already; it may be on the meta device. Tied weights count once."""
    found = dict.fromkeys(PARTS, Part())
    for name, parameter in model.named_parameters():
        size = _bytes(model, name, parameter, train)
        trained = parameter.requires_grad
        found[part_of_model(model, name, parameter)] += Part(
            parameter.numel(), parameter.numel() * trained, size, parameter.numel() * parameter.element_size() * trained
        )
    return found


def whole(parts: dict[str, Part]) -> Part:
    """Their sum."""
    return sum(parts.values(), Part())


def part_of_model(model: ClueNet, name: str, parameter: nn.Parameter) -> str:
    """One of PARTS."""
    if not name.startswith("vlm.hf."):
        return "clue parts"
    if ".lora_" in name:
        return "adapters"
    hf: Any = model.vlm.hf
    if parameter is hf.get_output_embeddings().weight or parameter is hf.get_input_embeddings().weight:
        return "embeddings"
    part = part_of(name.removeprefix("vlm.hf."), model.vlm.family)
    return {"text": "language model", "vision": "vision tower"}.get(part, part)


def _bytes(model: ClueNet, name: str, parameter: nn.Parameter, train: TrainSection) -> float:
    if isinstance(train.tuning, QloraTuning) and in_four_bits(model, name, parameter, train):
        return parameter.numel() * FOUR_BIT_BYTES[train.tuning.double_quantization]
    return parameter.numel() * parameter.element_size()


def in_four_bits(model: ClueNet, name: str, parameter: nn.Parameter, train: TrainSection) -> bool:
    """QLoRA holds the frozen matrices of the language model's layers so."""
    frozen = isinstance(train.tuning, QloraTuning) and parameter.ndim == 2 and not parameter.requires_grad
    return frozen and part_of_model(model, name, parameter) == "language model"


def moments_bytes(model: ClueNet, stage: Stage) -> int:
    """Of the optimiser's states on all workers together: two moments with AdamW, one with Muon for hidden matrices."""
    matrices = {id(parameter) for parameter in model.matrix_parameters()} if stage.optimizer == "muon" else set()
    sizes = ((id(p) in matrices, p.numel() * p.element_size()) for p in model.parameters() if p.requires_grad)
    return sum(size * (1 if muon else 2) for muon, size in sizes)


def layers_of(model: ClueNet) -> Iterator[nn.Module]:
    """Decoder layers and vision blocks: what strategies that shard weights gather one at a time."""
    hf: Any = model.vlm.hf
    names = set(hf._no_split_modules or ())
    return (module for module in hf.modules() if type(module).__name__ in names)


def numbers_of(modules: Iterator[nn.Module]) -> list[int]:
    """Parameters of each module."""
    return [sum(parameter.numel() for parameter in module.parameters()) for module in modules]


def matrices_of(model: ClueNet) -> Iterator[tuple[str, Any]]:
    """(name, weight) of what takes part in matrix products and convolutions, each weight once."""
    found = (
        (name, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d))
    )
    yield from {id(weight): (f"{name}.weight", weight) for name, weight in found}.values()
