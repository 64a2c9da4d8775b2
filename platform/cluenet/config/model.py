"""`model:` — the backbone and the components around it."""

from __future__ import annotations

from typing import Annotated

from cluenet.config.base import Section
from cluenet.registry import ComponentConfig, register
from cluenet.steps import setting


class ModelSection(Section):
    backbone: Annotated[ComponentConfig, register.backbone] = setting(
        "tiny", "pretrain", description="The multimodal language model."
    )
    clue_extractor: Annotated[ComponentConfig, register.clue_extractor] = setting(
        "latent_slots", "stage1", description="Reads clues off the video for a question."
    )
    clue_filter: Annotated[ComponentConfig, register.clue_filter] = setting(
        "keep_all", "stage2", description="Decides which clues the reasoner gets."
    )
    reasoner: Annotated[ComponentConfig, register.reasoner] = setting(
        "evidence", "stage1", description="What the answer pass sees and how options are scored."
    )
