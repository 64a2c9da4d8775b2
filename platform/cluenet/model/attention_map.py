"""Attention weights of one decoder layer, which the fast attention of the other passes does not give."""

from __future__ import annotations

import torch
from torch import Tensor

from cluenet.model.packing import pick
from cluenet.model.shared_prompt import PrefixBatch
from cluenet.model.vlm import Prefix, VisionLanguageModel


def attention_map(
    vlm: VisionLanguageModel, embeds_BLD: Tensor, positions_BL: Tensor, allowed_BLL: Tensor, *, prefix: Prefix, layer: int
) -> Tensor:  # fmt: skip
    """[B, L, P + L] how much each text row looks at the prefix and at the text, mean over heads; rows sum to 1.

    layer: number of the decoder layer, counted from 1, at most as many as the prefix was run through.
    """
    seen: list[Tensor] = []
    before = vlm.text.config._attn_implementation
    attention = vlm.text.layers[layer - 1].self_attn
    handle = attention.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[1].float().mean(1)))
    vlm.text.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            vlm.text_pass(embeds_BLD, positions_BL, allowed_BLL, prefix=prefix, stop_at=layer)
    finally:
        vlm.text.set_attn_implementation(before)
        handle.remove()
    return seen[0]


def at_visual_tokens(map_BLS: Tensor, rows_BQ: Tensor, prompts: PrefixBatch) -> Tensor:
    """[B, Q, N] of an `attention_map`, how much these text rows look at the visual tokens; 0 on padding."""
    columns = prompts.visual_index_BN[:, None].expand(-1, rows_BQ.shape[1], -1)
    return pick(map_BLS, rows_BQ).gather(-1, columns) * prompts.visual_mask_BN[:, None]
