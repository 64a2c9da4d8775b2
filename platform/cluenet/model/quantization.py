"""The 4-bit base of QLoRA, by bitsandbytes, which is an optional extra."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig

from cluenet.config.tuning import QloraTuning
from cluenet.model.families import FAMILIES


def missing() -> str | None:
    """What to do where bitsandbytes is not installed; None where it is."""
    if find_spec("bitsandbytes") is not None:
        return None
    return "qlora needs bitsandbytes, which is not installed. Install it with: pip install cluenet[qlora]"


def config_of(tuning: QloraTuning, *, bf16: bool) -> BitsAndBytesConfig:
    """How the language model is held: in 4 bits. Tower, projector, embeddings and head stay as they are."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=tuning.quantization,
        bnb_4bit_use_double_quant=tuning.double_quantization,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
        llm_int8_skip_modules=["lm_head", *sorted({path for f in FAMILIES.values() for path in (f.tower, f.projector)})],
    )  # fmt: skip
