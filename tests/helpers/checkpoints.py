"""Checkpoints of all five families as a hub has them, only tiny and with random weights: config.json, safetensors, a byte-level
BPE tokenizer with a chat template, preprocessor_config.json. Heads that share keys, DeepStack, windows: what real ones have."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import fit_tokenizer

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm")
HIDDEN, HEADS, PATCH, IMAGE = 64, 4, 4, 32
SPREAD = 4.0
"""Random weights are that much larger than HF's, so that the most probable token does not depend on rounding."""

SPECIALS = {
    "qwen2_5_vl": ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "qwen3_vl": ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    "llava_onevision": ("<image>", "<video>"),
    "internvl": ("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
    "smolvlm": ("<fake_token_around_image>", "<global-img>", "<image>", "<end_of_utterance>"),
}
VIDEO_SLOTS = {
    "qwen2_5_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "llava_onevision": "<video>\n",
    "internvl": "<video>\n",
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}SLOT{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_VIDEO = (  # as SmolVLM2's own: the processor takes another one when there is a video
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
NORMS = {  # unlike each other and unlike the defaults of the classes, so that a mix-up shows
    "qwen2_5_vl": ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]),
    "qwen3_vl": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    "llava_onevision": ([0.5, 0.4, 0.5], [0.5, 0.5, 0.4]),
    "internvl": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "smolvlm": ([0.5, 0.5, 0.6], [0.5, 0.4, 0.5]),
}


@functools.cache
def checkpoint(family: str) -> Path:
    """The folder; written once per process."""
    folder = Path(tempfile.mkdtemp(prefix=f"cluenet-{family}-"))
    write_checkpoint(family, folder)
    return folder


@functools.cache
def small_checkpoint(family: str) -> Path:
    """What the `tiny` backbone makes, not taught anything: one-token words, and blocks that are counted."""
    text = "which one hits red blue green cyan ? red hits blue . so red why does it move what"
    tokenizer = fit_tokenizer([text], blocks=8, max_words=100, family=family)
    sizes = {"hidden": 64, "layers": 3, "heads": 2, "vision_hidden": 32, "vision_layers": 2, "patch": 8, "image": 32}
    folder = Path(tempfile.mkdtemp(prefix=f"cluenet-small-{family}-"))
    new_model(tokenizer, family=family, seed=0, **sizes).save(folder)
    return folder


def write_checkpoint(family: str, folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = bpe_tokenizer(family)
    config = AutoConfig.for_model(family, tie_word_embeddings=False, **_config(family, tokenizer))
    hf = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.mul_(SPREAD)
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    name = "video_preprocessor_config.json" if family == "qwen3_vl" else "preprocessor_config.json"
    (folder / name).write_text(json.dumps(processor_settings(family), indent=2))


def bpe_tokenizer(family: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["which one hits red ? blue green cyan none _ A B C D Options: Reasoning: Frame from seconds"] * 20
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SPECIALS[family]]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus, trainer)
    template = WITHOUT_VIDEO if family == "smolvlm" else CHATML.replace("SLOT", VIDEO_SLOTS[family])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def processor_settings(family: str) -> dict:
    """As the family's files write them."""
    mean, std = NORMS[family]
    norm = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": mean,
        "image_std": std,
    }
    cut = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    return {
        "qwen2_5_vl": {**norm, **cut, "min_pixels": 16 * 16, "max_pixels": 48 * 48},
        "qwen3_vl": {**norm, **cut, "size": {"shortest_edge": 4 * 16 * 16, "longest_edge": 4 * 48 * 48}},
        "llava_onevision": {**norm, "size": {"height": IMAGE, "width": IMAGE}, "resample": 3},
        "internvl": {**norm, "size": {"height": IMAGE, "width": IMAGE}, "resample": 3, "crop_to_patches": False},
        "smolvlm": {**norm, "size": {"longest_edge": 2 * IMAGE}, "max_image_size": {"longest_edge": IMAGE}, "resample": 1,
                    "do_image_splitting": False},
    }[family]  # fmt: skip


def _config(family: str, tokenizer: PreTrainedTokenizerFast) -> dict:
    token, width = tokenizer.convert_tokens_to_ids, HIDDEN // HEADS
    text = {
        "vocab_size": len(tokenizer), "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": HEADS, "num_key_value_heads": 2, "max_position_embeddings": 8192,
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "patch_size": PATCH}
    patches = {
        **vision,
        "depth": 2,
        "num_heads": 2,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": HIDDEN,
    }
    frames = {**vision, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": IMAGE, "num_channels": 3}
    if "qwen" in family:
        names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        ids = dict(zip(names, token(list(SPECIALS[family]))))
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [width // 2 - 4, 2, 2]}
        if family == "qwen2_5_vl":
            windows = {"tokens_per_second": 2, "window_size": 16, "fullatt_block_indexes": [1]}
            return {"text_config": {**text, "rope_parameters": rope}, "vision_config": {**patches, **windows}, **ids}
        text |= {"head_dim": width, "rope_parameters": {**rope, "mrope_interleaved": True}}
        deep = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        return {"text_config": text, "vision_config": {**patches, **deep}, **ids}
    if family == "llava_onevision":
        vision_config = {**frames, "model_type": "siglip_vision_model", "vision_use_head": False}
        pinpoints = {"image_grid_pinpoints": [[IMAGE, IMAGE]]}
        ids = {"image_token_id": token("<image>"), "video_token_id": token("<video>")}
        return {"text_config": {**text, "model_type": "qwen2"}, "vision_config": vision_config, **ids, **pinpoints}
    if family == "internvl":
        size = {
            "image_seq_length": (IMAGE // PATCH) ** 2 // 4,
            "downsample_ratio": 0.5,
            "image_token_id": token("<IMG_CONTEXT>"),
        }
        return {"text_config": {**text, "model_type": "qwen2"}, "vision_config": frames, **size}
    smol = {"image_token_id": token("<image>"), "scale_factor": 2, "pad_token_id": tokenizer.pad_token_id}
    return {"text_config": {**text, "model_type": "llama"}, "vision_config": frames, **smol}
