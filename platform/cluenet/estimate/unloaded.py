"""The recipe's model on the meta device, tuned as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from cluenet.errors import CheckpointError
from cluenet.estimate.sizes import Sizes, sizes_of
from cluenet.model.build import assemble
from cluenet.model.pipeline import ClueNet
from cluenet.model.unloaded import pixels_without_content
from cluenet.recipe import Recipe
from cluenet.records import Example


@dataclass(frozen=True)
class Unloaded:
    model: ClueNet
    sizes: Sizes  # of the backbone before it was tuned
    notes: tuple[str, ...]


def unloaded(recipe: Recipe, examples: Sequence[Example]) -> Unloaded:
    """`examples`: training questions, for backbones whose vocabulary is made of them.

    Raises CheckpointError when the backbone does not know its size without weights, RecipeError like `model.tuning.tune`.
    """
    config = recipe.model.backbone
    notes: list[str] = []
    vlm = config.build().unloaded(examples, notes.append)
    if vlm is None:
        raise CheckpointError(
            f"model.backbone: {config.name!r} cannot say how large it is before it is loaded. A backbone that is to be planned "
            "with implements `Backbone.unloaded`."
        )
    vlm.pixels = partial(pixels_without_content, vlm)
    sizes = sizes_of(vlm)
    with torch.device("meta"):
        model = assemble(vlm, recipe.model, seed=recipe.seed, train=recipe.train)
    return Unloaded(model, sizes, tuple(notes))
