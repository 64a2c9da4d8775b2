"""PyTorch's FSDP2: every worker holds a shard of each weight, its gradient and its optimiser states, and gathers layer by
layer what it computes with (`torch.distributed.fsdp.fully_shard`, arXiv 2304.11277).

Decoder layers and blocks of the vision tower are gathered one at a time; all other weights (embeddings, head, projector, clue
parts) are gathered together for the whole of a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from cluenet.config.strategy import Fsdp
from cluenet.model.pipeline import ClueNet
from cluenet.train.strategies.base import OptimizerState, Setup, Strategy


class FsdpStrategy(Strategy):
    needs_group = True

    def __init__(self, model: ClueNet, setup: Setup):
        super().__init__(model)
        self._settings, self._group = setup.train.strategy, setup.group
        self._shard(model, self._settings)
        self.wrapped = model
        self._optimizers = setup.optimizers()

    def _shard(self, model: ClueNet, settings: Fsdp) -> None:
        kind = torch.device(self._group.device).type
        mesh = init_device_mesh(kind, (self._group.size,))
        offload = CPUOffloadPolicy(pin_memory=kind != "cpu") if settings.cpu_offload else OffloadPolicy()
        # inputs stay as they are: autocast decides what is computed in which precision
        gathered = torch.bfloat16 if settings.param_dtype == "bf16" else None
        layers = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in layers_of(model):
            layer.register_forward_hook(_tie_cache, with_kwargs=True)
            fully_shard(
                layer, mesh=mesh, reshard_after_forward=settings.reshard, mp_policy=layers, offload_policy=offload
            )
        fully_shard(model, mesh=mesh, offload_policy=offload)
        register_fsdp_forward_method(model, "predict_rows")

    def step(self, factor: float) -> float:
        return self._optimizers.update(factor=factor)

    @contextmanager
    def whole(self) -> Iterator[ClueNet]:
        sharded = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for module in sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        bf16 = self._settings.param_dtype == "bf16"
        try:
            with torch.autocast(torch.device(self._group.device).type, torch.bfloat16, enabled=bf16):
                yield self.model
        finally:
            for module in sharded:
                module.reshard()
                keeps = module is self.model or not self._settings.reshard
                module.set_reshard_after_forward(not keeps, recurse=False)

    def weights(self, names: Iterable[str], *, keep: bool) -> dict[str, Tensor]:
        entries = self.model.state_dict()
        found = ((name, _whole(entries[name])) for name in names)
        return {name: value.cpu() for name, value in found if keep}

    def optimizer_state(self, *, keep: bool) -> OptimizerState:
        states = [_mapped(state, keep=keep) for state in self._optimizers.state_dict()]
        return states if keep else []

    def load_optimizer_state(self, states: OptimizerState) -> None:
        optimizers = zip(self._optimizers.all, states, strict=True)
        self._optimizers.load_state_dict([_sharded(optimizer, state) for optimizer, state in optimizers])


def layers_of(model: ClueNet) -> list[nn.Module]:
    """Decoder layers and vision blocks, by the class names that Hugging Face declares for this purpose."""
    names = set(model.vlm.hf._no_split_modules or ())
    return [module for module in model.vlm.hf.modules() if type(module).__name__ in names]


class _AfterLayer(torch.autograd.Function):
    """Keys and values as they are; in the backward pass the layer's output gets a gradient (of zeros) whenever they do.

    They leave a layer by its cache, past the output that FSDP watches: without this, the gradient of a later pass that
    reads the cache could reach the layer's weights before they are gathered, or after they are freed.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        ctx.output = (output.shape, output.dtype, output.device)
        return keys.view_as(keys), values.view_as(values)

    @staticmethod
    def backward(ctx: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape, dtype, device = ctx.output
        return torch.zeros(shape, dtype=dtype, device=device), keys, values


def _tie_cache(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    cache = kwargs.get("past_key_values")
    if cache is None or not torch.is_grad_enabled():
        return
    entry = cache.layers[layer.self_attn.layer_idx]
    if entry.is_initialized:  # else this pass keeps nothing for others
        states = output[0] if isinstance(output, tuple) else output
        entry.keys, entry.values = _AfterLayer.apply(states, entry.keys, entry.values)


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _mapped(state: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    """A worker that does not keep them takes part in gathering, one tensor at a time."""
    moments: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        moments[number] = {}
        for name, value in values.items():
            gathered = _whole(value)
            if keep:
                moments[number][name] = gathered.cpu() if isinstance(gathered, Tensor) else gathered
    return {**state, "state": moments}


def _sharded(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {name: _shard_like(parameters[number], value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": moments}


def _shard_like(parameter: nn.Parameter, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != parameter.shape or not isinstance(parameter, DTensor):
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
