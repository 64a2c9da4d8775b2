"""AdamW, and Muon for the 2-D hidden matrices with AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cluenet.config.train import Stage
from cluenet.model import tuning

if TYPE_CHECKING:
    from cluenet.model.pipeline import ClueNet


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al. 2024, github.com/KellerJordan/Muon), on a CPU in fp32.

    There the same update as `torch.optim.Muon` up to its bf16 rounding. That one took 40 ms for the matrices of a tiny model on
    one core with bf16 instructions, but 136 ms without them (AVX-512) and 910 ms with AVX2; this one about 60 ms on all,
    by orthogonalising matrices of one shape as one batch. Update scale: sqrt(max(1, rows / columns)).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.01
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Parameters without a gradient stay as they are. `closure` is not supported."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append((parameter, self._direction(parameter, group)))
            for (rows, columns), pairs in by_shape.items():
                scale = math.sqrt(max(1.0, rows / columns))
                for (parameter, _), update in zip(pairs, orthogonalise(torch.stack([d for _, d in pairs]))):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)

    def _direction(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Nesterov momentum."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(parameter.grad)
        return parameter.grad + group["momentum"] * buffer


def orthogonalise(matrices_MRC: Tensor, *, iterations: int = 5) -> Tensor:
    """Quintic Newton-Schulz towards the nearest semi-orthogonal matrix of each; singular values end near 1.

    On a GPU in bf16, as its authors do."""
    wide = matrices_MRC.shape[1] <= matrices_MRC.shape[2]
    x = matrices_MRC if wide else matrices_MRC.transpose(1, 2)
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return (x if wide else x.transpose(1, 2)).to(matrices_MRC.dtype)


class Optimizers:
    """One or two optimisers that step together. With `matrices`: Muon at `lr` for them, AdamW at `adamw_lr` (None:
    `lr`) for the rest. `apart`: groups of parameters, matrices or not, that AdamW moves at a rate of
    their own. 1-D parameters are not decayed."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        matrices: Sequence[nn.Parameter] = (),
        apart: Sequence[tuple[Sequence[nn.Parameter], float]] = (),
        *,
        lr: float,
        adamw_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
        clip_norm: float = 1.0,
    ):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.clip_norm = clip_norm
        adamw_lr = lr if adamw_lr is None else adamw_lr
        muon = {id(p) for p in matrices} - {id(p) for group, _ in apart for p in group}
        rates = {id(p): rate for group, rate in apart for p in group}
        rest = [p for p in self.parameters if id(p) not in muon]
        groups = [
            {"params": [p for p in rest if (p.ndim >= 2) == wide and rates.get(id(p), adamw_lr) == rate],
             "weight_decay": weight_decay if wide else 0.0, "lr": rate}
            for rate in dict.fromkeys([adamw_lr, *rates.values()])
            for wide in (True, False)
        ]  # fmt: skip
        groups = [group for group in groups if group["params"]]
        fused = all(p.is_cuda for group in groups for p in group["params"]) or None  # None: as torch sees fit
        self.all: list[torch.optim.Optimizer] = []
        if groups:
            self.all.append(torch.optim.AdamW(groups, lr=adamw_lr, betas=betas, fused=fused))
        if len(rest) < len(self.parameters):
            self.all.append(Muon([p for p in self.parameters if id(p) in muon], lr, weight_decay=weight_decay))
        self._peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.all]

    def step(self, loss: Tensor, *, factor: float) -> float:
        """Backward, then `update`."""
        loss.backward()
        return self.update(factor=factor)

    def update(self, *, factor: float) -> float:
        """Clip, step at `factor` times the peak learning rates, clear gradients. Returns the gradient norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        for optimizer, peaks in zip(self.all, self._peaks):
            for group, peak in zip(optimizer.param_groups, peaks):
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


def lr_factor(step: int, *, steps: int, warmup_steps: int, final_fraction: float) -> float:
    """Linear warm-up, then a cosine from 1 to `final_fraction`; `step` counts from 0."""
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
    return warm * (final_fraction + (1 - final_fraction) * cosine)


def optimizers_of(model: ClueNet, stage: Stage) -> Optimizers:
    """Those of a training stage, over the trained parameters of the model. Adapters are AdamW's: Muon is for whole matrices.

    Raises ValueError for a rate in `stage.lrs` of a group that has no trained parameter.
    """
    groups, rates = tuning.groups_of(model), stage.lrs.model_dump(exclude_none=True)
    if empty := [name for name in rates if not groups[name]]:
        raise ValueError(f"lrs: nothing is trained in {', '.join(empty)}")
    adapters = {id(p) for p in tuning.adapter_parameters(model)}
    matrices = [p for p in model.matrix_parameters() if id(p) not in adapters] if stage.optimizer == "muon" else []
    return Optimizers(
        list(model.parameters()), matrices, [(groups[name], rate) for name, rate in rates.items()], lr=stage.lr,
        adamw_lr=stage.adamw_lr if stage.optimizer == "muon" else None, betas=stage.betas, weight_decay=stage.weight_decay,
        clip_norm=stage.clip_norm,
    )  # fmt: skip
