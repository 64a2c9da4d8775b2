"""An adapter on disk, as peft writes it, and the backbone that it belongs to.

    adapter_model.safetensors   both factors of every adapted layer, and what was trained whole
    adapter_config.json         `peft.LoraConfig`

`peft.PeftModel.from_pretrained(base, folder)` opens it. The base is named by its folder and a hash of what is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME as WEIGHTS
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluenet import storage
from cluenet.errors import CheckpointError
from cluenet.model.tuning import quiet
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import content_hash

ADAPTER, PREFIX = "default", "base_model.model."
"""The name that peft gives to an only adapter; what it puts before the names of the model's weights in files."""
SAMPLES, SAMPLE_BYTES = 16, 4096


def save_adapter(vlm: VisionLanguageModel, folder: Path) -> None:
    weights = get_peft_model_state_dict(vlm.hf, adapter_name=ADAPTER, save_embedding_layers=False)
    save_file(
        {f"{PREFIX}{name}": value.detach().contiguous() for name, value in weights.items()}, folder / WEIGHTS,
        metadata={"format": "pt"},
    )  # fmt: skip
    base = {"base_model_class": type(vlm.hf).__name__, "parent_library": type(vlm.hf).__module__}
    config = vlm.hf.peft_config[ADAPTER]
    replace(config, inference_mode=True, auto_mapping=base).save_pretrained(str(folder))


def load_adapter(vlm: VisionLanguageModel, folder: Path) -> None:
    """The weights of `folder` into the adapter that the model was built with. Raises CheckpointError: damaged, or another
    adapter's."""
    file = folder / WEIGHTS
    try:
        weights = {name.removeprefix(PREFIX): value for name, value in load_file(file).items()}
        wanted = set(get_peft_model_state_dict(vlm.hf, adapter_name=ADAPTER, save_embedding_layers=False))
        if wrong := sorted(wanted ^ set(weights)):
            raise CheckpointError(
                f"{file}: does not fit the recorded tuning: {len(wrong)} weights differ, such as {wrong[0]}"
            )
        set_peft_model_state_dict(vlm.hf, weights, adapter_name=ADAPTER)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}. The folder is incomplete; train again.") from error
    except RuntimeError as error:  # other shapes
        raise CheckpointError(f"{file}: does not fit the recorded tuning: {error}") from None


def merge_adapter(vlm: VisionLanguageModel, folder: Path) -> None:
    """The adapter of `folder` into the weights of a backbone without one."""
    with quiet():
        PeftModel.from_pretrained(vlm.hf, folder).merge_and_unload()


def base_of(vlm: VisionLanguageModel) -> dict[str, Any]:
    """`folder` the backbone was loaded from and `hash` of what is in it."""
    folder = Path(vlm.hf.name_or_path).absolute()
    return {"folder": str(folder), "hash": hash_of(folder)}


def find_base(base: Mapping[str, Any], model_folder: Path) -> Path:
    """The folder of `base_of`. Raises CheckpointError when it is not there, or no longer what it was."""
    folder = storage.bring_folder(Path(base["folder"]))
    wanted = f"{model_folder}: holds an adapter to the backbone in {folder} (hash {base['hash']})"
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{wanted}, which is not there. Put it back, or write where it is now into model_config.json, base.folder. "
            "`cluenet export --merge` makes a checkpoint that needs no other folder."
        )
    if (found := hash_of(folder)) != base["hash"]:
        raise CheckpointError(f"{wanted}, but what is there now is another one (hash {found}). Put the old one back.")
    return folder


def hash_of(folder: Path) -> str:
    """Of a folder in Hugging Face layout: JSON files whole; of weights the size and samples all over the file, so that another
    training of the same model is found without reading 16 GB."""
    texts = [(file.name, file.read_text()) for file in sorted(folder.glob("*.json")) if file.name != "manifest.json"]
    return content_hash(texts, [(file.name, _samples(file)) for file in sorted(folder.glob("*.safetensors"))])


def _samples(file: Path) -> str:
    size, digest = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as opened:
        for index in range(SAMPLES):
            opened.seek(max(0, size - SAMPLE_BYTES) * index // (SAMPLES - 1))
            digest.update(opened.read(SAMPLE_BYTES))
    return f"{size} {digest.hexdigest()}"
