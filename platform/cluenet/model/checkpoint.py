"""A model folder: all that evaluation, `ask` and serving need, in ordinary formats.

backbone/             Hugging Face folder of the fine-tuned backbone; with `train.tuning: full`
adapter_*             otherwise: an adapter in peft's layout (`adapter.py`); model_config.json names the backbone it is for
cluenet.safetensors   weights of the components around it
model_config.json     the `model:` section it was built from
frame_policy.json     how its videos were sampled, sized and stored
README.md             model card
recipe.yaml           the whole recipe, for provenance only
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluenet.config.base import Section
from cluenet.config.model import ModelSection
from cluenet.config.pruning import Pruning
from cluenet.config.train import TrainSection
from cluenet.config.tuning import QloraTuning
from cluenet.errors import CheckpointError, Problem, RecipeError
from cluenet.folders import finished, read_manifest
from cluenet.model import quantization
from cluenet.model.adapter import base_of, find_base, load_adapter, merge_adapter, save_adapter
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.model.tuning import has_adapter
from cluenet.model.vlm import VisionLanguageModel
from cluenet.plugins import load_components
from cluenet.problems import problems_of
from cluenet.records import content_hash

SectionT = TypeVar("SectionT", bound=Section)
BACKBONE = "backbone"
WEIGHTS, CONFIG, POLICY, RECIPE = "cluenet.safetensors", "model_config.json", "frame_policy.json", "recipe.yaml"


def save_model(
    model: ClueNet,
    folder: str | Path,
    *,
    recipe: Mapping[str, Any],
    frame_policy: Mapping[str, Any],
    card: Mapping[str, Any],
) -> Path:
    """Write the folder; `recipe` as `Recipe.to_dict()`, `card` is shown in the model card and kept under `card`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backbone = _save_backbone(model.vlm, folder, recipe)
    own = {
        name: value.detach().contiguous() for name, value in model.state_dict().items() if not name.startswith("vlm.")
    }
    save_file(own, folder / WEIGHTS)
    settings = {"model": recipe["model"], **backbone, "plugins": list(recipe.get("plugins", ())), "card": dict(card)}
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    (folder / POLICY).write_text(json.dumps(frame_policy, indent=2) + "\n")
    (folder / RECIPE).write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    (folder / "README.md").write_text(model_card(recipe, frame_policy, card, base=backbone.get("base")))
    return folder


def _save_backbone(vlm: VisionLanguageModel, folder: Path, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Whole, or as an adapter; what `_load_backbone` needs besides."""
    if not has_adapter(vlm):
        vlm.save(folder / BACKBONE)
        return {}
    save_adapter(vlm, folder)
    return {"base": base_of(vlm), "train": {name: recipe["train"][name] for name in ("tuning", "precision")}}


def load_model(folder: str | Path, *, device: str = "cpu") -> ClueNet:
    """The model in evaluation mode. Raises CheckpointError: what is missing, and what to do."""
    folder = Path(folder)
    settings = _read(folder, CONFIG)
    load_components(settings.get("plugins", ()))
    model = _build(folder, settings)
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS}: cannot be read: {error}. The folder is incomplete; train again."
        ) from error
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # other shapes: settings were edited, or another version of a component wrote it
        raise CheckpointError(
            f"{folder / WEIGHTS}: does not fit {CONFIG} and this version's components: {error} Train again."
        ) from None
    missing = [name for name in missing if not name.startswith("vlm.")]
    if missing or unexpected:
        raise CheckpointError(f"{folder / WEIGHTS}: does not fit {CONFIG}: missing {missing}, unexpected {unexpected}")
    return model.to(device).eval()


def merged_backbone(folder: Path) -> VisionLanguageModel | None:
    """The backbone with the folder's adapter merged into its weights, not quantised; None where it is whole in `backbone/`.

    Raises CheckpointError like `load_model`."""
    settings = _read(folder, CONFIG)
    if "base" not in settings:
        return None
    load_components(settings.get("plugins", ()))
    section = _section(folder, ModelSection, settings["model"])
    loading = {**section.backbone.build().loading(), "attention": "sdpa"}  # merging computes none
    vlm = VisionLanguageModel.load(find_base(settings["base"], folder), **loading)
    merge_adapter(vlm, folder)
    return vlm


def _build(folder: Path, settings: Mapping[str, Any]) -> ClueNet:
    """With the weights of its backbone, which is in the folder or is the named base with the folder's adapter."""
    section = _section(folder, ModelSection, settings["model"])
    if "base" not in settings:
        return build_model(section, folder / BACKBONE, seed=0)
    train = _section(folder, TrainSection, settings["train"])
    if isinstance(train.tuning, QloraTuning) and (message := quantization.missing()):
        raise CheckpointError(f"{folder}: {message}, or make a checkpoint without it: cluenet export {folder} --merge")
    model = build_model(section, find_base(settings["base"], folder), seed=0, train=train)
    load_adapter(model.vlm, folder)
    return model


def backbone_of(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """The folder with the weights of the model's backbone, adapters left out, and how they are loaded: dtype and attention.

    Raises CheckpointError like `load_model`."""
    folder = Path(folder)
    settings = _read(folder, CONFIG)
    load_components(settings.get("plugins", ()))
    loading = _section(folder, ModelSection, settings["model"]).backbone.build().loading()
    return (find_base(settings["base"], folder) if "base" in settings else folder / BACKBONE), loading


def _section(folder: Path, section: type[SectionT], values: Mapping[str, Any]) -> SectionT:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise RecipeError(str(folder / CONFIG), problems_of(error, section)) from None


def check_pruning(folder: str | Path, pruning: Pruning, *, section: str) -> None:
    """Whether the folder's model can be pruned so, before it is loaded. section: of the recipe, that asks for it.

    Raises RecipeError where it cannot, CheckpointError like `load_model`."""
    folder = Path(folder)
    settings = _read(folder, CONFIG)
    load_components(settings.get("plugins", ()))
    model = _section(folder, ModelSection, settings["model"])
    if problem := pruning.misfit(model.reasoner, model.clue_extractor):
        raise RecipeError(str(folder), [Problem(f"{section}.{problem.path}", problem.message)])


def read_frame_policy(folder: str | Path) -> dict[str, Any]:
    """How the model's videos were sampled and sized."""
    return _read(Path(folder), POLICY)


def read_card(folder: str | Path) -> dict[str, Any]:
    """What training wrote about the model: steps, validation accuracy, addresses."""
    return _read(Path(folder), CONFIG).get("card", {})


def read_plugins(folder: str | Path) -> tuple[str, ...]:
    """Modules that bring the model's own components."""
    return tuple(_read(Path(folder), CONFIG).get("plugins", ()))


def model_address(folder: str | Path) -> str:
    """The address in the model folder's manifest, else one made from its files: big weight files by size, never read.

    Raises CheckpointError when there is no model.
    """
    folder = Path(folder)
    read_card(folder)  # says what is missing
    if finished(folder) and (address := read_manifest(folder).get("address")):
        return str(address)
    backbone = folder / "backbone"
    small = {file.name: file.read_text() for file in sorted(backbone.glob("*.json"))}
    large = {file.name: file.stat().st_size for file in sorted(backbone.glob("*.safetensors"))}
    heads = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() if (folder / WEIGHTS).is_file() else None
    return content_hash((folder / CONFIG).read_text(), heads, small, large)


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no {name}, so this is not a ClueNet model folder. Give the `model` folder of a finished run, "
            "such as runs/quickstart-0123456789/model."
        ) from None
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / name}: cannot be read: {error}") from error


def model_card(
    recipe: Mapping[str, Any],
    frame_policy: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    base: Mapping[str, Any] | None,
) -> str:
    """Markdown with the metadata block that Hugging Face reads. `base`: what the folder's adapter belongs to."""
    backbone = (
        "its fine-tuned backbone, in `backbone/`,\nis an ordinary Hugging Face folder."
        if base is None
        else f"its adapter is peft's,\n`PeftModel.from_pretrained(base, THIS_FOLDER)`, and belongs to the backbone in `{base['folder']}`."
    )
    parts = "\n".join(f"| {kind} | `{json.dumps(settings)}` |" for kind, settings in recipe["model"].items())
    facts = "\n".join(f"| {name} | {value} |" for name, value in card.items())
    return f"""---
library_name: cluenet
pipeline_tag: video-text-to-text
tags: [video-question-answering, cluenet]
---
# {recipe["name"]}

A clue-aware video question answering model, trained with ClueNet on Ray. Ask it:

    cluenet ask THIS_FOLDER video.mp4 "question" --option A --option B

| component | settings |
|---|---|
{parts}

| fact | value |
|---|---|
{facts}

Frames: `{json.dumps(frame_policy)}`. The recipe that made it is in `{RECIPE}`; {backbone}
"""
