"""A small backbone of a real architecture, schooled on the training split, for laptops, tests and the quickstart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file

from cluenet.contracts import Backbone, PretrainContext
from cluenet.errors import SupervisionError
from cluenet.model import pretraining
from cluenet.model.families import FAMILIES
from cluenet.model.tiny import TinySizes, new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Example
from cluenet.registry import ComponentConfig, register


@register.backbone("tiny")
class TinyBackbone(Backbone):
    """A from-config `transformers` model with a tokenizer fitted on the training split, and a short pretraining:
    naming what is in a patch, then copying the letter of a stated answer. Saved as an ordinary Hugging Face folder."""

    class Config(ComponentConfig):
        family: Literal["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm"] = Field(
            "qwen3_vl", description="Architecture, as `model_type` of a checkpoint's config.json names it."
        )
        hidden: int = Field(128, ge=32, multiple_of=32, description="Width of the decoder.")
        layers: int = Field(5, ge=2, description="Decoder layers.")
        heads: int = Field(4, ge=1, description="Attention heads; the width of one must be at least 16.")
        vision_hidden: int = Field(64, ge=16, multiple_of=16, description="Width of the vision tower.")
        vision_layers: int = Field(1, ge=1, description="Layers of the vision tower.")
        patch: int = Field(8, ge=4, description="Patch side in pixels; 2 x 2 patches make one visual token.")
        image: int = Field(
            64, ge=16, description="Side in pixels that frames are resized to by llava_onevision, internvl and smolvlm, whose "
            "towers take squares of one size; the others keep the size of the data.",
        )  # fmt: skip
        max_words: int = Field(8000, ge=16, description="Vocabulary: the most frequent words of the training split.")
        blocks: int = Field(
            32, ge=1, description="Time labels in the vocabulary: the most temporal blocks a clip can have."
        )
        perception_steps: int = Field(80, ge=0, description="Steps of naming what is in a patch, from located clues.")
        copy_steps: int = Field(105, ge=0, description="Steps of copying the letter of a stated answer.")
        copy_questions: int = Field(256, ge=16, multiple_of=16, description="Questions of one copying step.")
        perception_clips: int = Field(1500, ge=1, description="Training clips that perception is taught on.")

        @model_validator(mode="after")
        def _whole_heads(self) -> Self:
            width = self.hidden // self.heads
            if self.hidden % self.heads or width < 16 or width % 2:
                raise ValueError(f"hidden {self.hidden} / heads {self.heads} must be an even number of at least 16")
            return self

        @model_validator(mode="after")
        def _whole_tokens(self) -> Self:
            if FAMILIES[self.family].side is not None and self.image % (2 * self.patch):
                raise ValueError(
                    f"image {self.image} must be a multiple of 2 x patch {self.patch}, the side of a visual token"
                )
            return self

    def pretrain(self, context: PretrainContext) -> Path:
        examples = context.examples()
        vlm = self._new(examples, seed=context.seed)
        vlm.train()
        total = self.config.perception_steps + self.config.copy_steps
        if self.config.perception_steps:
            self._perception(vlm, context, examples, total)
        if self.config.copy_steps:
            self._copying(vlm, context, examples, total)
        vlm.save(context.folder)
        return context.folder

    def _new(self, examples: Sequence[Example], *, seed: int) -> VisionLanguageModel:
        dialect = self.config.model_dump(include={"blocks", "max_words", "family"})
        sizes = self.config.model_dump(include={field.name for field in fields(TinySizes)})
        return new_model(fit_tokenizer(_texts(examples), **dialect), family=self.config.family, seed=seed, **sizes)

    def unloaded(self, examples: Sequence[Example], note: Callable[[str], None]) -> VisionLanguageModel:
        if not examples:
            note(
                "The vocabulary of a tiny backbone is made of the training split: without it, it has the fixed words only."
            )
        with torch.device("meta"):
            return self._new(examples, seed=0)

    def _perception(self, vlm, context: PretrainContext, examples: Sequence[Example], total: int) -> None:
        by_clip: dict[object, list[Example]] = {}
        for example in examples:
            by_clip.setdefault(example.video, []).append(example)
        groups = [group for group in by_clip.values() if pretraining.states_of(group)]
        if not groups:
            context.note(
                f"perception_steps={self.config.perception_steps} taught nothing: no training clip has clues with concepts "
                f"and boxes at {pretraining.STATE_TIMES} times or more, so what is in a patch was not taught"
            )
            return
        random.Random(context.seed).shuffle(groups)
        clips = [(context.frames(group[0]), group) for group in groups[: self.config.perception_clips]]
        pretraining.teach_perception(
            vlm, clips, steps=self.config.perception_steps, batch=16, seed=context.seed,
            report=lambda step, **values: context.progress(step, total, **values),
        )  # fmt: skip

    def _copying(self, vlm, context: PretrainContext, examples: Sequence[Example], total: int) -> None:
        if not any(example.options for example in examples):
            raise SupervisionError(
                "model.backbone.copy_steps: the training split has no question with options, so there are no letters to "
                "copy. Set model.backbone.copy_steps=0."
            )
        vision = vlm.vision_parameters
        language = {name: p.data for name, p in vlm.hf.named_parameters() if name not in vision}

        def teach(folder: Path) -> None:
            done = self.config.perception_steps
            pretraining.teach_copying(
                vlm, examples, steps=self.config.copy_steps, questions=self.config.copy_questions, seed=context.seed,
                report=lambda step, **values: context.progress(done + step, total, **values),
            )  # fmt: skip
            save_file(language, folder / "language.safetensors")

        # No video is read, so bases of other frames have it in common.
        settings = self.config.model_dump(exclude={"perception_steps", "perception_clips"})
        texts = [[example.options, *_texts([example])] for example in examples]
        folder = context.shared(["copying", settings, context.seed, texts], teach)
        for name, value in load_file(folder / "language.safetensors").items():
            language[name].copy_(value)
        context.progress(total, total)


def _texts(examples: Sequence[Example]) -> Iterator[str]:
    for example in examples:
        yield example.question
        yield from example.options
        yield example.answer_text or ""
        yield example.chain or ""
        for clue in (*(example.clues or ()), *example.distractors):
            yield clue.text
            yield from clue.concepts.values()
