"""Tiny models and examples without any video file: random frames, invented clues. Seconds to build, not trained."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from cluenet.config.model import ModelSection
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.plugins import load_components
from cluenet.records import Box, Clue, Example, Frames, VideoRef

COLOURS = ("red", "blue", "green", "cyan")


def clip(seed: int = 0, *, frames: int = 4, height: int = 32, width: int = 48) -> Frames:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Frames(pixels, np.arange(frames) / 4, frames / 4)


def example(index: int = 0, **changes) -> Example:
    clue = Clue(
        "red hits blue", 0.0, 0.5, (Box(0.1, 0.0, 0.0, 0.34, 0.5),), {"who": "red", "what": "hits", "whom": "blue"}
    )
    values = {
        "id": f"q{index}", "dataset": "fake", "video": VideoRef(f"v{index}.mp4"), "type": "who",
        "question": f"which one hits {COLOURS[index % 4]} ?", "options": COLOURS[: 3 + index % 2], "answer": index % 3,
        "clues": (clue,), "distractors": (), "chain": "red hits blue . so red",
    }  # fmt: skip
    return Example(**{**values, **changes})


@functools.cache
def base_folder() -> Path:
    """A saved, untrained backbone in Hugging Face layout."""
    texts = [
        "which one hits red blue green cyan ? red hits blue . so red is square what colour",
        "why does it move itself ?",
    ]
    tokenizer = fit_tokenizer(texts, blocks=8, max_words=100)
    vlm = new_model(
        tokenizer, family="qwen3_vl", hidden=64, layers=3, heads=2, vision_hidden=32, vision_layers=1, patch=8, seed=0
    )
    folder = Path(tempfile.mkdtemp(prefix="cluenet-base-"))
    vlm.save(folder)
    return folder


def tiny_model(seed: int = 0, *, folder: Path | None = None, **section) -> ClueNet:
    """A ClueNet on that backbone, or on the one in `folder`; keywords are fields of the `model:` section."""
    load_components()
    values = {
        "backbone": "tiny",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
        "clue_filter": "adaptive",
    }
    return build_model(ModelSection.model_validate({**values, **section}), folder or base_folder(), seed=seed)
