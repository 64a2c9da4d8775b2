"""Utilities against a plain loop over an invented reasoner; the gate's loss against plain Python and finite differences."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError

from cluenet.config.train import FilterLoss
from cluenet.model.losses import budget_loss, gate_loss, ranking_loss
from cluenet.model.utilities import Probe, all_slots, drawn_slots, gate_term

B, Q, K = 2, 3, 4
KINDS = ("leave_one_out", "add_one", "mean")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# ------------------------------------------------------------------------------------------------------- utilities


def invented_score(words_BQKWD):
    """Clues work together: nothing about it is a sum over clues."""
    facts = words_BQKWD.sum((-1, -2))
    return torch.log_softmax(torch.stack([facts.prod(-1), facts.amax(-1), facts.std(-1)], -1), -1)[..., 0]


@pytest.fixture
def asked():
    torch.manual_seed(0)
    words, empty = torch.randn(B, Q, K, 2, 3), torch.randn(B, Q, K, 2, 3)
    calls = []

    def score(words_BQKWD):
        calls.append(1)
        return invented_score(words_BQKWD)

    return words, empty, Probe(score, empty), calls


def by_the_definition(words, empty, kind):
    """Clue by clue and question by question."""

    def score(b, q, shown):
        clues = [words[b, q, k] if k in shown else empty[b, q, k] for k in range(K)]
        return float(invented_score(torch.stack(clues)[None, None]))

    found, every = torch.zeros(B, Q, K), set(range(K))
    for b, q, i in itertools.product(range(B), range(Q), range(K)):
        leave = score(b, q, every) - score(b, q, every - {i})
        add = score(b, q, {i}) - score(b, q, set())
        found[b, q, i] = {"leave_one_out": leave, "add_one": add, "mean": (leave + add) / 2}[kind]
    return found


@pytest.mark.parametrize(("kind", "passes"), [("leave_one_out", K + 1), ("add_one", K + 1), ("mean", 2 * K + 2)])
def test_exact_utilities_follow_the_definition(asked, kind, passes):
    words, empty, probe, calls = asked
    found = probe.utilities(words, all_slots(words[..., 0, 0].bool()), kind=kind)
    assert torch.allclose(found, by_the_definition(words, empty, kind), atol=1e-5)
    assert len(calls) == passes


@pytest.mark.parametrize(("kind", "passes"), [("leave_one_out", 1), ("add_one", 2), ("mean", 3)])
def test_of_one_clue_per_question_it_takes_as_many_passes_whatever_the_data(asked, kind, passes):
    words, empty, probe, calls = asked
    slots = torch.tensor([[[0], [1], [2]], [[3], [3], [0]]])
    found = probe.utilities(words, slots, kind=kind, full_BQ=invented_score(words))
    assert torch.allclose(found, by_the_definition(words, empty, kind).gather(-1, slots), atol=1e-5)
    assert len(calls) == passes


def test_clues_that_say_the_same_are_useless_to_leave_one_out_and_not_to_the_mean():
    """A reasoner that needs to read a fact once."""
    words, empty = torch.ones(1, 1, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1)
    probe = Probe(lambda clues: clues.amax((-1, -2, -3)) - 1, empty)
    values = {kind: probe.utilities(words, torch.tensor([[[0, 1]]]), kind=kind).flatten().tolist() for kind in KINDS}
    assert values == {"leave_one_out": [0.0, 0.0], "add_one": [1.0, 1.0], "mean": [0.5, 0.5]}


def test_utilities_carry_no_gradient(asked):
    words, empty, _, _ = asked
    probe = Probe(invented_score, empty)
    assert not probe.utilities(
        words.requires_grad_(), torch.zeros(B, Q, 1, dtype=torch.long), kind="mean"
    ).requires_grad


def test_drawn_slots_differ_and_prefer_those_with_a_clue():
    present = torch.zeros(500, 1, 4, dtype=torch.bool)
    present[..., [1, 3]] = True
    first, again = (drawn_slots(present, 2, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert all(sorted(row) == [1, 3] for row in first[:, 0].tolist())
    one = drawn_slots(present, 1, torch.Generator().manual_seed(5)).flatten().tolist()
    assert 200 < one.count(1) < 300
    assert drawn_slots(present, 9, torch.Generator()).shape == (500, 1, 4)


# ------------------------------------------------------------------------------------------------------------ losses


@pytest.fixture
def gates():
    torch.manual_seed(1)
    logits, utility = torch.randn(B, Q, K), torch.randn(B, Q, K) * 0.1
    return logits, utility, torch.rand(B, Q, K) < 0.6


def cells(mask):
    return [cell for cell in itertools.product(range(B), range(Q), range(K)) if mask[cell]]


def test_gate_loss_against_plain_python(gates):
    logits, utility, mask = gates
    values = []
    for cell in cells(mask):
        target, gate = sigmoid((float(utility[cell]) - 0.02) / 0.05), sigmoid(float(logits[cell]))
        values.append(-target * math.log(gate) - (1 - target) * math.log(1 - gate))
    found = gate_loss(logits, utility, mask, delta=0.02, temperature=0.05)
    assert float(found) == pytest.approx(sum(values) / len(values), rel=1e-5)


def plain_ranking(gate, utility, mask, margin, delta):
    pairs = [
        max(0.0, margin - float(gate[b, q, i] - gate[b, q, j]))
        for b, q, i in cells(mask)
        for j in range(K)
        if mask[b, q, j] and float(utility[b, q, i] - utility[b, q, j]) > delta
    ]
    assert pairs
    return sum(pairs) / len(pairs)


def test_ranking_loss_against_plain_python(gates):
    logits, utility, mask = gates
    found = ranking_loss(logits.sigmoid(), utility, mask, margin=0.2, delta=0.02)
    assert float(found) == pytest.approx(plain_ranking(logits.sigmoid(), utility, mask, 0.2, 0.02), rel=1e-5)


def test_gates_in_the_order_of_their_utilities_and_a_margin_apart_cost_nothing():
    gate, utility = torch.tensor([[[0.1, 0.5, 0.9]]]), torch.tensor([[[-1.0, 0.0, 1.0]]])
    every = torch.ones(1, 1, 3, dtype=torch.bool)
    assert float(ranking_loss(gate, utility, every, margin=0.3, delta=0.02)) == 0
    assert float(ranking_loss(gate, -utility, every, margin=0.3, delta=0.02)) > 0.3


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_budget_loss_against_plain_python(gates, share):
    logits, _, mask = gates
    values = [sigmoid(float(logits[cell])) for cell in cells(mask)]
    wanted = max(0.0, sum(values) / len(values) - share) ** 2
    assert float(budget_loss(logits.sigmoid(), mask, share=share)) == pytest.approx(wanted, rel=1e-5)
    assert (wanted > 0) == (share == 0.2)


def test_the_gates_loss_is_the_weighted_sum_of_its_parts(gates):
    logits, utility, mask = gates
    pool = mask | (torch.rand(B, Q, K) < 0.5)
    settings = FilterLoss(measured=2, delta=0.01, temperature=0.03, ranking=0.7, margin=0.4, budget=3, budget_share=0.1)
    wanted = (
        float(gate_loss(logits, utility, mask, delta=0.01, temperature=0.03))
        + 0.7 * plain_ranking(logits.sigmoid(), utility, mask, 0.4, 0.01)
        + 3 * max(0.0, float(logits.sigmoid()[pool].mean()) - 0.1) ** 2
    )
    assert float(gate_term(logits, utility, mask, pool, settings)) == pytest.approx(wanted, rel=1e-5)
    plain = gate_term(logits, utility, mask, pool, FilterLoss())
    assert float(plain) == pytest.approx(float(gate_loss(logits, utility, mask, delta=0.02, temperature=0.01)))


def test_gradients_agree_with_finite_differences(gates):
    logits, utility, mask = (value.double() if value.is_floating_point() else value for value in gates)
    settings = FilterLoss(measured=2, temperature=0.05, ranking=0.7, margin=0.4, budget=3, budget_share=0.1)
    assert torch.autograd.gradcheck(lambda x: gate_term(x, utility, mask, mask, settings), (logits.requires_grad_(),))
    for name in ("ranking", "budget"):
        alone = {"ranking": lambda x: ranking_loss(x.sigmoid(), utility, mask, margin=0.4, delta=0.02),
                 "budget": lambda x: budget_loss(x.sigmoid(), mask, share=0.1)}[name]  # fmt: skip
        assert torch.autograd.gradcheck(alone, (logits,))


def test_nothing_measured_is_no_loss_and_no_gradient(gates):
    logits, utility, mask = gates
    logits.requires_grad_()
    settings = FilterLoss(measured=2, ranking=1, budget=1)
    loss = gate_term(logits, utility, mask & False, mask & False, settings)
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().sum()) == 0


def test_a_ranking_without_pairs_is_refused():
    with pytest.raises(ValidationError, match="`measured` to 2 or more"):
        FilterLoss(ranking=1)
    assert FilterLoss(ranking=1, distractors=0.5).ranking == FilterLoss(ranking=1, measured=2).ranking
