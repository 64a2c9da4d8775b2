"""The workers of a stage as one: sums over all of them, and errors that end all of them at the same place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cluenet.errors import CluenetError


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The default process group: that of whoever started the workers, or one for this process alone."""
    if dist.is_initialized():
        yield
        return
    backend = "gloo" if torch.device(device).type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class OtherWorkerError(Exception):
    """Another worker met an error that is meant for the user, and reports it."""


class Group:
    """With `size` > 1 the default process group of torch.distributed is up already."""

    def __init__(self, rank: int, size: int, device: str):
        self.rank, self.size, self.device = rank, size, device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Over all workers, on the CPU; every worker must call it."""
        if self.size == 1:
            return values.cpu()
        moved = values.to(self.device)
        dist.all_reduce(moved)
        return moved.cpu()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one worker does in this block may go wrong; then no worker goes on, instead of waiting for it for ever.

        The worker in question raises its own CluenetError, the others OtherWorkerError. Any other exception is left to
        whoever started the workers.
        """
        error = None
        try:
            yield
        except CluenetError as caught:
            error = caught
        failed = self.sum(torch.tensor([error is not None], dtype=torch.int32))
        if error is not None:
            raise error
        if failed.item():
            raise OtherWorkerError


def mean_of(outputs: Sequence[Mapping[str, Tensor]], group: Group) -> dict[str, Any]:
    """The scalars of `ClueNet.forward` over all micro-batches and workers: label counts summed, loss terms weighted by their
    labels and left out without any, the rest averaged.

    Every output has the same names, because which modules run does not depend on the data.
    """
    names = list(outputs[0])
    sums = torch.zeros(2, len(names), dtype=torch.float64)  # of values, of weights
    for output in outputs:
        values = {name: float(value) for name, value in output.items()}
        for column, name in enumerate(names):
            weight = values.get(f"labels/{name}", 1.0)
            sums[:, column] += torch.tensor([values[name] * weight, weight], dtype=torch.float64)
    total = dict(zip(names, group.sum(sums).T.tolist()))
    counts = {name: round(value) for name, (value, _) in total.items() if name.startswith("labels/")}
    return {name: value / weight for name, (value, weight) in total.items() if name not in counts and weight} | counts
