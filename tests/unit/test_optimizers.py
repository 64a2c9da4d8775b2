"""Muon against a NumPy reference and torch's own, which parameters are decayed, the schedule, and exact resuming."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from cluenet.model.optimizers import Muon, Optimizers, lr_factor, orthogonalise

SHAPES = [(8, 8), (12, 5), (5, 12), (8, 8), (3, 20)]


def matrices(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def newton_schulz(matrix):
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.775 * gram @ x + 2.0315 * gram @ gram @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def test_muon_equals_a_numpy_reference():
    parameters = matrices()
    optimizer = Muon(parameters, 0.02, momentum=0.9, weight_decay=0.1)
    values = [p.detach().numpy().astype(np.float64) for p in parameters]
    buffers = [np.zeros_like(v) for v in values]
    for step in range(4):
        give_gradients(parameters, step + 1)
        for i, parameter in enumerate(parameters):
            gradient = parameter.grad.numpy().astype(np.float64)
            buffers[i] = 0.9 * buffers[i] + gradient
            update = newton_schulz(gradient + 0.9 * buffers[i]) * math.sqrt(
                max(1, values[i].shape[0] / values[i].shape[1])
            )
            values[i] = values[i] * (1 - 0.02 * 0.1) - 0.02 * update
        optimizer.step()
    for parameter, value in zip(parameters, values):
        np.testing.assert_allclose(parameter.detach().numpy(), value, atol=2e-5)


def test_muon_equals_torchs_own_up_to_bf16():
    ours, theirs = matrices(), matrices()
    pair = Muon(ours, 0.02, weight_decay=0.01), torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.01)
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        for optimizer in pair:
            optimizer.step()
    for a, b, start in zip(ours, theirs, matrices()):
        moved = (b - start).norm()
        assert moved > 0.01
        assert (a - b).norm() < 0.03 * moved


def test_singular_values_end_near_one():
    torch.manual_seed(0)
    for shape in SHAPES:
        values = torch.linalg.svdvals(orthogonalise(torch.randn(3, *shape)))
        assert values.max() < 1.3
        assert values.min() > 0.5


def test_in_bf16_the_direction_is_the_same_up_to_rounding():
    """As on a GPU."""
    given = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    rounded = orthogonalise(given.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), orthogonalise(given), atol=0.05)


def test_a_matrix_without_gradient_is_not_touched():
    parameters = matrices()
    give_gradients(parameters[1:], 0)
    before = parameters[0].detach().clone()
    Muon(parameters, 0.02, weight_decay=0.5).step()
    assert torch.equal(parameters[0], before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.linear, self.norm = nn.Embedding(7, 6), nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, ids):
        return self.norm(self.linear(self.embedding(ids))).pow(3).mean()


def trained(net, optimizers, steps, start=0):
    for step in range(start, start + steps):
        optimizers.step(
            net(torch.arange(7).roll(step)), factor=lr_factor(step, steps=20, warmup_steps=3, final_fraction=0.1)
        )


@pytest.mark.parametrize("matrices_of", [lambda net: [], lambda net: [net.linear.weight]], ids=["adamw", "muon"])
def test_one_dimensional_parameters_are_not_decayed(matrices_of):
    net = Net()
    optimizers = Optimizers(list(net.parameters()), matrices_of(net), lr=0.1, weight_decay=0.5)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizers.update(factor=1.0)
    decayed = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert decayed == {"embedding.weight", "linear.weight"}


@pytest.mark.parametrize("matrices_of", [lambda net: [], lambda net: [net.linear.weight]], ids=["adamw", "muon"])
def test_saved_and_loaded_it_goes_on_bit_for_bit(matrices_of, tmp_path):
    def make():
        net = Net()
        return net, Optimizers(list(net.parameters()), matrices_of(net), lr=0.05, adamw_lr=0.01)

    whole, whole_optimizers = make()
    trained(whole, whole_optimizers, 8)
    first, first_optimizers = make()
    trained(first, first_optimizers, 5)
    torch.save(first_optimizers.state_dict(), tmp_path / "optimizer.pt")
    second, second_optimizers = make()
    second.load_state_dict(first.state_dict())
    second_optimizers.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    trained(second, second_optimizers, 3, start=5)
    for a, b in zip(whole.parameters(), second.parameters()):
        assert torch.equal(a, b)


def test_adamw_is_torchs_adamw():
    net, twin = Net(), Net()
    optimizers = Optimizers(list(net.parameters()), lr=0.01, betas=(0.8, 0.9), weight_decay=0.0, clip_norm=1e9)
    reference = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.0)
    for step in range(5):
        ids = torch.arange(7).roll(step)
        optimizers.step(net(ids), factor=1.0)
        twin(ids).backward()
        reference.step()
        reference.zero_grad()
    for a, b in zip(net.parameters(), twin.parameters()):
        assert torch.equal(a, b)


def test_with_muon_each_part_has_its_own_learning_rate():
    net = Net()
    optimizers = Optimizers(list(net.parameters()), [net.linear.weight], lr=0.02, adamw_lr=0.001)
    optimizers.step(net(torch.arange(7)), factor=0.5)
    adamw, muon = optimizers.all
    assert {group["lr"] for group in adamw.param_groups} == {0.0005}
    assert [group["lr"] for group in muon.param_groups] == [0.01]
    assert [p is net.linear.weight for p in muon.param_groups[0]["params"]] == [True]


@pytest.mark.parametrize("matrices", [False, True])
def test_groups_may_have_learning_rates_of_their_own(matrices):
    """A matrix with a rate of its own leaves Muon; two groups of one rate do not lose each other."""
    net, gate, tower = Net(), nn.Linear(2, 1), nn.Linear(3, 2)
    chosen = [net.linear.weight, tower.weight] if matrices else []
    parameters = [*net.parameters(), *gate.parameters(), *tower.parameters()]
    optimizers = Optimizers(
        parameters, chosen, [(list(gate.parameters()), 0.2), (list(tower.parameters()), 0.2)], lr=0.02,
        adamw_lr=0.001 if matrices else None,
    )  # fmt: skip
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizers.update(factor=0.5)
    found = {
        id(p): (type(optimizer).__name__, group["lr"], group["weight_decay"])
        for optimizer in optimizers.all for group in optimizer.param_groups for p in group["params"]
    }  # fmt: skip
    for part in (gate, tower):
        assert found[id(part.weight)] == ("AdamW", 0.1, 0.01)
        assert found[id(part.bias)] == ("AdamW", 0.1, 0.0)
    assert found[id(net.linear.weight)] == (("Muon", 0.01, 0.01) if matrices else ("AdamW", 0.01, 0.01))
    assert found[id(net.embedding.weight)][:2] == ("AdamW", 0.0005 if matrices else 0.01)
    assert len(found) == len(parameters) == sum(len(g["params"]) for o in optimizers.all for g in o.param_groups)


def test_only_matrices_to_train_is_possible():
    weight = nn.Parameter(torch.eye(3))
    optimizers = Optimizers([weight], [weight], lr=0.02)
    optimizers.step((weight**2).sum(), factor=1.0)
    assert not torch.equal(weight, torch.eye(3))


def test_the_gradient_is_clipped_and_its_norm_reported():
    weight = nn.Parameter(torch.zeros(4))
    optimizers = Optimizers([weight], lr=1.0, clip_norm=0.5)
    weight.grad = torch.full((4,), 3.0)
    assert optimizers.update(factor=1.0) == pytest.approx(6.0)
    moment = optimizers.all[0].state[weight]["exp_avg"]
    assert float(moment.norm()) == pytest.approx(0.1 * 0.5, rel=1e-4)  # (1 - beta1) x the clipped gradient
    assert weight.grad is None


def test_schedule():
    factors = [lr_factor(step, steps=100, warmup_steps=10, final_fraction=0.05) for step in range(101)]
    assert factors[0] == pytest.approx(0.1, rel=0.01)
    assert factors.index(max(factors)) == 9
    assert factors[50] == pytest.approx(0.05 + 0.95 * 0.5)
    assert factors[100] == pytest.approx(0.05)
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert lr_factor(0, steps=100, warmup_steps=0, final_fraction=0.05) == 1.0
    assert lr_factor(7, steps=0, warmup_steps=0, final_fraction=0.3) == pytest.approx(0.3)
