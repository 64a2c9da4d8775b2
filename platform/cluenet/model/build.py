"""Builds a ClueNet from the `model:` section and a backbone folder. Every part draws its start from its own seed, so
that exchanging one component leaves the others' initial weights alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from cluenet.config.model import ModelSection
from cluenet.model.pipeline import ClueNet
from cluenet.model.vlm import VisionLanguageModel
from cluenet.registry import ComponentConfig


def build_model(model: ModelSection, base_folder: str | Path, *, seed: int) -> ClueNet:
    """`base_folder`: Hugging Face layout. Raises CheckpointError when it cannot be loaded."""
    vlm = VisionLanguageModel.load(base_folder)
    extractor = _build(model.clue_extractor, seed, width=vlm.width, layers=vlm.layers)
    runtime = {"width": vlm.width, "words": extractor.words} if model.clue_filter.component.learned else {}
    clue_filter = _build(model.clue_filter, seed, **runtime)
    _seed("pipeline", seed)
    return ClueNet(vlm, extractor, clue_filter, model.reasoner.build())


def _build(config: ComponentConfig, seed: int, **runtime: Any) -> Any:
    _seed(f"{config.component.kind}/{config.name}", seed)
    return config.build(**runtime)


def _seed(name: str, seed: int) -> None:
    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{name}/{seed}".encode()).digest()[:7], "big"))
