"""Exact, faster forms of two slow spots of HF vision towers: same parameters, same maths (tested against HF). And which kernels
compute attention on a GPU.

A stride = kernel convolution over patches is a matrix product; attention over chunks of equal length is one batched call
instead of a Python loop over the chunks.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def use_attention_of_any_length() -> None:
    """In this process, on GPUs, not cuDNN's: it makes a plan for every new pair of lengths, which on an H200 took 0.1 to 1.2 s of each
    question whose length was new, in place of 0.06 s. Questions are of many lengths.

    Not for single passes: backward may run a layer again (gradient checkpointing), and must find the same kernel."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def use_fast_vision(tower: nn.Module) -> None:
    """Replace, in place, what this module knows how to make faster; leaves other towers alone."""
    projection = getattr(getattr(tower, "patch_embed", None), "proj", None)
    if isinstance(projection, nn.Conv3d) and projection.stride == projection.kernel_size:
        projection.forward = _linear_patches(projection)
    for block in getattr(tower, "blocks", ()):
        attention = block.attn
        if all(hasattr(attention, name) for name in ("qkv", "proj", "num_heads")):
            attention.forward = _equal_chunks(attention)


def _linear_patches(convolution: nn.Conv3d):
    def forward(patches: Tensor) -> Tensor:
        weight = convolution.weight.flatten(1)
        return F.linear(patches.reshape(len(patches), -1), weight, convolution.bias)[:, :, None, None, None]

    return forward


def _equal_chunks(attention: nn.Module):
    original = attention.forward
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb_vision

    def forward(hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings=None, **kwargs) -> Tensor:
        lengths = cu_seqlens[1:] - cu_seqlens[:-1]
        if attention.config._attn_implementation != "sdpa" or bool((lengths != lengths[0]).any()):
            return original(hidden_states, cu_seqlens=cu_seqlens, position_embeddings=position_embeddings, **kwargs)
        count = len(hidden_states)
        q, k, v = attention.qkv(hidden_states).reshape(count, 3, attention.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = rotate(q, k, *position_embeddings)
        chunks = [x.reshape(len(lengths), -1, attention.num_heads, x.shape[-1]).transpose(1, 2) for x in (q, k, v)]
        out = F.scaled_dot_product_attention(*chunks).transpose(1, 2)
        return attention.proj(torch.reshape(out, (count, -1)))

    return forward
