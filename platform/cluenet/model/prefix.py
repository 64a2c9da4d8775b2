"""What questions about the same clips share: the states of their prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Prefix:
    """What questions about a batch of clips share."""

    keys_values: list[tuple[Tensor, Tensor]]  # per layer run: [B, heads, P, head width]
    valid_BP: Tensor  # bool, False on padding
    visual_BND: Tensor | None  # states at the clue layer, None when no clue layer was asked for
    visual_mask_BN: Tensor
    visual_inputs_SBMD: Tensor | None = None
    """What the decoder takes of the video, where a second pass will want it: embeddings, then DeepStack inputs."""

    def only(self, b: int) -> Prefix:
        """The prefix of one clip, as a batch of one."""
        one = slice(b, b + 1)
        states = None if self.visual_BND is None else self.visual_BND[one]
        inputs = None if self.visual_inputs_SBMD is None else self.visual_inputs_SBMD[:, one]
        return Prefix(
            [(k[one], v[one]) for k, v in self.keys_values], self.valid_BP[one], states, self.visual_mask_BN[one], inputs
        )  # fmt: skip


def with_prefix(allowed_BLL: Tensor, prefix: Prefix | None) -> Tensor:
    """[B, L, P + L] what rows may look at when a prefix stands before them: all of it, and `allowed_BLL`."""
    if prefix is None:
        return allowed_BLL
    seen = prefix.valid_BP[:, None, :].expand(-1, allowed_BLL.shape[1], -1)
    return torch.cat([seen, allowed_BLL], dim=-1)
