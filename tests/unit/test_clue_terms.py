"""Span and presence supervision against plain Python, and gradients against finite differences."""

import itertools
import math

import pytest
import torch

from cluenet.model.clue_terms import presence_loss, span_loss
from cluenet.model.clues import span_moments
from cluenet.model.times import block_edges, block_spans, clip_fractions
from cluenet.model.vlm import Grid
from cluenet.records import Clue

EDGES = [0.0, 0.1, 0.3, 0.6, 1.0]
BLOCKS = torch.tensor([[[a, b] for a, b in itertools.pairwise(EDGES)]], dtype=torch.double)


def moments(weights, spans):
    """Mean +- sqrt(3 var) of a mixture of uniform distributions, by numeric integration."""
    steps, points = 2000, []
    for weight, (start, end) in zip(weights, spans):
        points += [(start + (i + 0.5) / steps * (end - start), weight / steps) for i in range(steps)]
    mean = sum(x * p for x, p in points)
    spread = math.sqrt(3 * sum((x - mean) ** 2 * p for x, p in points))
    return mean - spread, mean + spread


def test_span_of_attention_has_the_moments_of_its_marginal():
    weights = torch.tensor([0.1, 0.2, 0.6, 0.1], dtype=torch.double)
    got = span_moments(weights.view(1, 1, 1, 4), BLOCKS)[0, 0, 0]
    assert got.tolist() == pytest.approx(moments(weights.tolist(), BLOCKS[0].tolist()), abs=1e-4)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (2, 2), (1, 2), (1, 3), (0, 3)])
def test_even_attention_over_neighbouring_blocks_gives_exactly_their_span(first, last):
    share = [b - a if first <= i <= last else 0.0 for i, (a, b) in enumerate(itertools.pairwise(EDGES))]
    weights = torch.tensor(share, dtype=torch.double)
    got = span_moments((weights / weights.sum()).view(1, 1, 1, 4), BLOCKS)[0, 0, 0]
    assert got.tolist() == pytest.approx([EDGES[first], EDGES[last + 1]], abs=1e-9)


def plain_span_loss(span, truth):
    common = max(0.0, min(span[1], truth[1]) - max(span[0], truth[0]))
    union = (span[1] - span[0]) + (truth[1] - truth[0]) - common
    return abs(span[0] - truth[0]) + abs(span[1] - truth[1]) + 1 - common / union


def test_span_loss_against_plain_python():
    spans = [(0.1, 0.4), (0.5, 0.6), (0.2, 0.9), (0.0, 1.0)]
    truth = [(0.2, 0.6), (0.7, 0.9), (0.2, 0.9), (0.4, 0.5)]
    mask = [True, True, True, False]
    got = span_loss(torch.tensor([[spans]]), torch.tensor([[truth]]), torch.tensor([[mask]]))
    wanted = [plain_span_loss(a, b) for a, b, m in zip(spans, truth, mask) if m]
    assert wanted[2] == 0
    assert float(got) == pytest.approx(sum(wanted) / 3, rel=1e-5)


def test_presence_loss_against_plain_python():
    scores, present = [[1.5, -0.5], [3.0, -2.0]], [[True, True], [False, False]]
    got = presence_loss(torch.tensor([scores]), torch.tensor([present]), torch.tensor([[[True], [True]]]))
    wanted = [math.log(1 + math.exp(-s if p else s)) for row, truth in zip(scores, present) for s, p in zip(row, truth)]
    assert float(got) == pytest.approx(sum(wanted) / 4, rel=1e-5)
    one = presence_loss(torch.tensor([scores]), torch.tensor([present]), torch.tensor([[[True], [False]]]))
    assert float(one) == pytest.approx(sum(wanted[:2]) / 2, rel=1e-5)


def test_span_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 3, 4, dtype=torch.double, requires_grad=True)
    truth = torch.tensor([[[[0.15, 0.55], [0.05, 0.3], [0.62, 0.97]]]], dtype=torch.double)
    mask = torch.tensor([[[True, True, False]]])
    assert torch.autograd.gradcheck(lambda v: span_loss(span_moments(v.softmax(-1), BLOCKS), truth, mask), (x,))


def test_presence_gradient_agrees_with_finite_differences():
    scores = torch.tensor([[[0.7, -1.2]]], requires_grad=True)
    present, mask = torch.tensor([[[True, False]]]), torch.tensor([[[True]]])
    (got,) = torch.autograd.grad(presence_loss(scores, present, mask), scores)
    step = 1e-2
    for k in range(2):
        up, down = scores.detach().clone(), scores.detach().clone()
        up[0, 0, k] += step
        down[0, 0, k] -= step
        slope = (presence_loss(up, present, mask) - presence_loss(down, present, mask)) / (2 * step)
        assert float(got[0, 0, k]) == pytest.approx(float(slope), abs=1e-4)


def test_far_spans_are_still_pulled():
    """Without any overlap tIoU has no gradient; the distance has."""
    logits = torch.tensor([[[[5.0, 0, 0, 0]]]], dtype=torch.double, requires_grad=True)
    truth = torch.tensor([[[[0.6, 1.0]]]], dtype=torch.double)
    span_loss(span_moments(logits.softmax(-1), BLOCKS), truth, torch.tensor([[[True]]])).backward()
    assert logits.grad[0, 0, 0, 3] < 0 < logits.grad[0, 0, 0, 0]


def test_blocks_and_clues_on_the_line_from_0_to_1():
    grid = Grid(3, 1, 2, (0.25, 0.75, 1.25))
    assert block_edges(grid) == pytest.approx((0.0, 0.5, 1.0, 1.5))
    thirds = [[0, 1 / 3], [0, 1 / 3], [1 / 3, 2 / 3], [1 / 3, 2 / 3], [2 / 3, 1], [2 / 3, 1]]
    assert torch.allclose(block_spans(grid), torch.tensor(thirds))
    assert clip_fractions(Clue("x", 0.5, 1.0), grid) == pytest.approx((1 / 3, 2 / 3))
    assert clip_fractions(Clue("x", 1.0, 9.0), grid) == pytest.approx((2 / 3, 1.0))  # ends after the clip
    assert clip_fractions(Clue("x"), grid) is None
    assert block_spans(Grid(1, 1, 1, (0.0,))).tolist() == [[0.0, 0.0]]  # one frame at 0 s has no length
