"""Loss terms against plain Python, and their gradients against finite differences."""

import math

import pytest
import torch

from cluenet.model.clues import box_of, sequence_mean, spans_of, straight_through
from cluenet.model.losses import attention_loss, option_logprobs, token_loss


def softmax(values):
    top = max(values)
    exps = [math.exp(v - top) for v in values]
    return [e / sum(exps) for e in exps]


def test_token_loss_is_the_mean_over_what_is_labelled():
    torch.manual_seed(0)
    logits, targets, mask = torch.randn(2, 3, 5), torch.randint(0, 5, (2, 3)), torch.tensor([[1, 0, 1], [0, 0, 1]])
    wanted = [
        -math.log(softmax(logits[i, j].tolist())[targets[i, j]]) for i in range(2) for j in range(3) if mask[i, j]
    ]
    assert float(token_loss(logits, targets, mask)) == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


def test_token_loss_without_labels_is_zero_and_differentiable():
    logits = torch.randn(2, 5, requires_grad=True)
    loss = token_loss(logits, torch.zeros(2, dtype=torch.long), torch.zeros(2))
    loss.backward()
    assert float(loss) == 0
    assert logits.grad.abs().sum() == 0


def test_attention_loss_against_plain_python():
    torch.manual_seed(1)
    attention, target = torch.rand(1, 2, 2, 4).softmax(-1), torch.rand(1, 2, 2, 4).softmax(-1)
    mask = torch.tensor([[[True, False], [True, True]]])
    wanted = [
        -sum(target[0, q, k, n].item() * math.log(attention[0, q, k, n].item()) for n in range(4))
        for q in range(2)
        for k in range(2)
        if mask[0, q, k]
    ]
    assert float(attention_loss(attention, target, mask)) == pytest.approx(sum(wanted) / 3, rel=1e-5)


@pytest.mark.parametrize("name", ["token", "attention"])
def test_gradients_agree_with_finite_differences(name):
    torch.manual_seed(2)
    x = torch.randn(1, 2, 3, dtype=torch.double, requires_grad=True)
    losses = {
        "token": lambda v: token_loss_double(v),
        "attention": lambda v: attention_loss(v[:, :, None].softmax(-1), torch.full((1, 2, 1, 3), 1 / 3).double(), torch.ones(1, 2, 1)),
    }  # fmt: skip
    assert torch.autograd.gradcheck(losses[name], (x,))


def token_loss_double(logits):
    values = torch.nn.functional.cross_entropy(logits.flatten(0, -2), torch.tensor([0, 2]), reduction="none")
    return sequence_mean(values, torch.tensor([1, 1]))


def test_option_logprobs_normalise_over_the_options_there_are():
    out = option_logprobs(torch.tensor([[[1.0, 2.0, 50.0]]]), torch.tensor([[2]]))
    assert out[0, 0, 2] == float("-inf")
    assert out[0, 0, :2].exp().tolist() == pytest.approx(softmax([1.0, 2.0]), rel=1e-5)


def test_straight_through_shows_the_hard_word_and_learns_through_the_soft_one():
    torch.manual_seed(3)
    logits = torch.randn(1, 1, 1, 2, 4, requires_grad=True)
    table = torch.randn(4, 3)
    out = straight_through(logits, table)
    assert torch.allclose(out, table[logits.argmax(-1)])
    out.sum().backward()
    expected = torch.autograd.grad((logits.softmax(-1) @ table).sum(), logits)[0]
    assert torch.allclose(logits.grad, expected)


def test_span_and_box_of_attention():
    maps = torch.zeros(4, 2, 2)
    maps[1, 0, 1], maps[2, 0, 1], maps[2, 1, 1] = 0.3, 0.3, 0.3
    attention = (maps / maps.sum()).flatten()
    assert spans_of(attention, 4) == (1, 2)
    assert box_of(attention, 4, 2, 2) == (2, 0.5, 0.0, 1.0, 1.0)
