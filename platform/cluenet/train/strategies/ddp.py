"""Every worker holds the whole model and all optimiser states; gradients are averaged (DistributedDataParallel)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cluenet.model.pipeline import ClueNet
from cluenet.train.strategies.base import OptimizerState, Setup, Strategy


class DdpStrategy(Strategy):
    def __init__(self, model: ClueNet, setup: Setup):
        super().__init__(model)
        self._optimizers = setup.optimizers()
        # a stage may leave parts unused: the gate in stage 1, the extractor with clues from the labels
        alone = setup.group.size == 1
        self.wrapped = model if alone else DistributedDataParallel(model, find_unused_parameters=True)

    def micro_batch(self, *, last: bool) -> AbstractContextManager[object]:
        """Gradients of all workers are averaged with the last one."""
        averages = isinstance(self.wrapped, DistributedDataParallel)
        return self.wrapped.no_sync() if averages and not last else nullcontext()

    def step(self, factor: float) -> float:
        return self._optimizers.update(factor=factor)

    def weights(self, names: Iterable[str], *, keep: bool) -> dict[str, Tensor]:
        entries = self.model.state_dict()
        return {name: entries[name] for name in names} if keep else {}

    def optimizer_state(self, *, keep: bool) -> OptimizerState:
        return self._optimizers.state_dict() if keep else []

    def load_optimizer_state(self, states: OptimizerState) -> None:
        self._optimizers.load_state_dict(states)
