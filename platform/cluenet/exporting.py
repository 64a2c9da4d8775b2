"""`cluenet export`: the fine-tuned backbone of a model folder for other programs, merged or as an adapter."""

from __future__ import annotations

import shutil
from pathlib import Path

from peft import PeftModel

from cluenet.errors import CheckpointError, StorageError
from cluenet.folders import building
from cluenet.model.adapter import FILES, find_base
from cluenet.model.checkpoint import BACKBONE, CONFIG, read_base
from cluenet.model.vlm import VisionLanguageModel

LEFT_OUT = (
    "Only the backbone is in it: the clue extractor, the clue filter and the slot embeddings stay in {model}, which "
    "`cluenet ask` and `cluenet evaluate` need."
)


def export_merged(model: Path, out: Path) -> Path:
    """Write the backbone to `out` as a plain checkpoint in Hugging Face layout, weights, tokenizer and processor files, an
    adapter merged into it. `model`: a model folder, or that of a run. Raises CheckpointError, StorageError.
    """
    model, base = _opened(model)
    with _new(out) as part:
        if base is None:
            shutil.copytree(model / BACKBONE, part, dirs_exist_ok=True)
        else:
            vlm = VisionLanguageModel.load(base)
            PeftModel.from_pretrained(vlm.hf, model).merge_and_unload()
            vlm.save(part)
        _write_card(part, model, "An ordinary Hugging Face checkpoint: `AutoModelForImageTextToText.from_pretrained`.")
    return out
