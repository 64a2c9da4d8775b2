"""The adapter with a byte-level BPE tokenizer, as released checkpoints have, instead of the word-level one of `tiny`."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cluenet.errors import CheckpointError
from cluenet.model.tiny import new_model
from cluenet.model.tiny_tokenizer import (
    ANSWER,
    END,
    PAD,
    UNKNOWN,
    chat_template,
    fit_tokenizer,
    special_tokens,
)
from cluenet.model.vlm import VisionLanguageModel
from cluenet.model.vocabulary import ClueVocabulary
from helpers.models import clip, example

SIZES = {
    "family": "qwen3_vl",
    "hidden": 64,
    "layers": 2,
    "heads": 2,
    "vision_hidden": 32,
    "vision_layers": 1,
    "patch": 8,
}


@pytest.fixture(scope="module")
def bpe() -> VisionLanguageModel:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [PAD, UNKNOWN, END, ANSWER, *special_tokens("qwen3_vl")]
    corpus = ["which one hits red ? blue green cyan none _ (A) red (B) blue (C) green (D) cyan"] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        chat_template=chat_template("qwen3_vl"),
    )
    vlm = new_model(fast, **SIZES, seed=0)
    vlm.hf.config.cluenet_time_labels = "seconds"
    return vlm


def test_option_letters_are_different_tokens(bpe):
    letters = bpe.letter_ids()
    assert len(letters) == len(set(letters)) == 26
    assert [bpe.tokenizer.decode([i]) for i in letters[:3]] == ["A", "B", "C"]


def test_a_split_time_label_is_no_word_and_the_clue_says_so(bpe):
    c = clip(0)
    grid = bpe.grid(c.frames_THWC, c.seconds_T)
    assert bpe.labels(grid) == ["<0.1 seconds>", "<0.6 seconds>"]
    vocabulary = ClueVocabulary(bpe, 4)
    when, *_ = vocabulary.encode(example(0).clues[0], grid)
    assert when == vocabulary.absent


def test_a_clip_with_more_blocks_than_labels_is_an_error():
    vlm = new_model(fit_tokenizer(["red"], blocks=2, max_words=16), **SIZES, seed=0)
    short, long = clip(0, frames=4), clip(0, frames=6)
    assert vlm.labels(vlm.grid(short.frames_THWC, short.seconds_T)) == ["<t0>", "<t1>"]
    with pytest.raises(CheckpointError, match=r"3 temporal blocks.*model\.backbone\.blocks"):
        vlm.labels(vlm.grid(long.frames_THWC, long.seconds_T))


def test_pixels_do_not_depend_on_the_tokenizer(bpe):
    c = clip(0)
    grid = bpe.grid(c.frames_THWC, c.seconds_T)
    word_level = new_model(fit_tokenizer(["red"], blocks=4, max_words=16), **SIZES, seed=0)
    assert torch.equal(bpe.pixels(c.frames_THWC, grid), word_level.pixels(c.frames_THWC, grid))
