"""One optimiser step: forward and backward passes over the micro-batches of a worker, then the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cluenet.config.train import Stage
from cluenet.model.batch import Batch
from cluenet.model.optimizers import lr_factor
from cluenet.recipe import Recipe
from cluenet.train.flops import counted
from cluenet.train.group import Group, mean_of
from cluenet.train.plan import place_of, seed_of
from cluenet.train.strategies import Strategy


class Stepper:
    """Everything random follows from seed, stage, step and the micro-batch's place in the step."""

    def __init__(self, recipe: Recipe, stage_name: str, group: Group):
        self.recipe, self.name, self.group = recipe, stage_name, group
        self.stage: Stage = getattr(recipe.train, stage_name)

    def step(self, strategy: Strategy, parts: Sequence[Batch], step: int) -> dict[str, Any]:
        """Train on the micro-batches of step number `step`; the numbers of all workers."""
        outputs = [self._trained(strategy, batch, step, part, of=len(parts)) for part, batch in enumerate(parts)]
        factor = lr_factor(
            step, steps=self.stage.steps, warmup_steps=self.stage.warmup_steps, final_fraction=self.stage.final_lr_fraction
        )  # fmt: skip
        norm = strategy.step(factor)
        return {**mean_of(outputs, self.group), "lr": self.stage.lr * factor, "grad_norm": norm}

    def _trained(self, strategy: Strategy, batch: Batch, step: int, part: int, *, of: int) -> Mapping[str, Tensor]:
        with strategy.micro_batch(last=part == of - 1):
            output = self._forward(strategy.wrapped, batch, step, part, of)
            strategy.backward(output["loss"] / of)
        return {name: value.detach() for name, value in output.items()}

    def _forward(
        self, model: Callable[..., dict[str, Tensor]], batch: Batch, step: int, part: int, of: int
    ) -> dict[str, Tensor]:
        rank, own = place_of(part, rank=self.group.rank, parts=of, accumulate=self.stage.accumulate)
        seed = seed_of(self.recipe.seed, self.name, step, rank, own)
        torch.manual_seed(seed)
        device, bf16 = torch.device(self.group.device), self.recipe.train.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return model(batch.to(device), stage=self.stage, seed=seed, progress=step / self.stage.steps)

    def rehearse(self, model: nn.Module, parts: Sequence[Batch], step: int) -> tuple[int, frozenset[str]]:
        """(operations of the step, of all workers, names of the parameters that get a gradient), from a forward and a backward
        pass over the first micro-batch, the others taken to be as large.

        It leaves nothing behind: where a counter listens, torch takes other paths to the same gradients, and their last bits
        differ. The model must be whole. A gradient is dropped as soon as it is there, so they take no memory.
        """
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        used: set[str] = set()

        def drop(parameter: Tensor) -> None:
            used.add(names[id(parameter)])
            parameter.grad = None

        handles = [p.register_post_accumulate_grad_hook(drop) for p in model.parameters() if p.requires_grad]
        flops = len(parts) * counted(lambda: self._forward(model, parts[0], step, 0, len(parts))["loss"].backward())
        for handle in handles:
            handle.remove()
        return int(self.group.sum(torch.tensor([flops])).item()), frozenset(used)
