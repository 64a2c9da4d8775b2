"""`cluenet export`: the fine-tuned backbone of a model folder for other programs, merged or as an adapter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peft.utils import CONFIG_NAME

from cluenet.errors import CheckpointError, StorageError
from cluenet.folders import building
from cluenet.model.adapter import WEIGHTS
from cluenet.model.checkpoint import BACKBONE, CONFIG, merged_backbone, read_card

LEFT_OUT = (
    "Only the backbone is in it. The clue extractor, the clue filter and the slot embeddings are not: `cluenet ask` and "
    "`cluenet evaluate` take {folder}."
)
NEARLY = (
    "The adapter was trained on weights of 4 bits and is now merged into the exact ones: answers are near those of the trained "
    "model, not the same."
)


def export_merged(model: Path, out: Path) -> str:
    """Write the backbone to `out` as a plain checkpoint in Hugging Face layout: weights with the adapter merged into them,
    tokenizer and processor files. Returns what the user must know about it.

    model: a model folder, or the run folder around it. Raises CheckpointError, StorageError where `out` holds something.
    """
    folder = _model_folder(model)
    with _new(out) as part:
        vlm = merged_backbone(folder)
        if vlm is None:
            shutil.copytree(folder / BACKBONE, part, dirs_exist_ok=True)
        else:
            vlm.save(part)
        notes = [LEFT_OUT.format(folder=folder), *([NEARLY] if read_card(folder).get("tuning") == "qlora" else [])]
        return _write_card(part, "AutoModelForImageTextToText.from_pretrained(THIS_FOLDER)", notes)


def export_adapter(model: Path, out: Path) -> str:
    """Write the adapter to `out` as peft's `PeftModel.from_pretrained` reads it; otherwise like `export_merged`.

    Raises CheckpointError where the backbone was trained whole."""
    folder = _model_folder(model)
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(
            f"{folder}: its backbone was trained whole (train.tuning: {read_card(folder).get('tuning', 'full')}), so there is no "
            "adapter. Export it with --merge."
        )
    with _new(out) as part:
        for name in (CONFIG_NAME, WEIGHTS):
            shutil.copy2(folder / name, part / name)
        return _write_card(part, "peft.PeftModel.from_pretrained(base, THIS_FOLDER)", [LEFT_OUT.format(folder=folder)])


def _model_folder(path: Path) -> Path:
    """`path`, or what a run has in it. Raises CheckpointError where there is no model."""
    folder = path if (path / CONFIG).is_file() or not (path / "model").is_dir() else path / "model"
    read_card(folder)
    return folder


@contextmanager
def _new(out: Path) -> Iterator[Path]:
    """A folder that becomes `out`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out}: is there already, and nothing is overwritten. Name a new folder: --out FOLDER")
    with building(out) as part:
        yield part


def _write_card(part: Path, opens: str, notes: Sequence[str]) -> str:
    text = "\n".join(notes)
    (part / "README.md").write_text(f"# Exported by cluenet\n\n`{opens}` opens it.\n\n{text}\n")
    return text
