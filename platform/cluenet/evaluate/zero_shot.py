"""A plain Hugging Face checkpoint as a model folder, to be scored without training."""

from __future__ import annotations

from pathlib import Path

from cluenet.decoding import FramePolicy
from cluenet.folders import finished, read_manifest, write_manifest
from cluenet.model.build import build_model
from cluenet.model.checkpoint import save_model
from cluenet.recipe import Recipe
from cluenet.records import content_hash
from cluenet.registry import register


def zero_shot_folder(recipe: Recipe, base: Path, out: Path) -> Path:
    """A model folder of a plain Hugging Face checkpoint, untrained: no clues, the answer from the video alone.

    base: folder in Hugging Face layout. Videos are sampled as the recipe's `data:` says. Returns `out`, at once when it was
    made from the same settings and base. Raises CheckpointError for a folder that is no known checkpoint.
    """
    section = recipe.model.model_copy(update={
        "clue_extractor": register.clue_extractor.parse("none"), "clue_filter": register.clue_filter.parse("keep_all"),
        "reasoner": register.reasoner.parse({"name": "direct", "scoring": recipe.model.reasoner.to_dict()["scoring"]}),
    })  # fmt: skip
    recipe = recipe.model_copy(update={"model": section})
    policy = FramePolicy.from_section(recipe.data).to_dict()
    files = [(file.name, file.stat().st_size) for file in sorted(Path(base).glob("*")) if file.is_file()]
    address = content_hash("zero-shot", section.model_dump(mode="json"), policy, str(Path(base).absolute()), files)
    if finished(out) and read_manifest(out).get("address") == address:
        return out
    model = build_model(section, base, seed=recipe.seed)
    card = {"training": "none (zero-shot)", "base": str(base), **model.describe()}
    (out / "manifest.json").unlink(missing_ok=True)
    save_model(model, out, recipe=recipe.to_dict(), frame_policy=policy, card=card)
    write_manifest(out, {"address": address, "checkpoint": None})
    return out
