"""One checkpoint folder as the adapter loads it and as Hugging Face does, run on the same clips and questions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from cluenet.model.grid import Grid
from cluenet.model.hooks import inputs_of
from cluenet.model.packing import Segment, pack
from cluenet.model.shared_prompt import PrefixBatch, prefix_batch
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.records import Frames

NEW_TOKENS = 8

ORDINARY_INPUTS: dict[str, Callable[[Tensor, Tensor], dict[str, Tensor]]] = {
    "qwen2_5_vl": lambda pixels, grid_B3: {"pixel_values_videos": pixels, "video_grid_thw": grid_B3},
    "qwen3_vl": lambda pixels, grid_B3: {"pixel_values_videos": pixels, "video_grid_thw": grid_B3},
    "llava_onevision": lambda pixels, grid_B3: {"pixel_values_videos": pixels[None]},
    "internvl": lambda pixels, grid_B3: {"pixel_values": pixels},
    "smolvlm": lambda pixels, grid_B3: {"pixel_values": pixels[None]},
}
"""Pixels of one clip as the Hugging Face model takes them, by `model_type`."""


@dataclass(frozen=True)
class Clip:
    """One clip, as a batch of one."""

    frames: Frames
    grid: Grid
    pixels: Tensor  # as the vision tower takes them
    grid_B3: Tensor  # patches: blocks, rows, columns
    ids: list[int]  # of the shared prompt
    starts: list[int]  # of the text after it, in a list of one

    @classmethod
    def of(cls, vlm: VisionLanguageModel, frames: Frames, *, device: str) -> Clip:
        grid = vlm.grid(frames.frames_THWC, frames.seconds_T)
        batch = prefix_batch(vlm, [frames], [grid])
        return cls(
            frames, grid, vlm.pixels(frames.frames_THWC, grid).to(device), batch.grid_B3.to(device), vlm.video_ids(grid), batch.text_starts
        )  # fmt: skip


@dataclass(frozen=True)
class BackbonePair:
    """One folder as the adapter and as Hugging Face load it, and two clips of different sizes."""

    vlm: VisionLanguageModel
    hf: nn.Module
    clips: Sequence[Clip]

    @classmethod
    def of(cls, folder: str | Path, device: str) -> BackbonePair:
        return opened(str(folder), device)

    # ------------------------------------------------------------------------------------- the adapter
    def text(self, question: str) -> list[int]:
        """Token ids of what follows the shared prompt."""
        return self.vlm.ids(question) + self.vlm.ids(self.vlm.chat_parts()[2])

    def embedded(self, ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """[B, L] -> [B, L, D]."""
        return F.embedding(torch.as_tensor(ids, device=self.vlm.embeddings_VD.device), self.vlm.embeddings_VD)

    def watched(self, clips: Sequence[Clip], *, layer: int | None = None) -> Prefix:
        """The shared prompts of these clips, run through the whole decoder."""
        batch = prefix_batch(self.vlm, [clip.frames for clip in clips], [clip.grid for clip in clips])
        return self.vlm.prefix(batch.to(self.vlm.embeddings_VD.device), layer=layer, whole=True)

    def logits_after(self, prefix: Prefix, texts: Sequence[list[int]], starts: Sequence[int]) -> Tensor:
        """[B, L, V] of one text per clip."""
        packed = pack([[Segment(text)] for text in texts], offsets=starts, pad=self.vlm.pad)
        packed = packed.to(self.vlm.embeddings_VD.device)
        states = self.vlm.text_pass(
            self.embedded(packed.ids_BL), packed.positions_BL, packed.allowed_BLL, prefix=prefix
        )  # fmt: skip
        return self.vlm.head(states)

    def clue_embeddings(self, *, count: int, seed: int) -> Tensor:
        """[1, count, D] random, as large as words are."""
        size = float(self.vlm.embeddings_VD.float().std())
        values = torch.randn(1, count, self.vlm.width, generator=torch.Generator().manual_seed(seed)) * size
        return values.to(self.vlm.embeddings_VD)

    def greedy(self, prefix: Prefix, embeds_1LD: Tensor, start: int) -> list[int]:
        """The first tokens after these embeddings, which stand at position `start` and the next."""
        cache, before, tokens = self.vlm.cache(prefix), prefix.valid_BP.shape[1], []
        while len(tokens) < NEW_TOKENS:
            length = embeds_1LD.shape[1]
            positions = torch.arange(start, start + length, device=embeds_1LD.device)[None]
            seen = torch.ones(1, length, before + length, dtype=torch.bool, device=embeds_1LD.device).tril(before)
            states = self.vlm.cached_pass(embeds_1LD, positions, seen, cache)
            tokens.append(int(self.vlm.head(states[0, -1]).argmax()))
            start, before, embeds_1LD = start + length, before + length, self.embedded([tokens[-1:]])
        return tokens

    # ------------------------------------------------------------------------------------ Hugging Face
    def features(self, clip: Clip) -> Any:
        """What `get_video_features` or `get_image_features` returns."""
        inputs = ORDINARY_INPUTS[self.hf.config.model_type](clip.pixels, clip.grid_B3)
        look = self.hf.model.get_video_features if "pixel_values_videos" in inputs else self.hf.model.get_image_features
        return look(**inputs)

    def ordinary_inputs(self, clip: Clip, text: list[int]) -> dict[str, Tensor]:
        """Positions are the model's own affair, except where it counts blocks: Hugging Face knows no such prompts."""
        ids = torch.tensor([clip.ids + text], device=clip.pixels.device)
        inputs = ORDINARY_INPUTS[self.hf.config.model_type](clip.pixels, clip.grid_B3)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.vlm.family.multimodal_rope:
            inputs["mm_token_type_ids"] = (ids == self.vlm.placeholder).int() * 2
        if "second_per_grid_ts" in inspect.signature(self.hf.forward).parameters:
            inputs["second_per_grid_ts"] = torch.tensor([clip.grid.block_seconds], device=ids.device)
        if getattr(self.hf.config, "cluenet_time_labels", None) == "index":
            inputs["position_ids"] = self._positions(self.vlm.positions(ids[0].tolist(), clip.grid)).to(ids.device)
        return inputs

    def ordinary_logits(self, clip: Clip, text: list[int]) -> Tensor:
        """[L, V] of the text, from one pass over prompt and text."""
        return self.hf(**self.ordinary_inputs(clip, text)).logits[0, -len(text) :]

    def ordinary_states(self, clip: Clip, text: list[int], layers: Sequence[int]) -> list[Tensor]:
        """[N, D] states of the visual tokens at the input of each of these layers."""
        stack = attrgetter(self.vlm.family.text)(self.hf)
        with inputs_of([*stack.layers, stack.norm]) as found:
            self.hf(**self.ordinary_inputs(clip, text))
        columns = [column for column, token in enumerate(clip.ids) if token == self.vlm.placeholder]
        return [found[layer][0, columns[: clip.grid.tokens]] for layer in layers]

    def pruned_inputs(self, clip: Clip, pruned: PrefixBatch, text_1LD: Tensor) -> dict[str, Any]:
        """A pruned prompt with these embeddings behind it."""
        device, theirs = clip.pixels.device, self.features(clip)
        ids, length, start = pruned.ids_BP[0].to(device), text_1LD.shape[1], pruned.text_starts[0]
        positions = torch.cat([pruned.positions_3BP[:, 0], torch.arange(start, start + length).expand(3, -1)], dim=1)
        shown = lambda values: pruned.shown(rows_of(values).cpu()).to(device)  # noqa: E731
        prompt, visual = self.embedded(ids[None]).clone(), shown(theirs.pooler_output)
        extra: dict[str, Any] = {}
        if self.vlm.family.deepstack:  # generate takes embeddings or DeepStack, so placeholders stay in the embeddings
            levels = [[shown(level)] for level in theirs.deepstack_features]
            output = BaseModelOutputWithDeepstackFeatures(pooler_output=[visual], deepstack_features=levels)
            extra["mm_encoder_outputs"] = {"video": output}
        else:
            prompt[0, ids == self.vlm.placeholder] = visual
        embeds = torch.cat([prompt, text_1LD], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=device)
        positions = self._positions(positions).to(device)
        return {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions, **extra}

    def pruned_logits(self, clip: Clip, pruned: PrefixBatch, text_1LD: Tensor) -> Tensor:
        """[L, V] of the embeddings behind a pruned prompt, from one pass over both."""
        return self.hf(**self.pruned_inputs(clip, pruned, text_1LD)).logits[0, -text_1LD.shape[1] :]

    def generated(self, clip: Clip, pruned: PrefixBatch, text_1LD: Tensor) -> list[int]:
        """What `generate` writes after a pruned prompt and these embeddings."""
        tokens = self.hf.generate(
            **self.pruned_inputs(clip, pruned, text_1LD), max_new_tokens=NEW_TOKENS, do_sample=False, num_beams=1,
            repetition_penalty=1.0, eos_token_id=None,
        )  # fmt: skip
        return tokens[0].tolist()

    def _positions(self, positions_3P: Tensor) -> Tensor:
        """As the model takes them, for a batch of one."""
        return positions_3P[:, None] if self.vlm.family.multimodal_rope else positions_3P[:1]


@cache
def opened(folder: str, device: str) -> BackbonePair:
    """Once per folder and device."""
    vlm = VisionLanguageModel.load(folder).eval().to(device)
    hf = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    clips = [_clip(vlm, seed, *size, device=device) for seed, size in enumerate(((4, 40, 56), (6, 32, 32)))]
    return BackbonePair(vlm, hf, clips)


def _clip(vlm: VisionLanguageModel, seed: int, count: int, height: int, width: int, *, device: str) -> Clip:
    """Noise, and so short that Transformers counts Qwen2.5-VL's positions as the adapter does (`positions.multimodal`)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Clip.of(vlm, Frames(pixels, np.arange(count) / 16, count / 16), device=device)


def rows_of(values: Any) -> Tensor:
    """Hugging Face's families return tensors, lists and tuples of them."""
    whole = torch.cat(list(values)) if isinstance(values, (tuple, list)) else values
    return whole.reshape(-1, whole.shape[-1])
