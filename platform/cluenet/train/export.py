"""From the best checkpoint of the last stage to the model folder that evaluation, `ask` and serving need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluenet.folders import building, finished, read_manifest, write_manifest
from cluenet.model.build import build_model
from cluenet.model.checkpoint import save_model
from cluenet.recipe import Recipe
from cluenet.train import calibration, checkpoints, sharing


def save_final_model(
    recipe: Recipe, *, run: Path, base: Path, checkpoint: Path | None, frame_policy: Mapping[str, Any], address: str,
    validation: Sequence[Path] = (), features: Mapping[Path, Path] | None = None,
) -> Path:  # fmt: skip
    """Write `<run>/model/` from the best checkpoint of the last stage and return it; at once if it is there already.

    checkpoint: what the last `train_stage` returned; None: no stage was trained, the base's own weights.
    validation: prepared sets that a filter is calibrated on, where the recipe's wants that. features: folders of their
    features, where they have some.
    Raises CheckpointError, StorageError, and RecipeError where there is nothing to calibrate on.
    """
    run = run.absolute()
    folder = run / "model"
    if finished(folder) and read_manifest(folder).get("address") == address:
        return folder
    model = build_model(recipe.model, base, seed=recipe.seed, train=recipe.train)
    if checkpoint is not None:
        with_filter = sharing.brings_filter(recipe, checkpoint.parent.name)
        checkpoints.load_weights(model, checkpoint / checkpoints.WEIGHTS, with_filter=with_filter)
    calibrated = calibration.calibrate(model, recipe, validation, features)
    card = {**_facts(checkpoint), "tuning": recipe.train.tuning.name, **model.describe(), **calibrated}
    with building(folder) as part:
        save_model(model, part, recipe=recipe.to_dict(), frame_policy=frame_policy, card=card)
        made_from = None if checkpoint is None else str(checkpoint.relative_to(run))
        write_manifest(part, {"address": address, "checkpoint": made_from})
    return folder


def _facts(checkpoint: Path | None) -> dict[str, Any]:
    if checkpoint is None:
        return {"training": "none"}
    manifest = read_manifest(checkpoint.parent)
    score = {f"validation {manifest['metric']}": manifest["best_value"]} if manifest["best_value"] is not None else {}
    return {"checkpoint": f"{manifest['stage']}/{checkpoint.name}", **score}
