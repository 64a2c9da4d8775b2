"""Builds a ClueNet from the `model:` section and a backbone folder. Every part draws its start from its own seed, so
that exchanging one component leaves the others' initial weights alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.config.tuning import LoraTuning, QloraTuning
from cluenet.errors import Problem, RecipeError
from cluenet.model import quantization, tuning
from cluenet.model.pipeline import ClueNet
from cluenet.model.vlm import VisionLanguageModel
from cluenet.registry import ComponentConfig


def build_model(
    model: ModelSection, base_folder: str | Path, *, seed: int, train: TrainSection | None = None
) -> ClueNet:
    """`base_folder`: Hugging Face layout. `train`: how the backbone is tuned; None: nothing is frozen or adapted.

    Raises CheckpointError when the folder cannot be loaded, RecipeError like `check_tuning`.
    """
    vlm = VisionLanguageModel.load(base_folder, quantization=_quantization(train), **model.backbone.build().loading())
    return assemble(vlm, model, seed=seed, train=train)


def assemble(vlm: VisionLanguageModel, model: ModelSection, *, seed: int, train: TrainSection | None = None) -> ClueNet:
    """The same around a backbone that is there. Raises RecipeError where adapters find no layer."""
    extractor = _build(model.clue_extractor, seed, width=vlm.width, layers=vlm.layers)
    runtime = {"width": vlm.width, "words": extractor.words} if model.clue_filter.component.learned else {}
    clue_filter = _build(model.clue_filter, seed, **runtime)
    if train is not None:
        _seed("tuning", seed)
        tuning.tune(vlm, train.tuning)
        if train.gradient_checkpointing:
            tuning.recompute_activations(vlm)
    _seed("pipeline", seed)
    return ClueNet(vlm, extractor, clue_filter, model.reasoner.build())


def check_tuning(train: TrainSection, base_folder: str | Path, *, file: str) -> None:
    """Whether the base can be tuned as the `train:` section of recipe `file` says; its weights are not read.

    Raises RecipeError where adapters find no layer, or where QLoRA's library is not installed.
    """
    _quantization(train, file=file)
    tuning.check_targets(train.tuning, base_folder, file=file)


def check_planned_tuning(train: TrainSection, backbone: ComponentConfig, *, file: str) -> None:
    """The same before there is a base, going by what the backbone's config says it will be; where that is not known, nothing is
    checked but QLoRA's library. Raises CheckpointError when config.json is not on this machine."""
    _quantization(train, file=file)
    if isinstance(train.tuning, LoraTuning):
        vlm = backbone.build().unloaded((), lambda note: None)
        if vlm is not None:
            tuning.targets_of(vlm.hf, vlm.family, train.tuning, file=file)


def _quantization(train: TrainSection | None, *, file: str = "recipe") -> BitsAndBytesConfig | None:
    if train is None or not isinstance(train.tuning, QloraTuning):
        return None
    if message := quantization.missing():
        raise RecipeError(file, [Problem("train.tuning", f"{message}, or set it to lora")])
    return quantization.config_of(train.tuning, bf16=train.precision == "bf16")


def _build(config: ComponentConfig, seed: int, **runtime: Any) -> Any:
    _seed(f"{config.component.kind}/{config.name}", seed)
    return config.build(**runtime)


def _seed(name: str, seed: int) -> None:
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{name}/{seed}".encode()).digest()[:7], "big"))
