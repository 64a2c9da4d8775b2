"""`pruning`, of `evaluate:` and of `serve:` — which visual tokens the answer pass sees. It changes no training."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, model_validator

from cluenet.config.base import Section
from cluenet.config.choice import Choice
from cluenet.errors import Problem
from cluenet.registry import ComponentConfig

FASTV_LAYER = 2
"""K of FastV (arXiv 2403.06764)."""


class NoPruning(Section):
    """The answer pass sees the whole video."""

    name: Literal["none"] = "none"

    def misfit(self, reasoner: ComponentConfig, extractor: ComponentConfig) -> Problem | None:
        return None

    def count(self, tokens: int) -> int:
        return tokens


class Kept(Section):
    """What both ways of pruning share: how many visual tokens a question keeps, and which."""

    name: Literal["two_pass", "kv_select"]
    keep: float = Field(
        0.25, gt=0, le=1, description="Share of a clip's visual tokens that each question keeps; at least one token."
    )
    by: Literal["clues", "attention", "random", "uniform"] = Field(
        "clues",
        description="Which ones. clues: those that the kept clues look at; attention: those that the prompt's last token looks at "
        "(FastV, arXiv 2403.06764); random; uniform: one of every stretch of the video. Evenly spread ones fill up where "
        "nothing is looked at.",
    )
    layer: int | None = Field(
        None, ge=1, description="Decoder layer, counted from 1, whose attention is read; for by: attention, null is 2."
    )
    seed: int = Field(0, ge=0, description="Draws, with a question's id, random tokens and those of a stretch.")

    @model_validator(mode="after")
    def _layer_is_read(self) -> Kept:
        if self.layer is not None and self.by != "attention":
            raise ValueError(f"layer {self.layer} is read with by: attention only, and by is {self.by}. Remove layer")
        return self

    @property
    def attention_layer(self) -> int:
        return self.layer or FASTV_LAYER

    def misfit(self, reasoner: ComponentConfig, extractor: ComponentConfig) -> Problem | None:
        """Why a model of these components cannot be pruned so."""
        if not reasoner.component.sees_video:
            message = (
                f"is {self.name}, but the reasoner {reasoner.name!r} answers without the video, so that there is nothing to "
                "prune. Set it to none, or take a model with a reasoner that sees the video, such as clue_chain"
            )
            return Problem("pruning", message)
        if self.by == "clues" and (extractor.name == "none" or not reasoner.component.sees_clues):
            message = "is clues, but the model reads no clues. Set it to attention, random or uniform"
            return Problem("pruning.by", message)
        return None

    def count(self, tokens: int) -> int:
        """Of so many visual tokens, how many a question keeps: the nearest number, halves up."""
        return max(1, math.floor(self.keep * tokens + 0.5))


class TwoPass(Kept):
    """The kept tokens go through the decoder once more, at their positions: nothing of the others is left in them."""

    name: Literal["two_pass"] = "two_pass"


class KvSelect(Kept):
    """The kept tokens' rows of the clip's key-value cache: no second pass, but they have read the others before."""

    name: Literal["kv_select"] = "kv_select"


Pruning: TypeAlias = Annotated[NoPruning | TwoPass | KvSelect, Choice("pruning", NoPruning, TwoPass, KvSelect)]


def pruning_of(values: Any) -> NoPruning | TwoPass | KvSelect:
    """A name, or plain values as `model_dump` gives them. Raises pydantic.ValidationError."""
    found: NoPruning | TwoPass | KvSelect = TypeAdapter(Pruning).validate_python(values)
    return found
