"""What a strategy does for the training loop, whatever it shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from cluenet.config.train import Stage, TrainSection
from cluenet.model.optimizers import Optimizers
from cluenet.model.pipeline import ClueNet
from cluenet.train.group import Group

OptimizerState: TypeAlias = list[dict[str, Any]]
"""`state_dict()` of every optimiser of a stage, with whole tensors whatever the strategy: what `optimizer.pt` holds."""


@dataclass(frozen=True)
class Setup:
    """What a strategy is made for."""

    train: TrainSection
    stage: Stage
    group: Group
    optimizers: Callable[[], Optimizers]  # of the model's parameters as they are when it is called
    used: frozenset[str] | None = None  # names of the parameters that get a gradient, for a strategy with `needs_used`


class Strategy(ABC):
    """How the workers of a stage share one model.

    It is made of a model that is whole and on the worker's device. Afterwards weights may be in pieces: only `wrapped` may
    compute with them, and inside `whole` the model itself. Every worker calls every method at the same place.
    """

    needs_group: ClassVar[bool] = False  # a process group, even with one worker
    needs_used: ClassVar[bool] = False

    wrapped: Callable[..., dict[str, Tensor]]  # `ClueNet.forward`

    def __init__(self, model: ClueNet):
        self.model = model

    def micro_batch(self, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward pass of a micro-batch; `last`: that of the step."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss; their mean over the workers is what `step` goes by."""
        loss.backward()

    @abstractmethod
    def step(self, factor: float) -> float:
        """Clip, update at `factor` times the peak learning rates, clear gradients; returns the norm before clipping."""

    @contextmanager
    def whole(self) -> Iterator[ClueNet]:
        """The model with all of its weights on every worker, for inference; what is called may differ among workers."""
        yield self.model

    @abstractmethod
    def weights(self, names: Iterable[str], *, keep: bool) -> dict[str, Tensor]:
        """Whole entries of the model's state dict; {} on a worker that does not `keep` them."""

    @abstractmethod
    def optimizer_state(self, *, keep: bool) -> OptimizerState:
        """[] on a worker that does not `keep` it."""

    @abstractmethod
    def load_optimizer_state(self, states: OptimizerState) -> None:
        """Raises ValueError, KeyError or RuntimeError when they are another optimiser's, or of other parameters."""

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """The stage is over, or has failed."""
