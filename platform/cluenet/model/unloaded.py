"""A multimodal language model on torch's meta device: every shape and no weights, in seconds, from config.json alone.

It counts parameters, collates batches and tells sizes; it cannot compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.initialization import no_init_weights

from cluenet.model import loading
from cluenet.model.families import FAMILIES, Family
from cluenet.model.grid import Grid
from cluenet.model.pixels import PROCESSOR_FILES, Settings
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.model.vlm import VisionLanguageModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
MAX_WORDS = 50_000
HALF = [0.5, 0.5, 0.5]


def unloaded_model(
    folder: str | Path, *, texts: Iterable[str], note: Callable[[str], None], dtype: str = "float32"
) -> VisionLanguageModel:
    """`folder`: needs config.json only. Where it has no tokenizer, words are tokens, those of `texts` known; where it has no
    processor files, frames keep the size of the data if the model takes any. `note` is told.

    Raises CheckpointError when config.json is missing or of no known family.
    """
    folder = Path(folder)
    config = loading.config_of(folder)
    family, files = FAMILIES[config.model_type], loading.processor_files(folder)
    if not files:
        note(f"{folder} has no processor files: frames keep the size of data.size where the model takes any size.")
    if any((folder / name).is_file() for name in TOKENIZER_FILES):
        tokenizer = loading.tokenizer_of(folder)
    else:  # transformers would make an empty one of the config
        tokenizer = _word_tokenizer(family, config, texts)
        note(f"{folder} has no tokenizer: words are counted as tokens, real ones give about a third more of text.")
    with torch.device("meta"), no_init_weights():
        hf = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa", dtype=getattr(torch, dtype))
        return VisionLanguageModel(hf, tokenizer, files or _usual_files(family, config))


def pixels_without_content(vlm: VisionLanguageModel, frames_THWC: np.ndarray, grid: Grid) -> Tensor:
    """In place of `vlm.pixels`: the shape alone, on the meta device."""
    cut = vlm.processor.patches
    if vlm.processor.whole_frames:
        return torch.empty(len(frames_THWC), 3, cut.side, cut.side, device="meta")
    return torch.empty(grid.tokens * cut.merge**2, 3 * cut.temporal * cut.patch**2, device="meta")


def _usual_files(family: Family, config: Any) -> Mapping[str, Settings]:
    """Frames of the only size the model takes, else of any."""
    settings: dict[str, Any] = {"image_mean": HALF, "image_std": HALF}
    if (side := family.cut(config).side) is not None:
        settings["size"] = {"height": side, "width": side, "longest_edge": side}
        settings["max_image_size"] = {"longest_edge": side}
    return {PROCESSOR_FILES[-1]: settings}


def _word_tokenizer(family: Family, config: Any, texts: Iterable[str]) -> Any:
    """In the family's dialect; the config's placeholder becomes this tokenizer's."""
    tokenizer = fit_tokenizer(texts, blocks=1, max_words=MAX_WORDS, family=config.model_type)
    prompt = str(family.video_text(Grid(1, 2, 4, (0.0,)), [""]))  # more of them than there are marks around a block
    placeholder = max(family.tokens, key=prompt.count)
    setattr(config, family.placeholder, tokenizer.convert_tokens_to_ids(placeholder))
    return tokenizer
