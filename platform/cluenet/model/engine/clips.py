"""Clips that were watched: their prompts and what the model has seen, one by one to keep, together to ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from torch import Tensor

from cluenet.model.batch import PrefixBatch
from cluenet.model.grid import Grid
from cluenet.model.padding import stacked
from cluenet.model.pipeline import ClueNet
from cluenet.model.prefix import Prefix
from cluenet.records import Frames

CLIP_DIMENSIONS = {"positions_3BP": 1}
"""Where a field's clips are, where that is not the first dimension."""


@dataclass
class Watched:
    """One clip. `prefix` None: the model looks at no video."""

    grid: Grid
    prompt: PrefixBatch  # of one clip, its pixels dropped
    prefix: Prefix | None

    @property
    def bytes(self) -> int:
        """Of all its tensors."""
        tensors = [
            value for item in fields(self.prompt) if isinstance(value := getattr(self.prompt, item.name), Tensor)
        ]
        if self.prefix is not None:
            tensors += [part for pair in self.prefix.keys_values for part in pair]
            tensors += [self.prefix.valid_BP, self.prefix.visual_mask_BN]
            seen = (self.prefix.visual_BND, self.prefix.visual_inputs_SBMD)
            tensors += [tensor for tensor in seen if tensor is not None]
        return sum(tensor.nbytes for tensor in tensors)


def watch(model: ClueNet, clips: Sequence[Frames], *, device: str) -> list[Watched]:
    """Every clip, watched in one pass."""
    grids = [model.vlm.grid_of(clip) for clip in clips]
    prompts = model.collator.prefix(clips, grids).to(device)
    with model.inference():
        prefix = model.watch(prompts)
    extra = model.vlm.family.extra_tokens
    return [
        Watched(grid, _prompt_of(prompts, b), None if prefix is None else _cut(prefix, b, grid.tokens, extra))
        for b, grid in enumerate(grids)
    ]


def _prompt_of(prompts: PrefixBatch, b: int) -> PrefixBatch:
    """Of one clip without padding, and without pixels: nobody looks at them again."""
    length, tokens = int(prompts.valid_BP[b].sum()), int(prompts.visual_mask_BN[b].sum())
    one = slice(b, b + 1)
    return replace(
        prompts, pixels=prompts.pixels[:0], encoded=None, grid_B3=prompts.grid_B3[one], ids_BP=prompts.ids_BP[one, :length].clone(),
        valid_BP=prompts.valid_BP[one, :length].clone(), positions_3BP=prompts.positions_3BP[:, one, :length].clone(),
        visual_index_BN=prompts.visual_index_BN[one, :tokens].clone(),
        visual_mask_BN=prompts.visual_mask_BN[one, :tokens].clone(),
    )  # fmt: skip


def _cut(prefix: Prefix, b: int, tokens: int, extra: int) -> Prefix:
    """Of one clip without padding. extra: inputs of the decoder that belong to no frame."""
    """Of one clip without padding; copies, so that the batch's memory is given back."""
    one, length = prefix.only(b), int(prefix.valid_BP[b].sum())
    return Prefix(
        [(keys[:, :, :length].clone(), values[:, :, :length].clone()) for keys, values in one.keys_values],
        one.valid_BP[:, :length].clone(), None if one.visual_BND is None else one.visual_BND[:, :tokens].clone(),
        one.visual_mask_BN[:, :tokens].clone(),
        None if one.visual_inputs_SBMD is None else one.visual_inputs_SBMD[:, :, : tokens + extra].clone(),
    )  # fmt: skip


def together(clips: Sequence[Watched]) -> tuple[PrefixBatch, Prefix | None]:
    """Prompts and prefixes of a batch of clips, padded on the right."""
    prompts = [clip.prompt for clip in clips]
    names = [item.name for item in fields(PrefixBatch) if item.name != "encoded"]  # pixels and states are dropped
    prompt = PrefixBatch(
        **{name: stacked([getattr(one, name) for one in prompts], CLIP_DIMENSIONS.get(name, 0)) for name in names}
    )
    prefixes = [clip.prefix for clip in clips if clip.prefix is not None]
    if not prefixes:
        return prompt, None
    layers = range(len(prefixes[0].keys_values))
    keys_values = [
        (stacked([one.keys_values[i][0] for one in prefixes]), stacked([one.keys_values[i][1] for one in prefixes]))
        for i in layers
    ]
    seen = [one.visual_BND for one in prefixes if one.visual_BND is not None]
    inputs = [one.visual_inputs_SBMD for one in prefixes if one.visual_inputs_SBMD is not None]
    return prompt, Prefix(
        keys_values, stacked([one.valid_BP for one in prefixes]), stacked(seen) if seen else None,
        stacked([one.visual_mask_BN for one in prefixes]), stacked(inputs, 1) if inputs else None,
    )  # fmt: skip
