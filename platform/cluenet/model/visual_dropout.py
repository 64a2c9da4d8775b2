"""In training, the reasoner may see a part of the video only, so that clues carry weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from cluenet.model.vlm import Prefix
from cluenet.records import content_hash

if TYPE_CHECKING:
    from cluenet.model.batch import PrefixBatch


def drop_visual(prefix: Prefix, prompts: PrefixBatch, *, share: float, seed: int) -> Prefix:
    """The same prefix with each visual token masked with probability `share`, drawn from `seed`, for all questions of a clip.

    What the prompt's other tokens read of the video (time labels, the end of the video) stays in view, and so does what a
    later visual token read of an earlier one: positions and states are those of the whole video.
    """
    generator = torch.Generator().manual_seed(int(content_hash("visual dropout", seed, length=15), 16))
    drawn_BN = torch.rand(prompts.visual_mask_BN.shape, generator=generator).to(prefix.valid_BP.device) < share
    b, n = (drawn_BN & prompts.visual_mask_BN).nonzero(as_tuple=True)
    valid_BP = prefix.valid_BP.clone()
    valid_BP[b, prompts.visual_index_BN[b, n]] = False
    return replace(prefix, valid_BP=valid_BP)
