"""A teacher on this machine: a multimodal checkpoint in Hugging Face layout, decoded greedily."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F

from cluenet.errors import DataError
from cluenet.model.batch import PrefixBatch
from cluenet.model.vlm import Prefix, VisionLanguageModel
from cluenet.records import Frames
from cluenet_components._files import checkpoint_hash, existing_folder
from cluenet_components.clue_sources._teacher_cache import Request, Teacher
from cluenet_components.clue_sources._teacher_replies import LETTER_TOKENS, LETTERS, Reply


class LocalTeacher(Teacher):
    """On the first GPU if there is one. Raises DataError when the folder is no checkpoint."""

    def __init__(self, path: str, max_tokens: int):
        self._folder = existing_folder(path, "data.clue_source.path")
        if not (self._folder / "config.json").is_file():
            raise DataError(
                f"data.clue_source.path: {self._folder} has no config.json, so it is no checkpoint folder. Give one in "
                "Hugging Face layout, such as a run's model/backbone or what `hf download` made."
            )
        self._max_tokens, self._lock = max_tokens, threading.Lock()

    def identity(self) -> dict[str, Any]:
        """Configs and weight indices by content, weight files by size, as a backbone is named."""
        return {"weights": checkpoint_hash(self._folder), "max_tokens": self._max_tokens}

    @torch.no_grad()
    def ask(self, request: Request) -> Reply:
        with self._lock:
            if request.num_options and (found := self._letters(request)):
                return Reply(max(found, key=lambda letter: found[letter]), found)
            return Reply(self._text(request))

    @cached_property
    def _vlm(self) -> VisionLanguageModel:
        vlm = VisionLanguageModel.load(self._folder).eval()
        return vlm.to("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def _device(self) -> torch.device:
        return self._vlm.embeddings_VD.device

    def _letters(self, request: Request) -> dict[str, float] | None:
        """Log-probabilities of the option letters; None when the tokenizer has not so many."""
        ids = self._vlm.letter_ids()[: request.num_options]
        if len(ids) < request.num_options:
            return None
        logprobs_V = self._next(*self._start(request)).log_softmax(-1)
        return {LETTERS[index]: float(logprobs_V[token]) for index, token in enumerate(ids)}

    def _text(self, request: Request) -> str:
        prefix, tail, first = self._start(request)
        limit = LETTER_TOKENS if request.num_options else self._max_tokens
        new: list[int] = []
        while len(new) < limit:
            token = int(self._next(prefix, tail + new, first).argmax())
            if token in self._ends:
                break
            new.append(token)
        return str(self._vlm.tokenizer.decode(new, skip_special_tokens=True)).strip()

    @cached_property
    def _ends(self) -> set[int]:
        ends = getattr(getattr(self._vlm.hf, "generation_config", None), "eos_token_id", None)
        return {self._vlm.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def _next(self, prefix: Prefix | None, tail: list[int], first: int) -> torch.Tensor:
        """Logits [V] after `tail`, whose first token stands at position `first` behind the prefix."""
        ids_1L = torch.tensor([tail], device=self._device)
        positions_1L = torch.arange(first, first + len(tail), device=self._device)[None]
        causal_1LL = torch.ones(1, len(tail), len(tail), dtype=torch.bool, device=self._device).tril()
        embeds_1LD = F.embedding(ids_1L, self._vlm.embeddings_VD)
        states_1LD = self._vlm.text_pass(embeds_1LD, positions_1L, causal_1LL, prefix=prefix)
        return self._vlm.head(states_1LD[0, -1]).float()

    def _start(self, request: Request) -> tuple[Prefix | None, list[int], int]:
        """(states of the whole prompt but its last token, that token, its position); text alone has no such states."""
        vlm = self._vlm
        head, between, after = vlm.chat_parts()
        if request.frames is None:
            return None, vlm.ids(head) + vlm.ids(between) + vlm.ids(request.prompt) + vlm.ids(after), 0
        return self._seen(request.frames, vlm.ids(request.prompt) + vlm.ids(after))

    def _seen(self, frames: Frames, text: list[int]) -> tuple[Prefix, list[int], int]:
        vlm = self._vlm
        grid = vlm.grid(frames.frames_THWC, frames.seconds_T)
        ids = vlm.video_ids(grid) + text
        positions_3P = vlm.positions(ids, grid)
        ids_1P = torch.tensor([ids[:-1]])
        visual_1N = torch.nonzero(ids_1P[0] == vlm.placeholder)[None, :, 0]
        batch = PrefixBatch(
            vlm.pixels(frames.frames_THWC, grid), vlm.grid_thw([grid]), ids_1P, torch.ones_like(ids_1P, dtype=torch.bool),
            positions_3P[:, None, :-1], visual_1N, torch.ones_like(visual_1N, dtype=torch.bool),
        )  # fmt: skip
        prefix = vlm.prefix(batch.to(self._device), layer=None, whole=True)
        return prefix, ids[-1:], int(positions_3P[0, -1])
