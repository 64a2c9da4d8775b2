"""Floating-point operations of training, counted by torch while they run (`torch.utils.flop_counter`).

Counted are matrix products, convolutions and attention, forward and backward, a multiplication and an addition being two
operations; recomputation counts as often as it happens. Not counted: elementwise operations, the optimiser's update,
validation. Attention on a CPU is an operation of its own that torch knows no formula for, so that of its sisters is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape: TypeAlias = tuple[int, ...]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def counted(work: Callable[[], object]) -> int:
    """Operations that `work` takes. What it computes may differ in the last bits from what it computes uncounted."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        work()
    return int(counter.get_total_flops())
