"""The strategy `ddp`, timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import Tensor

from cluenet.model.pipeline import ClueNet
from cluenet.train.strategies import Setup
from cluenet.train.strategies.ddp import DdpStrategy


class TimedDdp(DdpStrategy):
    """`seconds`: how many each of its parts took, by `clock`, which on a GPU waits for the device."""

    def __init__(self, model: ClueNet, setup: Setup, clock: Callable[[], float]):
        super().__init__(model, setup)
        self.seconds, self._clock = Counter[str](), clock
        forward = self.wrapped
        self.wrapped = lambda *args, **options: self.timed("forward", lambda: forward(*args, **options))

    def timed(self, part: str, work: Callable[[], Any]) -> Any:
        started = self._clock()
        try:
            return work()
        finally:
            self.seconds[part] += self._clock() - started

    def backward(self, loss: Tensor) -> None:
        self.timed("backward", lambda: super(TimedDdp, self).backward(loss))

    def step(self, factor: float) -> float:
        return self.timed("optimizer", lambda: super(TimedDdp, self).step(factor))
