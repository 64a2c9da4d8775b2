"""Looking at what goes into a part of a model, and ending the pass there when the rest is not needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _Stop(Exception):  # noqa: N818  (control flow, not an error)
    """Ends a forward pass early."""


@contextmanager
def inputs_of(modules: Sequence[nn.Module], *, stop_at: nn.Module | None = None) -> Iterator[list[Tensor]]:
    """The first input of each module, in the order they run, filled while the block runs a forward pass. The pass ends
    where `stop_at`, one of them, would begin; nothing of the model is changed."""
    found: list[Tensor] = []

    def grab(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        if module is stop_at:
            raise _Stop

    handles = [module.register_forward_pre_hook(grab, with_kwargs=True) for module in modules]
    try:
        yield found
    except _Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
