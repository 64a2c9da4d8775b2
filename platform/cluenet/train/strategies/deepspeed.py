"""DeepSpeed's ZeRO (arXiv 1910.02054): optimiser states, gradients and weights are sharded over the workers, by stage."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from cluenet.errors import ClusterError
from cluenet.model.pipeline import ClueNet
from cluenet.train.strategies.base import OptimizerState, Setup, Strategy
from cluenet.train.strategies.deepspeed_config import deepspeed_config

MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedStrategy(Strategy):
    """Torch's AdamW steps on flat pieces of all trained parameters. A parameter without a gradient would still be decayed
    there, so those that a stage does not use are taken out before."""

    needs_group = True
    needs_used = True

    def __init__(self, model: ClueNet, setup: Setup):
        super().__init__(model)
        self._group, self._sharded = setup.group, setup.train.strategy.stage == 3
        self._declared = setup.optimizers().all[0]  # with all parameters: numbers them as the other strategies do
        self._used = {id(p) for name, p in model.named_parameters() if name in (setup.used or ())}
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in self._used)
        config = deepspeed_config(setup.train, setup.stage, world_size=setup.group.size)
        self.wrapped = self._engine = _engine(model, _only(self._declared, self._used), config, setup.group.device)
        self._peaks = [group["lr"] for group in self._engine.optimizer.param_groups]
        if self._sharded:
            _gather_with_the_model(model)
        self._start_moments()

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, factor: float) -> float:
        for group, peak in zip(self._engine.optimizer.param_groups, self._peaks):
            group["lr"] = peak * factor
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    # ------------------------------------------------------------------------------------------- weights
    @contextmanager
    def whole(self) -> Iterator[ClueNet]:
        if not self._sharded:
            yield self.model
            return
        import deepspeed

        hooks = self._engine.optimizer.parameter_offload
        with deepspeed.zero.GatheredParameters(list(self.model.parameters())):
            _remove_hooks(hooks)
            try:
                yield self.model
            finally:
                hooks.setup_zero_stage3_hooks()

    def weights(self, names: Iterable[str], *, keep: bool) -> dict[str, Tensor]:
        entries = {**dict(self.model.named_parameters(remove_duplicate=False)), **dict(self.model.named_buffers())}
        found = ((name, self._gathered(entries[name])) for name in names)
        return {name: value for name, value in found if keep}

    def _gathered(self, value: Tensor) -> Tensor:
        if not hasattr(value, "ds_id"):
            return value.detach().cpu()
        import deepspeed

        with deepspeed.zero.GatheredParameters([value]):
            return value.detach().cpu().clone()

    # ------------------------------------------------------------------------------------ optimiser states
    def optimizer_state(self, *, keep: bool) -> OptimizerState:
        from deepspeed.utils import safe_get_full_optimizer_state

        step = max(float(state["step"]) for state in self._inner.state.values())
        states = {}
        for number, parameter in self._numbered():
            moments = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
            if keep:
                states[number] = {"step": torch.tensor(step), **{n: m.cpu() for n, m in moments.items()}}
        return [{**self._declared.state_dict(), "state": states}] if keep else []

    def load_optimizer_state(self, states: OptimizerState) -> None:
        (found,) = states
        numbered = dict(self._numbered())
        if set(found["state"]) != set(numbered):
            raise ValueError(f"it has states of {len(found['state'])} parameters, the stage trains {len(numbered)}")
        step = max(float(state["step"]) for state in found["state"].values())
        for state in self._inner.state.values():
            state["step"].fill_(step)
        for number, parameter in numbered.items():
            for name in MOMENTS:
                self._set_moment(parameter, name, found["state"][number][name])

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """Torch's AdamW over the flat pieces that are this worker's."""
        return self._engine.optimizer.optimizer

    def _numbered(self) -> Iterator[tuple[int, nn.Parameter]]:
        """Trained parameters with their numbers in the state dict of an AdamW over all parameters."""
        everything = [p for group in self._declared.param_groups for p in group["params"]]
        yield from ((number, p) for number, p in enumerate(everything) if id(p) in self._used)

    def _start_moments(self) -> None:
        """What AdamW does at its first step. DeepSpeed reads and sets only moments that exist before its own first step."""
        zero = self._engine.optimizer
        flat = zero.fp32_partitioned_groups_flat if self._sharded else zero.single_partition_of_fp32_groups
        for piece in flat:
            moments = {name: torch.zeros_like(piece) for name in MOMENTS}
            self._inner.state[piece] = {"step": torch.tensor(0.0), **moments}
        if not self._sharded:
            zero._lazy_init_hp_params_optimizer_state()

    def _set_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        from deepspeed.utils import (
            safe_get_local_optimizer_state,
            safe_set_full_optimizer_state,
            safe_set_local_optimizer_state,
        )

        if not self._sharded:
            return safe_set_full_optimizer_state(parameter, value, name)
        # stage 3's setter for whole values does not know that the last piece is padded
        size = safe_get_local_optimizer_state(parameter, name).numel()
        padded = F.pad(value.flatten(), (0, size * self._group.size - value.numel()))
        return safe_set_local_optimizer_state(parameter, padded[size * self._group.rank :][:size], name)

    def close(self) -> None:
        self._engine.destroy()


def _gather_with_the_model(model: ClueNet) -> None:
    """The clue parts, whose methods are called past their `forward`. DeepSpeed would think that their weights belong to the module
    that is in its forward pass when one is first read. After a pass that stopped at the clue layer that is, as it sees it, this
    layer, and with its recomputation it would take them away before their gradients are there."""
    import deepspeed

    for name, parameter in model.named_parameters():
        if not name.startswith("vlm."):
            deepspeed.zero.register_external_parameter(model, parameter)


def _only(optimizer: torch.optim.Optimizer, used: set[int]) -> torch.optim.AdamW:
    """The same groups with the used parameters alone."""
    groups = [{**group, "params": [p for p in group["params"] if id(p) in used]} for group in optimizer.param_groups]
    return torch.optim.AdamW([group for group in groups if group["params"]])


def _engine(model: ClueNet, optimizer: torch.optim.Optimizer, config: dict[str, Any], device: str) -> Any:
    place = torch.device(device)
    os.environ["LOCAL_RANK"] = str(place.index or 0)  # which of the machine's devices it takes
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    if (found := get_accelerator().device_name()) != place.type:
        raise ClusterError(
            f"DeepSpeed computes on {found}, but this worker was given {place.type} (train.resources.gpu). Set "
            f"DS_ACCELERATOR={place.type} in the environment of the workers, or choose another train.strategy."
        )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # a kernel for inference that it would compile for minutes; training exchanges tensors by the process group
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def _remove_hooks(hooks: Any) -> None:
    """Weights that are gathered stay so: the hooks of stage 3 would free each after its first use."""
    for parameter in hooks.module.parameters():
        parameter.ds_active_sub_modules.clear()
    hooks.destroy()
    hooks.forward_hooks.clear()
    hooks.backward_hooks.clear()
