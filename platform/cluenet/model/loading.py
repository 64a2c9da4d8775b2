"""A checkpoint folder in Hugging Face layout, checked before its weights are read: everything that is wrong, at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import is_flash_attn_2_available

from cluenet import storage
from cluenet.errors import CheckpointError, suggestion
from cluenet.model import pixels
from cluenet.model.families import FAMILIES, Family
from cluenet.model.pixels import NOT_DONE_HERE, PROCESSOR_FILES, Patches, Settings, VideoProcessor, video_settings
from cluenet.model.prompts import chat_parts

DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "flash_attention_2", "eager"]

CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
RESAMPLING = {pixels.bicubic: (3, "bicubic"), pixels.lanczos_twice: (1, "lanczos")}
"""As processor files write it: Pillow's numbers (`PIL.Image.Resampling`)."""


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds besides weights. `open` raises CheckpointError."""

    folder: Path
    config: Any
    family: Family
    tokenizer: Any
    files: Mapping[str, Settings]  # of the processors, by name

    @classmethod
    def open(cls, folder: str | Path, *, attention: str = "sdpa") -> Checkpoint:
        folder = storage.bring_folder(Path(folder))
        config = config_of(folder)
        family = FAMILIES[config.model_type]
        files = processor_files(folder)
        tokenizer = None
        problems = [*_attention_problems(attention, config), *_weight_problems(folder)]
        try:
            tokenizer = tokenizer_of(folder)
            problems += tokenizer_problems(tokenizer, family)
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"its tokenizer cannot be read: {error}")
        problems += processor_problems(files, family, family.cut(config))
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise CheckpointError(f"{folder}: cannot be used as a {config.model_type} backbone:{lines}")
        return cls(folder, config, family, tokenizer, files)

    def weight_files(self) -> list[Path]:
        """Those that Transformers reads."""
        single, index = (self.folder / name for name in WEIGHTS)
        names = [single.name] if single.is_file() else sorted(set(_json(index)["weight_map"].values()))
        return [self.folder / name for name in names]

    def model(self, *, dtype: str, attention: str, quantization: BitsAndBytesConfig | None = None) -> nn.Module:
        """With its weights. Raises CheckpointError when they cannot be read or some are missing."""
        try:
            hf, loaded = AutoModelForImageTextToText.from_pretrained(
                self.folder, attn_implementation=attention_of(self.config, attention), dtype=getattr(torch, dtype),
                output_loading_info=True, quantization_config=quantization,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.folder}: its weights cannot be read: {error} Get it again: hf download"
            ) from error
        if loaded["missing_keys"]:
            some = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise CheckpointError(
                f"{self.folder}: {len(loaded['missing_keys'])} weights that config.json asks for are in no file, such as "
                f"{some}. It is incomplete, or of another version of the architecture."
            )
        return hf


def attention_of(config: Any, attention: str) -> dict[str, str]:
    """Per part of the model. Questions that are packed into one row need masks that flash attention does not have, so the
    decoder computes with sdpa there and flash attention is the vision tower's."""
    decoder = "sdpa" if attention == "flash_attention_2" else attention
    return {part: attention if part == "vision_config" else decoder for part in ("", *config.sub_configs)}


def video_processor(files: Mapping[str, Settings], family: Family, config: Any) -> VideoProcessor:
    """Raises CheckpointError where the files do not say what the family needs."""
    settings, cut = video_settings(files), family.cut(config)
    if problems := list(processor_problems(files, family, cut)):
        raise CheckpointError("\n".join(problems))
    return VideoProcessor(
        cut, tuple(settings["image_mean"]), tuple(settings["image_std"]), family.fit(settings, cut),
        family.resize(settings), whole_frames=not family.patches,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- reading


def config_of(folder: Path) -> Any:
    """Raises CheckpointError for what is no checkpoint of a known family."""
    found = _json(folder / "config.json")
    if (model_type := found.get("model_type")) not in FAMILIES:
        hint = suggestion(str(model_type), FAMILIES, label="Supported")
        raise CheckpointError(f"{folder / 'config.json'}: model_type {model_type!r} is not supported. {hint}")
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: cannot be used: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent}: not a checkpoint in Hugging Face layout, it has no {path.name}. Get one: hf download <name>"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error


def processor_files(folder: Path) -> dict[str, Settings]:
    """Those that are there, by name. Raises CheckpointError."""
    return {name: _json(folder / name) for name in PROCESSOR_FILES if (folder / name).is_file()}


def tokenizer_of(folder: Path) -> Any:
    """With the chat template that the processor would use: older checkpoints keep theirs beside the tokenizer's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    jinja, old = (folder / name for name in CHAT_TEMPLATES)
    if not jinja.is_file() and old.is_file():
        tokenizer.chat_template = _json(old)["chat_template"]
    return tokenizer


# --------------------------------------------------------------------------------------------------- problems


def _attention_problems(attention: str, config: Any) -> Iterator[str]:
    if "sliding_attention" in (getattr(config.text_config, "layer_types", None) or ()):
        yield "its decoder attends in sliding windows (use_sliding_window), which packed questions cannot."
    if attention not in get_args(Attention):
        yield f"attention {attention!r} is not known. {suggestion(attention, get_args(Attention))}"
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        yield (
            "attention flash_attention_2 is not installed: it needs an NVIDIA GPU and the package flash-attn. "
            "Install that, or set model.backbone.attention=sdpa."
        )


def _weight_problems(folder: Path) -> Iterator[str]:
    single, index = (folder / name for name in WEIGHTS)
    if not (single.is_file() or index.is_file()):
        yield f"it has neither {single.name} nor {index.name}. Download the whole of it: hf download"
    if index.is_file() and not single.is_file():
        shards = sorted(set(_json(index).get("weight_map", {}).values()))
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            yield (
                f"{len(missing)} of the {len(shards)} files that {index.name} names are missing: {', '.join(missing)}. "
                "Download the rest: hf download"
            )


def tokenizer_problems(tokenizer: Any, family: Family) -> Iterator[str]:
    known = tokenizer.get_vocab()
    if absent := [token for token in family.tokens if token not in known]:
        yield f"its tokenizer has no token {', '.join(absent)}. The tokenizer is of another model."
    try:
        chat_parts(tokenizer, family)
    except CheckpointError as error:
        yield str(error)


def processor_problems(files: Mapping[str, Settings], family: Family, cut: Patches) -> Iterator[str]:
    settings = video_settings(files)
    if not settings:
        yield f"none of {', '.join(PROCESSOR_FILES)} is there, so how pixels are to be normalised is not known."
        return
    for name in ("image_mean", "image_std"):
        if len(settings.get(name) or ()) != 3:
            yield f"its processor files give {name}={settings.get(name)!r}; three numbers are needed."
    for name, done in NOT_DONE_HERE.items():
        if settings.get(name) is not None and settings[name] not in done:
            yield f"its processor files give {name}={settings[name]!r}; only {done[0]!r} is implemented."
    wanted, name = RESAMPLING[family.resize]
    if settings.get("resample", wanted) not in (None, wanted):
        yield f"its processor files give resample={settings['resample']}; only {wanted} ({name}) is implemented."
    yield from _size_problems(settings, family, cut)


def _size_problems(settings: Settings, family: Family, cut: Patches) -> Iterator[str]:
    for name, here in (("patch_size", cut.patch), ("merge_size", cut.merge), ("temporal_patch_size", cut.temporal)):
        if family.patches and settings.get(name, here) != here:
            yield f"its processor files give {name}={settings[name]}, config.json says {here}."
    if family.side is None:
        return
    try:
        side = family.side(settings)
        family.resize(settings)
    except (KeyError, TypeError) as error:
        yield f"its processor files do not give the size of frames: {error} is missing."
        return
    if side != cut.side:
        yield f"its processor files make frames {side} pixels wide, config.json says {cut.side}."
