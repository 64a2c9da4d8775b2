"""Prompts with one video, as token ids and positions: through the checkpoint's own tokenizer and chat template."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from cluenet.errors import CheckpointError
from cluenet.model import positions
from cluenet.model.families import Family
from cluenet.model.grid import Grid
from cluenet.model.video_text import time_label

MOST_REMEMBERED = 200_000
"""Texts whose token ids are kept."""
MOST_GRIDS = 1_000
"""Shapes of clips whose prompts' columns are kept."""

_QUESTION_MARK = "\x00question\x00"


def letter(index: int) -> str:
    """(A), (B), ... as options are named in prompts."""
    return f"({chr(ord('A') + index)})"


def chat_parts(tokenizer: Any, family: Family) -> tuple[str, str, str]:
    """See `Prompts.chat_parts`. Raises CheckpointError for a chat template that has no place for a video."""
    for template in filter(None, (tokenizer.chat_template, family.template)):
        before, _, after = _rendered(tokenizer, template).partition(_QUESTION_MARK)
        for mark in family.media_marks:
            if mark in before:
                head, _, between = before.partition(mark)
                return head, between, after
    wanted = " or ".join(family.media_marks)
    raise CheckpointError(
        f"the tokenizer's chat template has no place for a video: it would write {wanted} for one. Take the chat or instruct "
        "version of the model."
    )


def _rendered(tokenizer: Any, template: str) -> str:
    """Empty for a template that takes text only."""
    content = [{"type": "video"}, {"type": "text", "text": _QUESTION_MARK}]
    message = [{"role": "user", "content": content}]
    try:
        return tokenizer.apply_chat_template(
            message, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except (TemplateError, TypeError):
        return ""


class Prompts:
    """The part of `VisionLanguageModel` that needs no weights."""

    config: Any
    family: Family
    tokenizer: Any
    _ids: dict[str, list[int]]
    _blocks_of: dict[Grid, tuple[Tensor, Tensor]]

    # -------------------------------------------------------------------------------------- words
    def ids(self, text: str) -> list[int]:
        """Token ids without special tokens. Remembered: questions and options come again every epoch."""
        if text not in self._ids:
            if len(self._ids) >= MOST_REMEMBERED:
                self._ids.clear()
            self._ids[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return list(self._ids[text])

    def word_id(self, word: str) -> int:
        """First token of a word as it stands inside a sentence."""
        return (self.ids(f" {word}") or [self.tokenizer.unk_token_id or 0])[0]

    def is_word(self, word: str) -> bool:
        """Whether the tokenizer has it as one token of its own."""
        ids = self.ids(word)
        return len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id

    @property
    def pad(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def letter_ids(self) -> list[int]:
        """The token of each option's letter, A first: `(A)` where that is one token, else `A`. As many as are distinct."""
        whole = self.is_word(letter(0))
        names = [letter(index) if whole else chr(ord("A") + index) for index in range(26)]
        found: list[int] = []
        for name in names:
            if not self.is_word(name) or self.ids(name)[0] in found:
                break
            found += self.ids(name)
        return found

    # ------------------------------------------------------------------------------------- prompt
    def chat_parts(self) -> tuple[str, str, str]:
        """Text before the video, between video and question, and after the question (up to where the answer starts)."""
        return chat_parts(self.tokenizer, self.family)

    def labels(self, grid: Grid) -> list[str]:
        """How the prompt names each temporal block; a clue's `when` is one of these. Empty where it does not name them.

        Raises CheckpointError for a clip with more blocks than a model that counts them has words for.
        """
        if getattr(self.config, "cluenet_time_labels", "seconds") == "index":
            if not self.is_word(time_label(grid.blocks - 1)):
                raise CheckpointError(
                    f"a clip has {grid.blocks} temporal blocks, more than the backbone has time labels for. Sample fewer "
                    "frames (data.sampler), or raise model.backbone.blocks and train again."
                )
            return [time_label(index) for index in range(grid.blocks)]
        return [self.family.label(block, seconds) for block, seconds in enumerate(grid.seconds)]

    @property
    def placeholder(self) -> int:
        return getattr(self.config, self.family.placeholder)

    def video_ids(self, grid: Grid) -> list[int]:
        """Prompt up to the question: chat head, video, and what stands between."""
        head, between, _ = self.chat_parts()
        video = self.family.video_text(grid, self.labels(grid))
        return self.ids(head) + self.ids(str(video)) + self.ids(between)

    def kept_columns(self, grid: Grid, kept_N: Tensor) -> Tensor:
        """Columns of `video_ids(grid)` that are left of a pruned video, ascending: kept visual tokens, and all text but what
        stands around blocks of which nothing is kept. Positions are those of the whole prompt at these columns.

        kept_N: bool. A placeholder that belongs to no frame stays.
        """
        block_P, visual_P = self._blocks(grid)
        keep_P = torch.cat([kept_N.view(grid.blocks, -1).any(1), torch.ones(1, dtype=torch.bool)])[block_P]
        keep_P[visual_P] = kept_N
        return keep_P.nonzero()[:, 0]

    def _blocks(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Of `video_ids(grid)`: which temporal block every token belongs to, -1 where to none; and columns of the visual
        tokens. Remembered: every question about a clip asks again."""
        if grid not in self._blocks_of:
            if len(self._blocks_of) >= MOST_GRIDS:
                self._blocks_of.clear()
            head, between, _ = self.chat_parts()
            video = self.family.video_text(grid, self.labels(grid))
            encoded = self.tokenizer(str(video), add_special_tokens=False, return_offsets_mapping=True)
            ends = list(accumulate(map(len, (video.before, *video.blocks))))
            found = [bisect_right(ends, start) - 1 for start, _ in encoded.offset_mapping]
            here = [block if block < grid.blocks else -1 for block in found]
            block_P = torch.tensor([*[-1] * len(self.ids(head)), *here, *[-1] * len(self.ids(between))])
            visual_P = torch.tensor(self.video_ids(grid)).eq(self.placeholder).nonzero()[: grid.tokens, 0]
            self._blocks_of[grid] = block_P, visual_P
        return self._blocks_of[grid]

    def positions(self, ids: Sequence[int], grid: Grid) -> Tensor:
        """[3, P] rotary positions of a whole prompt with one video; families with one axis take the first."""
        if not self.family.multimodal_rope:
            return positions.counted(len(ids))
        speed, placeholder = getattr(self.config.vision_config, "tokens_per_second", 1), self.placeholder
        return positions.multimodal([token == placeholder for token in ids], grid, tokens_per_second=speed)
