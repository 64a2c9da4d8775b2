"""One adapter over Hugging Face multimodal language models: pixels, prompts, positions, and passes with a shared prefix.

The video stands before the question, so in a causal model its states and its KV cache depend on the video alone: they are
computed once per clip (`prefix`) and every question about it continues from there (`text_pass`). The adapter depends on the
tokenizer and the model class only; pixels and positions are made here because HF video processors need torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoTokenizer, BitsAndBytesConfig, Cache
from transformers.utils import logging as hf_logging

from cluenet.errors import CheckpointError, suggestion
from cluenet.model import kv_cache
from cluenet.model.families import FAMILIES, Family
from cluenet.model.speed import use_fast_vision

hf_logging.disable_progress_bar()  # a bar per loaded shard would fight with ours

MOST_REMEMBERED = 200_000
"""Texts whose token ids are kept."""

T = TypeVar("T")
_QUESTION_MARK = "\x00question\x00"


@dataclass(frozen=True)
class Grid:
    """Visual tokens of one clip: `blocks` temporal blocks of `rows` x `cols` tokens; N = blocks * rows * cols."""

    blocks: int
    rows: int
    cols: int
    seconds: tuple[float, ...]  # middle of every block, from the start of the clip

    @property
    def tokens(self) -> int:
        return self.blocks * self.rows * self.cols


@dataclass
class Prefix:
    """What questions about a batch of clips share."""

    keys_values: list[tuple[Tensor, Tensor]]  # per layer run: [B, heads, P, head width]
    valid_BP: Tensor  # bool, False on padding
    visual_BND: Tensor | None  # states at the clue layer, None when no clue layer was asked for
    visual_mask_BN: Tensor

    def only(self, b: int) -> Prefix:
        """The prefix of one clip, as a batch of one."""
        one = slice(b, b + 1)
        states = None if self.visual_BND is None else self.visual_BND[one]
        return Prefix(
            [(k[one], v[one]) for k, v in self.keys_values], self.valid_BP[one], states, self.visual_mask_BN[one]
        )


class _Stop(Exception):  # noqa: N818  (control flow, not an error)
    """Ends a forward pass early."""


class VisionLanguageModel(nn.Module):
    """A loaded multimodal LM. `load` takes a local folder in Hugging Face layout (or a hub id that is cached)."""

    def __init__(self, hf: nn.Module, tokenizer, *, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.hf, self.tokenizer = hf, tokenizer
        self.family: Family = FAMILIES[hf.config.model_type]
        self.mean, self.std = tuple(mean), tuple(std)
        vision = hf.config.vision_config
        self.patch, self.temporal_patch, self.merge = (
            vision.patch_size,
            vision.temporal_patch_size,
            vision.spatial_merge_size,
        )
        self.recomputes = False  # set by `tuning.recompute_activations`
        self._ids: dict[str, list[int]] = {}
        self._positions: dict[tuple[int, ...], Tensor] = {}
        use_fast_vision(attrgetter(self.family.tower)(hf))

    # ------------------------------------------------------------------------------------ folders
    @classmethod
    def load(
        cls, folder: str | Path, *, attention: str = "sdpa", quantization: BitsAndBytesConfig | None = None
    ) -> VisionLanguageModel:
        """Raises CheckpointError when the folder is not a checkpoint of a known family."""
        try:
            hf = AutoModelForImageTextToText.from_pretrained(
                folder, attn_implementation=attention, dtype=torch.float32, quantization_config=quantization
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: not a Hugging Face multimodal checkpoint: {error}") from error
        if hf.config.model_type not in FAMILIES:
            hint = suggestion(hf.config.model_type, FAMILIES, label="Supported")
            raise CheckpointError(f"{folder}: model_type {hf.config.model_type!r} is not supported. {hint}")
        family, settings = FAMILIES[hf.config.model_type], Path(folder) / "preprocessor_config.json"
        norm = json.loads(settings.read_text()) if settings.exists() else {}
        return cls(hf, tokenizer, mean=norm.get("image_mean", family.mean), std=norm.get("image_std", family.std))

    def save(self, folder: str | Path) -> None:
        """An ordinary Hugging Face folder: weights, config, tokenizer, normalisation."""
        self.hf.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        norm = {"image_mean": list(self.mean), "image_std": list(self.std)}
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(norm, indent=2) + "\n")

    # ------------------------------------------------------------------------------------- pieces
    @property
    def text(self) -> nn.Module:
        return attrgetter(self.family.text)(self.hf)

    @property
    def width(self) -> int:
        return self.hf.config.text_config.hidden_size

    @property
    def layers(self) -> int:
        return self.hf.config.text_config.num_hidden_layers

    @property
    def embeddings_VD(self) -> Tensor:
        return self.hf.get_input_embeddings().weight

    def head(self, states: Tensor) -> Tensor:
        """[..., D] normalised states -> [..., V] logits."""
        return self.hf.get_output_embeddings()(states)

    def lens(self, states: Tensor) -> Tensor:
        """[..., D] states of any layer -> [..., V] logits, as if it were the last (the logit lens)."""
        return self.head(self.text.norm(states))

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

    def chat_parts(self) -> tuple[str, str, str]:
        """Text before the video, between video and question, and after the question (up to where the answer starts)."""
        content = [{"type": "video"}, {"type": "text", "text": _QUESTION_MARK}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        before, _, after = text.partition(_QUESTION_MARK)
        mark = next((mark for mark in self.family.media_marks if mark in before), None)
        if mark is None:
            raise CheckpointError(f"the chat template has no video slot; expected one of {self.family.media_marks}")
        head, _, between = before.partition(mark)
        return head, between, after

    # ------------------------------------------------------------------------------------- pixels
    def grid(self, frames_THWC: np.ndarray, seconds_T: np.ndarray) -> Grid:
        step = self.patch * self.merge
        _, height, width, _ = frames_THWC.shape
        times = [float(part.mean()) for part in self._pad_time(seconds_T).reshape(-1, self.temporal_patch)]
        return Grid(len(times), max(1, round(height / step)), max(1, round(width / step)), tuple(times))

    def _pad_time(self, values: np.ndarray) -> np.ndarray:
        missing = -len(values) % self.temporal_patch
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])

    def pixels(self, frames_THWC: np.ndarray, grid: Grid) -> Tensor:
        """uint8 frames -> [patches, C * temporal patch * patch * patch] in Qwen's order (merge blocks contiguous)."""
        x = torch.from_numpy(self._pad_time(np.asarray(frames_THWC))).permute(0, 3, 1, 2)
        m, p, t = self.merge, self.patch, self.temporal_patch
        size = (grid.rows * m * p, grid.cols * m * p)
        if tuple(x.shape[-2:]) != size:  # on uint8, as the HF processors do
            x = F.interpolate(x.contiguous(), size=size, mode="bicubic", antialias=True, align_corners=False)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (self.mean, self.std))
        x = (x.float() - mean) / std
        x = x.reshape(grid.blocks, t, 3, grid.rows, m, p, grid.cols, m, p).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return x.reshape(-1, 3 * t * p * p)

    def grid_thw(self, grids: Sequence[Grid]) -> Tensor:
        return torch.tensor([[g.blocks, g.rows * self.merge, g.cols * self.merge] for g in grids])

    # ------------------------------------------------------------------------------------ prompts
    def labels(self, grid: Grid) -> list[str]:
        """How the prompt names each temporal block; a clue's `when` is one of these.

        Raises CheckpointError for a clip with more blocks than a model that counts them has words for.
        """
        if getattr(self.hf.config, "cluenet_time_labels", "seconds") == "index":
            if not self.is_word(time_label(grid.blocks - 1)):
                raise CheckpointError(
                    f"a clip has {grid.blocks} temporal blocks, more than the backbone has time labels for. Sample fewer "
                    "frames (data.sampler), or raise model.backbone.blocks and train again."
                )
            return [time_label(index) for index in range(grid.blocks)]
        return [f"<{seconds:.1f} seconds>" for seconds in grid.seconds]

    def video_ids(self, grid: Grid) -> list[int]:
        """Prompt up to the question: chat head, video, and what stands between."""
        head, between, _ = self.chat_parts()
        video = self.family.video_prompt(self.labels(grid), grid.rows * grid.cols)
        return self.ids(head) + self.ids(video) + self.ids(between)

    @property
    def placeholder(self) -> int:
        return getattr(self.hf.config, self.family.placeholder)

    def positions(self, ids: list[int], grid: Grid) -> Tensor:
        """[3, P] rotary positions of a prompt with one video, from the model's own rule."""
        key = (len(ids), ids.index(self.placeholder), grid.blocks, grid.rows, grid.cols)
        if key not in self._positions:
            ids_1P = torch.tensor([ids])
            positions, _ = self.hf.model.get_rope_index(
                ids_1P, mm_token_type_ids=(ids_1P == self.placeholder).int() * 2, video_grid_thw=self.grid_thw([grid])
            )
            self._positions[key] = positions[:, 0]
        return self._positions[key]

    # ------------------------------------------------------------------------------------- passes
    def encode(self, pixels: Tensor, grid_B3: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Visual embeddings [sum of N, D] of all clips in order, and DeepStack inputs of the same shape."""
        out = attrgetter(self.family.tower)(self.hf)(pixels, grid_thw=grid_B3)
        return out.pooler_output, list(out.deepstack_features or [])

    def prefix(self, batch_prefix, *, layer: int | None, whole: bool) -> Prefix:
        """Run the shared prompt once. `layer`: tap the input of that decoder layer at the visual tokens;
        `whole` False: stop there, because nothing above it will be asked for."""
        cache = self._cache_of_one_pass(None)
        _, tapped = self._run(tap=layer, stop=not whole, **self._prompt(batch_prefix), past_key_values=cache)
        run = self.layers if whole else layer or 0
        states = None
        if layer is not None:
            index = batch_prefix.visual_index_BN[..., None].expand(-1, -1, self.width)
            states = tapped.gather(1, index)
        keys_values = [(entry.keys, entry.values) for entry in cache.layers[:run]]
        return Prefix(keys_values, batch_prefix.valid_BP, states, batch_prefix.visual_mask_BN)

    def _prompt(self, batch_prefix) -> dict[str, Any]:
        """The shared prompt as inputs of the decoder."""
        visual, deepstack = self.encode(batch_prefix.pixels, batch_prefix.grid_B3)
        embeds = F.embedding(batch_prefix.ids_BP, self.embeddings_VD)
        is_visual = batch_prefix.ids_BP.eq(self.placeholder) & batch_prefix.valid_BP
        embeds = embeds.masked_scatter(is_visual[..., None], visual.to(embeds.dtype))
        count = embeds.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=embeds.device).tril()
        diagonal = torch.eye(count, dtype=torch.bool, device=embeds.device)
        mask = (causal & batch_prefix.valid_BP[:, None, :] | diagonal)[:, None]
        extra = {"visual_pos_masks": is_visual, "deepstack_visual_embeds": deepstack} if deepstack else {}
        return {
            "inputs_embeds": embeds, "attention_mask": mask, "position_ids": batch_prefix.positions_3BP, **extra
        }  # fmt: skip

    def read_layers(self, batch_prefix, read: Callable[[Tensor], T]) -> list[T]:
        """What `read` makes of the visual tokens' normalised states [B, N, D] after decoder layers 1 to `layers`, in one pass.

        The LM head on these is the logit lens. One layer's states are held at a time."""
        index = batch_prefix.visual_index_BN[..., None].expand(-1, -1, self.width)
        found: list[T] = []

        def grab(module, args, kwargs):
            states = args[0] if args else kwargs["hidden_states"]
            found.append(read(self.text.norm(states.gather(1, index))))

        handles = [layer.register_forward_pre_hook(grab, with_kwargs=True) for layer in self.text.layers[1:]]
        try:
            cache = self.cache(None)
            out, _ = self._run(tap=None, stop=False, **self._prompt(batch_prefix), past_key_values=cache)
        finally:
            for handle in handles:
                handle.remove()
        return [*found, read(out.gather(1, index))]

    def text_pass(
        self,
        embeds_BLD: Tensor,
        positions_BL: Tensor,
        allowed_BLL: Tensor,
        *,
        prefix: Prefix | None,
        stop_at: int | None = None,
    ) -> Tensor:
        """States [B, L, D]: normalised output of the whole stack, or with `stop_at` the input of that layer.

        `allowed_BLL` says which text rows each row may look at; with `prefix` every row also sees the whole video."""
        mask = with_prefix(allowed_BLL, prefix)
        return self.cached_pass(embeds_BLD, positions_BL, mask, self._cache_of_one_pass(prefix), stop_at=stop_at)

    def cache(self, prefix: Prefix | None) -> Cache:
        """A cache that holds the prefix, for passes that go on from each other; the prefix itself stays as it is."""
        return kv_cache.growing(self.hf.config.text_config, prefix.keys_values if prefix is not None else ())

    def _cache_of_one_pass(self, prefix: Prefix | None) -> Cache:
        """Like `cache`; where the backward pass runs layers again, one that they may find as it was."""
        if self.recomputes and torch.is_grad_enabled():
            return kv_cache.replayable(self.layers, prefix.keys_values if prefix is not None else ())
        return self.cache(prefix)

    def cached_pass(
        self, embeds_BLD: Tensor, positions_BL: Tensor, allowed_BLC: Tensor, cache: Cache, *, stop_at: int | None = None
    ) -> Tensor:  # fmt: skip
        """Like `text_pass`, on top of what the cache holds, and these rows stay in it. `allowed_BLC`: which of all C
        columns, cached ones first, each of the L rows may look at."""
        out, tapped = self._run(
            tap=stop_at, stop=True, inputs_embeds=embeds_BLD, attention_mask=allowed_BLC[:, None],
            position_ids=positions_BL[None].expand(3, -1, -1), past_key_values=cache,
        )  # fmt: skip
        return out if stop_at is None else tapped

    def _run(self, *, tap: int | None, stop: bool, **inputs) -> tuple[Tensor | None, Tensor | None]:
        """The decoder stack; `tap` catches the input of a layer. A pre-hook, because HF's own hidden states miss DeepStack."""
        if self.text.config._attn_implementation == "eager":  # it adds the mask, and a bool would add 1
            allowed, dtype = inputs["attention_mask"], inputs["inputs_embeds"].dtype
            inputs["attention_mask"] = torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype)
        if tap is None:
            return self.text(**inputs, use_cache=not self.recomputes).last_hidden_state, None
        box: dict[str, Tensor] = {}

        def grab(module, args, kwargs):
            box["states"] = args[0] if args else kwargs["hidden_states"]
            if stop:
                raise _Stop

        module = self.text.layers[tap] if tap < self.layers else self.text.norm
        handle = module.register_forward_pre_hook(grab, with_kwargs=True)
        try:
            return self.text(**inputs, use_cache=not self.recomputes).last_hidden_state, box["states"]
        except _Stop:
            return None, box["states"]
        finally:
            handle.remove()


def with_prefix(allowed_BLL: Tensor, prefix: Prefix | None) -> Tensor:
    """[B, L, P + L] what rows may look at when a prefix stands before them: all of it, and `allowed_BLL`."""
    if prefix is None:
        return allowed_BLL
    seen = prefix.valid_BP[:, None, :].expand(-1, allowed_BLL.shape[1], -1)
    return torch.cat([seen, allowed_BLL], dim=-1)


def letter(index: int) -> str:
    """(A), (B), ... as options are named in prompts."""
    return f"({chr(ord('A') + index)})"


def time_label(index: int) -> str:
    """The word that names temporal block `index` in prompts of models that count blocks instead of seconds."""
    return f"<t{index}>"
