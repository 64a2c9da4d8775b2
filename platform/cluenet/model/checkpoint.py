"""A model folder: all that evaluation, `ask` and serving need, in ordinary formats.

backbone/             Hugging Face folder of the fine-tuned backbone
cluenet.safetensors   weights of the components around it
model_config.json     the `model:` section it was built from
frame_policy.json     how its videos were sampled, sized and stored
README.md             model card
recipe.yaml           the whole recipe, for provenance only
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluenet.config.model import ModelSection
from cluenet.errors import CheckpointError, RecipeError
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.plugins import load_components
from cluenet.problems import problems_of

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
    model.vlm.save(folder / "backbone")
    own = {
        name: value.detach().contiguous() for name, value in model.state_dict().items() if not name.startswith("vlm.")
    }
    save_file(own, folder / WEIGHTS)
    settings = {"model": recipe["model"], "plugins": list(recipe.get("plugins", ())), "card": dict(card)}
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    (folder / POLICY).write_text(json.dumps(frame_policy, indent=2) + "\n")
    (folder / RECIPE).write_text(yaml.safe_dump(dict(recipe), sort_keys=False))
    (folder / "README.md").write_text(model_card(recipe, frame_policy, card))
    return folder


def load_model(folder: str | Path, *, device: str = "cpu") -> ClueNet:
    """The model in evaluation mode. Raises CheckpointError: what is missing, and what to do."""
    folder = Path(folder)
    settings = _read(folder, CONFIG)
    load_components(settings.get("plugins", ()))
    try:
        section = ModelSection.model_validate(settings["model"])
    except ValidationError as error:
        raise RecipeError(str(folder / CONFIG), problems_of(error, ModelSection)) from None
    model = build_model(section, folder / "backbone", seed=0)
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


def read_frame_policy(folder: str | Path) -> dict[str, Any]:
    """How the model's videos were sampled and sized."""
    return _read(Path(folder), POLICY)


def read_card(folder: str | Path) -> dict[str, Any]:
    """What training wrote about the model: steps, validation accuracy, addresses."""
    return _read(Path(folder), CONFIG).get("card", {})


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


def model_card(recipe: Mapping[str, Any], frame_policy: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """Markdown with the metadata block that Hugging Face reads."""
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

Frames: `{json.dumps(frame_policy)}`. The recipe that made it is in `{RECIPE}`; its fine-tuned backbone, in `backbone/`,
is an ordinary Hugging Face folder.
"""
