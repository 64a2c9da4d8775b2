"""The adapter on the checkpoints of `helpers.checkpoints`, and Hugging Face's own model beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForImageTextToText

from cluenet.model.packing import Packed, Segment, pack
from cluenet.model.shared_prompt import PrefixBatch, prefix_batch
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Frames
from helpers.checkpoints import checkpoint


def adapter(family: str) -> VisionLanguageModel:
    return VisionLanguageModel.load(checkpoint(family)).eval()


def hugging_face(family: str):
    return AutoModelForImageTextToText.from_pretrained(checkpoint(family), dtype=torch.float32).eval()


def prompt_of(vlm: VisionLanguageModel, clip: Frames, **options) -> PrefixBatch:
    return prefix_batch(vlm, [clip], [vlm.grid(clip.frames_THWC, clip.seconds_T)], **options)


def text_of(vlm: VisionLanguageModel, prompt: PrefixBatch, text: str) -> tuple[Packed, Tensor]:
    """Rows of one text behind the prompt, and their embeddings."""
    packed = pack([[Segment(vlm.ids(text))]], offsets=prompt.text_starts, pad=vlm.pad)
    return packed, F.embedding(packed.ids_BL, vlm.embeddings_VD)


def logits_after(vlm: VisionLanguageModel, prompt: PrefixBatch, text: str) -> Tensor:
    """[1, L, V]"""
    packed, embeds = text_of(vlm, prompt, text)
    prefix = vlm.prefix(prompt, layer=None, whole=True)
    return vlm.head(vlm.text_pass(embeds, packed.positions_BL, packed.allowed_BLL, prefix=prefix))
