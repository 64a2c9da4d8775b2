"""`train.tuning` — which weights of the backbone are trained — and `train.<stage>.lrs`, how fast. The clue parts always are."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from cluenet.config.base import Section
from cluenet.config.choice import Choice

Rate: TypeAlias = Annotated[float, Field(gt=0)] | None


class FullTuning(Section):
    """All weights of the backbone, or those that are not frozen here."""

    name: Literal["full"] = "full"
    vision: bool = Field(True, description="Train the vision tower; false: freeze it.")
    projector: bool = Field(
        True, description="Train the projector (merger) between tower and language model; false: freeze it."
    )


class LoraTuning(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685) in the language model; the backbone itself stays as it is."""

    name: Literal["lora"] = "lora"
    r: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(32.0, gt=0, description="The adapters' output is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapters, in training.")
    targets: str | tuple[str, ...] | None = Field(
        None,
        description="Linear layers that get an adapter: a regular expression that matches whole module names, or a list of "
        "names or of their last parts, such as [q_proj, v_proj]; null: every projection of attention and MLP.",
    )
    projector: bool = Field(False, description="Also train the projector (merger), all of its weights.")
    vision: bool = Field(False, description="Also put adapters into the linear layers of the vision tower.")

    @field_validator("targets")
    @classmethod
    def _targets_can_match(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("names no layer; write null for the default")
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression ({error})") from None
        return value


class QloraTuning(LoraTuning):
    """LoRA on a language model whose weights are held in 4 bits (QLoRA, arXiv 2305.14314); needs `cluenet[qlora]`."""

    name: Literal["qlora"] = "qlora"  # type: ignore[assignment]
    quantization: Literal["nf4", "fp4"] = Field("nf4", description="4-bit data type of the frozen weights.")
    double_quantization: bool = Field(True, description="Quantise the quantisation constants too.")


Tuning: TypeAlias = Annotated[
    FullTuning | LoraTuning | QloraTuning, Choice("tuning", FullTuning, LoraTuning, QloraTuning)
]


class LearningRates(Section):
    """Peak learning rates of groups of weights, by AdamW; null: the stage's own."""

    gate: Rate = Field(None, description="Peak learning rate of the clue filter's gate.")
    clues: Rate = Field(None, description="The same of the clue extractor and the embeddings that mark its slots.")
    projector: Rate = Field(None, description="The same of the backbone's projector (merger).")
    vision: Rate = Field(None, description="The same of the backbone's vision tower.")
