"""A small model of a real Hugging Face architecture, from a config: nothing of it is our own decoder.

The sizes that learn ClueWorld on two CPU cores are the defaults of the `tiny` backbone; initial values follow what was
measured to train from scratch (wider embeddings, small residual outputs).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from cluenet.model.answer_rows import CHAIN_HEADING, OPTIONS_HEADING
from cluenet.model.families import FAMILIES
from cluenet.model.vlm import VisionLanguageModel, letter, time_label
from cluenet.model.vocabulary import ABSENT, NONE

PAD, UNKNOWN, END, ANSWER = "<pad>", "<unk>", "<eos>", "<answer>"
VISION = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)


def fit_tokenizer(texts: Iterable[str], *, blocks: int, max_words: int) -> PreTrainedTokenizerFast:
    """Word-level, lower case, fitted on `texts` alone; the most frequent `max_words` words, the rest is <unk>."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    kept = sorted(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_words])
    fixed = [ABSENT, NONE, *_words_of(splitter, normalizer, OPTIONS_HEADING + CHAIN_HEADING)]
    specials = [PAD, UNKNOWN, END, ANSWER, *VISION, *map(letter, range(8)), *map(time_label, range(blocks))]
    words = list(dict.fromkeys([*specials, *fixed, *kept]))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, chat_template=TEMPLATE
    )


def _words_of(splitter, normalizer, text: str) -> list[str]:
    return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]


def new_model(
    tokenizer: PreTrainedTokenizerFast, *, family: str, hidden: int, layers: int, heads: int, vision_hidden: int,
    vision_layers: int, patch: int, seed: int,
) -> VisionLanguageModel:  # fmt: skip
    """An untrained model. Raises KeyError for a family that `families.FAMILIES` does not have."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        text_config=_text_config(tokenizer, hidden, layers, heads),
        vision_config=_vision_config(hidden, vision_hidden, vision_layers, patch),
        tie_word_embeddings=True,
        cluenet_time_labels="index",
        **dict(zip(("vision_start_token_id", "vision_end_token_id", "video_token_id", "image_token_id"),
                   tokenizer.convert_tokens_to_ids(list(VISION)))),
    )  # fmt: skip
    hf = AutoModelForImageTextToText.from_config(config, attn_implementation="sdpa")
    for (
        name,
        parameter,
    ) in hf.named_parameters():  # small residual outputs: deep-narrow models train steadily from scratch
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers))
    return VisionLanguageModel(hf, tokenizer, mean=FAMILIES[family].mean, std=FAMILIES[family].std)


def _text_config(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, heads: int) -> dict:
    width = hidden // heads
    side = width * 5 // 32  # of the width/2 rotary frequencies, so many for height and for width; the rest is time
    return {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": hidden * 5 // 2,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width,
        "max_position_embeddings": 8192, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "initializer_range": 0.05,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_interleaved": True,
                            "mrope_section": [width // 2 - 2 * side, side, side]},
    }  # fmt: skip


def _vision_config(hidden: int, vision_hidden: int, layers: int, patch: int) -> dict:
    return {
        "depth": layers, "hidden_size": vision_hidden, "intermediate_size": 2 * vision_hidden, "num_heads": 2,
        "patch_size": patch, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3, "out_hidden_size": hidden,
        "num_position_embeddings": 64, "deepstack_visual_indexes": [], "hidden_act": "gelu", "initializer_range": 0.05,
    }  # fmt: skip
