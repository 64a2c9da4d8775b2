"""The tokenizer of a small backbone: word-level, fitted on the training split, in the dialect of a family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cluenet.model.answer_rows import CHAIN_HEADING, OPTIONS_HEADING
from cluenet.model.families import FAMILIES
from cluenet.model.grid import Grid
from cluenet.model.prompts import letter
from cluenet.model.video_text import time_label
from cluenet.model.vocabulary import ABSENT, NONE

PAD, UNKNOWN, END, ANSWER = "<pad>", "<unk>", "<eos>", "<answer>"
IMAGE_TOKENS = {"qwen2_5_vl": "<|image_pad|>", "qwen3_vl": "<|image_pad|>", "llava_onevision": "<image>"}
"""Which the model's config names, though no prompt here has an image."""


def special_tokens(family: str) -> tuple[str, ...]:
    """Of the family, without the letters and times that all have."""
    return (*FAMILIES[family].tokens, *([IMAGE_TOKENS[family]] if family in IMAGE_TOKENS else []))


def chat_template(family: str) -> str:
    video = FAMILIES[family].media_marks[0]
    return (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'video' %}" + video + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
    )


def fit_tokenizer(
    texts: Iterable[str], *, blocks: int, max_words: int, family: str = "qwen3_vl"
) -> PreTrainedTokenizerFast:
    """Word-level, lower case, fitted on `texts` alone; the most frequent `max_words` words, the rest is <unk>."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_words_of(splitter, normalizer, text))
    kept = sorted(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_words])
    own = [*special_tokens(family), *map(letter, range(8)), *map(time_label, range(blocks))]
    specials = [PAD, UNKNOWN, END, ANSWER, *own]
    fixed = [ABSENT, NONE, *_words_of(splitter, normalizer, OPTIONS_HEADING + CHAIN_HEADING + _around_videos(family))]
    words = list(dict.fromkeys([*specials, *fixed, *kept]))
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, chat_template=chat_template(family)
    )


def _around_videos(family: str) -> str:
    """The words that the family's prompts have around a video."""
    text = str(FAMILIES[family].video_text(Grid(1, 1, 1, (0.0,)), [""]))
    for token in FAMILIES[family].tokens:
        text = text.replace(token, " ")
    return f" {text}"


def _words_of(splitter: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer, text: str) -> list[str]:
    return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
