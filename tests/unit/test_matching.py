"""Matching of slots with clues against all permutations."""

import itertools
import math

import pytest
import torch

from cluenet.config.train import Losses
from cluenet.model.batch import Labels
from cluenet.model.clue_terms import clue_terms
from cluenet.model.clues import ClueStates
from cluenet.model.matching import attention_cost, clue_order, concept_cost, reordered

B, Q, K, W, V, N = 2, 3, 4, 2, 7, 6
NONE = 0


def invented(seed):
    """Logits, states and labels at random; question (1, 2) has no labels."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    located = torch.rand(B, Q, K, generator=generator) < 0.7
    labelled = torch.ones(B, Q, dtype=torch.bool)
    labelled[1, 2] = False
    labels = Labels(
        gold_BQ=torch.zeros(B, Q, dtype=torch.long), answered_BQ=labelled, num_options_BQ=torch.zeros(B, Q, dtype=torch.long),
        labelled_BQ=labelled, words_BQKW=torch.randint(0, V, (B, Q, K, W), generator=generator),
        attention_BQKN=rand(B, Q, K, N).softmax(-1) * located[..., None], located_BQK=located,
        span_BQK2=rand(B, Q, K, 2).sigmoid().sort(-1).values, timed_BQK=located,
        block_span_BN2=torch.tensor([[[i / N, (i + 1) / N] for i in range(N)]] * B),
    )  # fmt: skip
    states = ClueStates(None, rand(B, Q, K, N).softmax(-1))
    return 3 * rand(B, Q, K, W, V), states, labels


def pair_cost(logits, states, labels, b, q, k, g, concept, attention):
    """Plain Python: what it costs that clue g teaches slot k."""
    words = 0.0
    for w in range(W):
        row = logits[b, q, k, w].tolist()
        words += math.log(sum(map(math.exp, row))) - row[int(labels.words_BQKW[b, q, g, w])]
    looks = -sum(
        target * math.log(weight)
        for target, weight in zip(labels.attention_BQKN[b, q, g].tolist(), states.attention_BQKN[b, q, k].tolist())
    )
    return concept * words / W + attention * looks * bool(labels.located_BQK[b, q, g])


@pytest.mark.parametrize("weights", [(2.0, 0.5), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_permutation_costs_less(seed, weights):
    concept, attention = weights
    logits, states, labels = invented(seed)
    order = clue_order(logits, states, labels, concept=concept, attention=attention)
    for b, q in itertools.product(range(B), range(Q)):
        cost = [[pair_cost(logits, states, labels, b, q, k, g, concept, attention) for g in range(K)] for k in range(K)]
        totals = {p: sum(cost[k][g] for k, g in enumerate(p)) for p in itertools.permutations(range(K))}
        found = tuple(order[b, q].tolist())
        assert totals[found] == pytest.approx(min(totals.values()), rel=1e-5)
    assert order.sort(-1).values.tolist() == [[list(range(K))] * Q] * B
    assert (order != torch.arange(K)).any()  # or the test would pass without any matching


def test_costs_of_pairs_against_plain_python():
    logits, states, labels = invented(3)
    words, looks = (
        concept_cost(logits, labels.words_BQKW),
        attention_cost(states.attention_BQKN, labels.attention_BQKN),
    )
    for place in itertools.product(range(B), range(Q), range(K), range(K)):
        assert float(words[place]) == pytest.approx(pair_cost(logits, states, labels, *place, 1, 0), rel=1e-5)
        assert float(looks[place]) == pytest.approx(pair_cost(logits, states, labels, *place, 0, 1), rel=1e-5, abs=1e-6)


def test_labels_follow_the_order_together():
    _, _, labels = invented(4)
    order = torch.tensor([[[2, 0, 3, 1]] * Q] * B)
    moved = reordered(labels, order)
    for k, g in enumerate([2, 0, 3, 1]):
        for name in ("words_BQKW", "attention_BQKN", "located_BQK", "span_BQK2", "timed_BQK"):
            assert torch.equal(getattr(moved, name)[:, :, k], getattr(labels, name)[:, :, g]), name
    assert torch.equal(moved.gold_BQ, labels.gold_BQ)
    assert torch.equal(moved.block_span_BN2, labels.block_span_BN2)


def loss_of(logits, states, labels, matching, losses):
    terms, _ = clue_terms(
        labels, torch.ones(B, Q, dtype=torch.bool), logits, states, losses, none=NONE, matching=matching
    )
    return sum(getattr(losses, name) * value for name, value in terms.items())


def test_matched_loss_ignores_the_order_of_the_labels_and_the_ordered_one_does_not():
    logits, states, labels = invented(5)
    turned = reordered(labels, torch.tensor([[[3, 2, 1, 0]] * Q] * B))
    losses = Losses(concept=2, attention=0.5, span=1)
    one, other = (loss_of(logits, states, part, "hungarian", losses) for part in (labels, turned))
    assert float(one) == pytest.approx(float(other), rel=1e-6)
    one, other = (loss_of(logits, states, part, "ordered", losses) for part in (labels, turned))
    assert abs(float(one) - float(other)) > 0.1


def test_gradients_flow_through_the_matched_loss_and_not_through_the_matching():
    logits, states, labels = invented(6)
    logits.requires_grad_()
    losses = Losses(concept=1)
    order = clue_order(logits, states, labels, concept=1, attention=0)
    assert not order.requires_grad
    (got,) = torch.autograd.grad(loss_of(logits, states, labels, "hungarian", losses), logits)
    (wanted,) = torch.autograd.grad(loss_of(logits, states, reordered(labels, order), "ordered", losses), logits)
    assert torch.equal(got, wanted)
    assert got[1, 2].abs().sum() == 0  # the question without labels
    assert got[0, 0].abs().sum() > 0
