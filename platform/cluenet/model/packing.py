"""Several questions of one clip in one row, without seeing each other; and branches that continue one question.

A `Segment` is one question: `common` tokens, then `branches`, each a continuation that sees the common part and itself but
no other branch (option texts that are scored side by side, a reasoning chain beside the answer). Positions of every segment
start again at the row's offset, so a question packed with others is computed exactly as if it were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    common: list[int]
    branches: tuple[list[int], ...] = ()

    @property
    def length(self) -> int:
        return len(self.common) + sum(map(len, self.branches))


class Movable:
    """A dataclass of tensors, and of other such dataclasses, that moves to a device as one."""

    def to(self, device: torch.device | str) -> Self:
        values = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        moved = {name: v.to(device) if isinstance(v, (Tensor, Movable)) else v for name, v in values.items()}
        return type(self)(**moved)


@dataclass
class Packed(Movable):
    """Token rows of a batch of clips."""

    ids_BL: Tensor
    positions_BL: Tensor
    allowed_BLL: Tensor  # bool: row may look at column
    starts: list[list[int]]  # column of every question's first token, [B][Q]


def pack(rows: Sequence[Sequence[Segment]], *, offsets: Sequence[int], pad: int) -> Packed:
    """rows: [B][Q] segments; offsets: [B] first text position of every clip (after its video)."""
    length = max(sum(segment.length for segment in row) for row in rows)
    shape = (len(rows), length)
    ids, owner = torch.full(shape, pad), torch.full(shape, -1)
    branch, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    starts: list[list[int]] = []
    for b, row in enumerate(rows):
        column, starts_b = 0, []
        for q, segment in enumerate(row):
            starts_b.append(column)
            shared = len(segment.common)
            for number, part in enumerate((segment.common, *segment.branches)):
                here = slice(column, column + len(part))
                ids[b, here] = torch.tensor(part, dtype=torch.long)
                owner[b, here], branch[b, here] = q, number
                first = offsets[b] + (shared if number else 0)
                positions[b, here] = torch.arange(first, first + len(part))
                column += len(part)
        starts.append(starts_b)
    return Packed(ids, positions, _allowed(owner, branch), starts)


def _allowed(owner_BL: Tensor, branch_BL: Tensor) -> Tensor:
    same = owner_BL[:, :, None] == owner_BL[:, None, :]
    visible = (branch_BL[:, None, :] == 0) | (branch_BL[:, :, None] == branch_BL[:, None, :])
    causal = torch.ones(same.shape[1:], dtype=torch.bool).tril()
    return same & visible & causal


def branch_start(segment: Segment, index: int) -> int:
    """Offset of a branch's first token from its segment's start."""
    return len(segment.common) + sum(map(len, segment.branches[:index]))


def pick(states_BLD: Tensor, index: Tensor) -> Tensor:
    """States at columns `index` [B, ...] -> [B, ..., D]."""
    flat = index.flatten(1)
    picked = states_BLD.gather(1, flat[..., None].expand(-1, -1, states_BLD.shape[-1]))
    return picked.view(*index.shape, -1)


def place(embeds_BLD: Tensor, index: Tensor, values: Tensor, valid_BQ: Tensor) -> Tensor:
    """A copy with `values` [B, Q, ..., D] written at columns `index` [B, Q, ...]; absent questions write nothing."""
    valid = valid_BQ.view(*valid_BQ.shape, *[1] * (index.ndim - 2)).expand_as(index).flatten(1)
    scratch = embeds_BLD.shape[1]  # one more column swallows what must not be written
    columns = index.flatten(1).masked_fill(~valid, scratch)
    values = values.flatten(1, -2)
    padded = F.pad(embeds_BLD, (0, 0, 0, 1))
    return padded.scatter(1, columns[..., None].expand_as(values), values)[:, :scratch]
