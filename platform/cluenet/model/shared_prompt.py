"""The part of a prompt that all questions about a clip share, as tensors: chat head, video, and what stands before a question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cluenet.model.grid import Grid
from cluenet.model.packing import Movable
from cluenet.model.vision import EncodedClip, TowerStates
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Frames


@dataclass
class PrefixBatch(Movable):
    """The shared prompt of every clip, padded on the right."""

    pixels: Tensor  # uint8, of all clips, one behind the other, laid out for the vision tower; empty with `encoded`
    grid_B3: Tensor  # patches: blocks, rows, cols
    ids_BP: Tensor
    valid_BP: Tensor
    positions_3BP: Tensor
    visual_index_BN: Tensor  # column of every visual token in the prompt
    visual_mask_BN: Tensor  # False on padding and on tokens that were pruned
    encoded: TowerStates | None = field(default=None, kw_only=True)
    """Of all clips, where the tower has seen them before."""

    @property
    def text_starts(self) -> list[int]:
        """First position of the text after each clip's prompt."""
        starts: list[int] = (self.positions_3BP.amax(dim=(0, 2)) + 1).tolist()
        return starts

    def shown(self, embeds_MD: Tensor) -> Tensor:
        """What the prompts have of the embeddings that the model makes of all clips."""
        return embeds_MD


@dataclass
class PrunedPrefixBatch(PrefixBatch):
    """Prompts with a part of the visual tokens. What is left has the positions it had."""

    kept_M: Tensor  # bool: of the embeddings that the model makes of all clips
    columns_BP: Tensor  # of the whole prompt, that are left; 0 on padding
    starts: list[int]

    @property
    def text_starts(self) -> list[int]:
        return self.starts

    def shown(self, embeds_MD: Tensor) -> Tensor:
        return embeds_MD[self.kept_M]


def prefix_batch(
    vlm: VisionLanguageModel, clips: Sequence[Frames | EncodedClip], grids: Sequence[Grid], *, kept: Sequence[Tensor] | None = None
) -> PrefixBatch:  # fmt: skip
    """`kept`: bool [N] per clip, which visual tokens the decoder gets to see; what the prompt says around blocks of which
    nothing is left goes too. None: all, nothing is pruned."""
    if kept is not None:
        pruned, (pixels, encoded) = pruned_batch(vlm, grids, kept), _video(vlm, clips)
        return replace(pruned, pixels=pixels, encoded=encoded)
    prompts, (pixels, encoded) = _prompts(vlm, grids), _video(vlm, clips)
    return PrefixBatch(pixels, *_tensors(vlm, [prompts[grid] for grid in grids], grids), encoded=encoded)


def pruned_batch(vlm: VisionLanguageModel, grids: Sequence[Grid], kept: Sequence[Tensor]) -> PrunedPrefixBatch:
    """Prompts of clips of which `kept`, bool [N] each, is left, without pixels: for a decoder that has the visual inputs."""
    whole = _prompts(vlm, grids)
    columns = [vlm.kept_columns(grid, kept_N) for grid, kept_N in zip(grids, kept, strict=True)]
    prompts = [whole[grid].only(rest, kept_N) for grid, rest, kept_N in zip(grids, columns, kept)]
    kept_M = torch.cat([_with_extra(row, vlm.family.extra_tokens) for row in kept])
    starts = [int(whole[grid].positions_3P.max()) + 1 for grid in grids]
    columns_BP = pad_sequence(columns, batch_first=True)
    return PrunedPrefixBatch(torch.empty(0), *_tensors(vlm, prompts, grids), kept_M, columns_BP, starts)


def _prompts(vlm: VisionLanguageModel, grids: Iterable[Grid]) -> dict[Grid, _Prompt]:
    """Whole ones; clips of one grid have the same."""
    return {grid: _Prompt.of(vlm, grid) for grid in set(grids)}


def _tensors(vlm: VisionLanguageModel, prompts: Sequence[_Prompt], grids: Sequence[Grid]) -> tuple[Tensor, ...]:
    """The fields of a `PrefixBatch` after its pixels."""
    length, count = max(len(prompt.ids_P) for prompt in prompts), max(grid.tokens for grid in grids)
    shape = (len(prompts), length)
    ids_BP, valid_BP = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    positions_3BP = torch.zeros(3, *shape, dtype=torch.long)
    index_BN = torch.zeros(len(prompts), count, dtype=torch.long)
    mask_BN = torch.zeros(len(prompts), count, dtype=torch.bool)
    for b, prompt in enumerate(prompts):
        width = len(prompt.ids_P)
        ids_BP[b, :width], valid_BP[b, :width], positions_3BP[:, b, :width] = prompt.ids_P, True, prompt.positions_3P
        mask_BN[b, : grids[b].tokens] = prompt.kept_N
        index_BN[b, mask_BN[b]] = prompt.visual_columns(vlm.placeholder)
    return vlm.grid_thw(grids), ids_BP, valid_BP, positions_3BP, index_BN, mask_BN


def _video(vlm: VisionLanguageModel, clips: Sequence[Frames | EncodedClip]) -> tuple[Tensor, TowerStates | None]:
    """Pixels, uint8, for the tower, or what it has made of them before; clips of a batch are all of one kind."""
    encoded = [clip.tower for clip in clips if isinstance(clip, EncodedClip)]
    if encoded:
        return torch.empty(0), TowerStates.joined(encoded)
    return torch.cat([vlm.processor.cut(clip.frames_THWC) for clip in clips]), None


@dataclass(frozen=True)
class _Prompt:
    """One clip's."""

    ids_P: Tensor
    positions_3P: Tensor
    kept_N: Tensor

    @classmethod
    def of(cls, vlm: VisionLanguageModel, grid: Grid) -> _Prompt:
        ids = vlm.video_ids(grid)
        return cls(torch.tensor(ids), vlm.positions(ids, grid), torch.ones(grid.tokens, dtype=torch.bool))

    def only(self, columns: Tensor, kept_N: Tensor) -> _Prompt:
        return _Prompt(self.ids_P[columns], self.positions_3P[:, columns], kept_N)

    def visual_columns(self, placeholder: int) -> Tensor:
        """Of the tokens that belong to frames."""
        return torch.nonzero(self.ids_P == placeholder)[: int(self.kept_N.sum()), 0]


def _with_extra(kept_N: Tensor, extra: int) -> Tensor:
    """Embeddings that belong to no frame are never pruned."""
    return torch.cat([kept_N, kept_N.new_ones(extra)])
