"""One adapter over Hugging Face multimodal language models: passes with a shared prefix, for every family of `families.py`.

The video stands before the question, so in a causal model its states and its KV cache depend on the video alone: they are
computed once per clip (`prefix`) and every question about it continues from there (`text_pass`). The adapter depends on the
tokenizer and the model class only; pixels, prompts and positions are made here (`pixels.py`, `prompts.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, Cache
from transformers.utils import logging as hf_logging

from cluenet.model import kv_cache
from cluenet.model.families import FAMILIES, Family
from cluenet.model.grid import Grid
from cluenet.model.hooks import inputs_of
from cluenet.model.loading import Attention, Checkpoint, DType, video_processor
from cluenet.model.pixels import Settings
from cluenet.model.prefix import Prefix, with_prefix
from cluenet.model.prompts import Prompts
from cluenet.model.speed import use_attention_of_any_length, use_fast_vision
from cluenet.model.vision import EncodedClip, TowerStates, projected, tower_states
from cluenet.records import Frames

hf_logging.disable_progress_bar()  # a bar per loaded shard would fight with ours

T = TypeVar("T")


class VisionLanguageModel(Prompts, nn.Module):
    """A loaded multimodal LM. `load` takes a folder in Hugging Face layout."""

    def __init__(self, hf: nn.Module, tokenizer: Any, files: Mapping[str, Settings]):
        """files: the checkpoint's processor settings by file name (`pixels.PROCESSOR_FILES`)."""
        super().__init__()
        self.hf, self.tokenizer, self.files = hf, tokenizer, dict(files)
        self.config = hf.config
        self.family: Family = FAMILIES[hf.config.model_type]
        self.processor = video_processor(files, self.family, hf.config)
        self.recomputes = False  # gradient checkpointing: backward runs decoder layers again
        self._ids: dict[str, list[int]] = {}
        self._blocks_of: dict[Grid, tuple[Tensor, Tensor]] = {}
        use_attention_of_any_length()
        if self.family.patches:
            use_fast_vision(attrgetter(self.family.tower)(hf))

    # ------------------------------------------------------------------------------------ folders
    @classmethod
    def load(
        cls, folder: str | Path, *, dtype: DType = "float32", attention: Attention = "sdpa",
        quantization: BitsAndBytesConfig | None = None,
    ) -> VisionLanguageModel:  # fmt: skip
        """Raises CheckpointError when the folder is not a whole checkpoint of a known family, saying what is missing."""
        checkpoint = Checkpoint.open(folder, attention=attention)
        hf = checkpoint.model(dtype=dtype, attention=attention, quantization=quantization)
        return cls(hf, checkpoint.tokenizer, checkpoint.files)

    def save(self, folder: str | Path) -> None:
        """An ordinary Hugging Face folder: weights, config, tokenizer, and the processor settings as they were."""
        self.hf.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        for name, settings in self.files.items():
            (Path(folder) / name).write_text(json.dumps(settings, indent=2) + "\n")

    # ------------------------------------------------------------------------------------- pieces
    @property
    def text(self) -> nn.Module:
        return attrgetter(self.family.text)(self.hf)

    @property
    def _sdpa(self) -> bool:
        return self.text.config._attn_implementation == "sdpa"

    @property
    def width(self) -> int:
        return self.hf.config.text_config.hidden_size

    @property
    def layers(self) -> int:
        return self.hf.config.text_config.num_hidden_layers

    @property
    def embeddings_VD(self) -> Tensor:
        return self.hf.get_input_embeddings().weight

    @property
    def vision_parameters(self) -> dict[str, nn.Parameter]:
        """The vision tower's and the projector's, by name."""
        named, text = self.hf.named_parameters(), f"{self.family.text}."
        return {name: p for name, p in named if name.startswith("model.") and not name.startswith(text)}

    @property
    def matrices(self) -> dict[str, nn.Parameter]:
        """2-D hidden matrices of the decoder and of the vision part, by name: no embeddings, heads, norms or biases."""
        parts = (f"{self.family.text}.layers.", *self.family.matrices)
        return {name: p for name, p in self.hf.named_parameters() if p.ndim == 2 and name.startswith(parts)}

    def head(self, states: Tensor) -> Tensor:
        """[..., D] normalised states -> [..., V] logits."""
        head = self.hf.get_output_embeddings()
        return head(states.to(head.weight.dtype))

    def lens(self, states: Tensor) -> Tensor:
        """[..., D] states of any layer -> [..., V] logits, as if it were the last (the logit lens)."""
        return self.head(self.text.norm(states))

    # ------------------------------------------------------------------------------------- vision
    def grid(self, frames_THWC: np.ndarray, seconds_T: np.ndarray) -> Grid:
        """Visual tokens that the model makes of these frames."""
        return self.processor.grid(frames_THWC, seconds_T)

    def pixels(self, frames_THWC: np.ndarray, grid: Grid) -> Tensor:
        """uint8 frames as the vision tower takes them; those of several clips go one behind the other."""
        return self.processor.pixels(frames_THWC)

    def grid_of(self, clip: Frames | EncodedClip) -> Grid:
        return clip.grid if isinstance(clip, EncodedClip) else self.grid(clip.frames_THWC, clip.seconds_T)

    def grid_thw(self, grids: Sequence[Grid]) -> Tensor:
        """[B, 3] patches of every clip: temporal blocks, rows, columns."""
        return self.processor.patch_grid(grids)

    def tower(self, pixels: Tensor, grid_B3: Tensor) -> TowerStates:
        """What the vision tower makes of clips, before the projector: depends on no weight behind the tower. `pixels`: uint8 as
        they were cut, or normalised."""
        if pixels.dtype == torch.uint8:
            pixels = self.processor.normalised(pixels)
        return tower_states(self.hf, self.family, pixels.to(self.embeddings_VD.dtype), grid_B3)

    def tower_values(self, grid: Grid) -> int:
        """How many numbers the tower's states of a clip are: patches x width, for the projector and each DeepStack input."""
        levels = len(attrgetter(self.family.deepstack)(self.hf)) if self.family.deepstack else 0
        return int(self.grid_thw([grid]).prod()) * self.config.vision_config.hidden_size * (1 + levels)

    def project(self, tower: TowerStates) -> tuple[Tensor, list[Tensor]]:
        """Visual embeddings [sum of N, D] of all clips in order, and DeepStack inputs of the same shape; where a family has a
        token that belongs to no frame, it stands behind its clip's."""
        return projected(self.hf, self.family, tower)

    def encode(self, pixels: Tensor, grid_B3: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`project(tower(...))`."""
        return self.project(self.tower(pixels, grid_B3))

    def visual_tokens(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """[sum of N, D] embeddings of the visual tokens of all clips, without those that belong to no frame."""
        embeds, _ = self.encode(pixels, self.grid_thw(grids))
        clips = embeds.split([grid.tokens + self.family.extra_tokens for grid in grids])
        return torch.cat([clip[: grid.tokens] for clip, grid in zip(clips, grids)])

    def visual_inputs(self, batch_prefix) -> list[Tensor]:
        """What the decoder takes of all clips, each [sum of N, D]: embeddings, then DeepStack inputs."""
        known = batch_prefix.encoded
        visual, deepstack = self.project(known or self.tower(batch_prefix.pixels, batch_prefix.grid_B3))
        return [visual, *deepstack]

    # ------------------------------------------------------------------------------------- passes
    def prefix(
        self, batch_prefix, *, layer: int | None, whole: bool, visual: Sequence[Tensor] | None = None
    ) -> Prefix:  # fmt: skip
        """Run the shared prompt once. `layer`: tap the input of that decoder layer at the visual tokens;
        `whole` False: stop there, because nothing above it will be asked for. `visual`: what `visual_inputs` made before."""
        cache = self._cache_of_one_pass(None)
        _, tapped = self._run(tap=layer, stop=not whole, **self._prompt(batch_prefix, visual), past_key_values=cache)
        run = self.layers if whole else layer or 0
        states = None
        if layer is not None:
            index = batch_prefix.visual_index_BN[..., None].expand(-1, -1, self.width)
            states = tapped.gather(1, index)
        keys_values = [(entry.keys, entry.values) for entry in cache.layers[:run]]
        return Prefix(keys_values, batch_prefix.valid_BP, states, batch_prefix.visual_mask_BN)

    def _prompt(self, batch_prefix, visual: Sequence[Tensor] | None = None) -> dict[str, Any]:
        """The shared prompt as inputs of the decoder."""
        shown = [batch_prefix.shown(part) for part in visual or self.visual_inputs(batch_prefix)]
        embeds, deepstack = F.embedding(batch_prefix.ids_BP, self.embeddings_VD), shown[1:]
        is_visual = batch_prefix.ids_BP.eq(self.placeholder) & batch_prefix.valid_BP
        embeds = embeds.masked_scatter(is_visual[..., None], shown[0].to(embeds.dtype))
        count = embeds.shape[1]
        if embeds.is_cuda and self._sdpa and batch_prefix.valid_BP.all():
            mask = None  # causal and nothing else: a GPU has faster kernels for it (on a CPU they would only round otherwise)
        else:
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

    def _added(self, allowed: Tensor, dtype: torch.dtype) -> Tensor:
        """A mask as numbers that attention adds: once, and not in every layer. Eager attention wants finite ones."""
        least = -torch.inf if self._sdpa else torch.finfo(dtype).min
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, least)

    def _run(self, *, tap: int | None, stop: bool, **inputs) -> tuple[Tensor | None, Tensor | None]:
        """The decoder stack; `tap` catches the input of a layer. Not HF's own hidden states, because they miss DeepStack.

        The mask says True where a row may look; None: causal, with an empty cache."""
        if inputs["attention_mask"] is not None:
            inputs["attention_mask"] = self._added(inputs["attention_mask"], inputs["inputs_embeds"].dtype)
        if not self.family.multimodal_rope:
            inputs["position_ids"] = inputs["position_ids"][0]
        inputs["use_cache"] = not self.recomputes
        if tap is None:
            return self.text(**inputs).last_hidden_state.float(), None
        module = self.text.layers[tap] if tap < self.layers else self.text.norm
        out = None
        with inputs_of([module], stop_at=module if stop else None) as found:
            out = self.text(**inputs).last_hidden_state.float()
        return out, found[0].float()
