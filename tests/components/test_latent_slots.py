"""Slots that look more than once: what a block reads, and in which order."""

import pytest
import torch
import torch.nn.functional as F

from cluenet_components.clue_extractors.latent_slots import LatentSlots

B, Q, K, N, D = 2, 3, 3, 10, 16


def build(**settings):
    torch.manual_seed(0)
    return LatentSlots.Config(slots=K, **settings).build(width=D, layers=5).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(B, N, dtype=torch.bool)
    mask[1, 7:] = False
    return torch.randn(B, Q, K, D, generator=generator), torch.randn(B, N, D, generator=generator), mask


def changed_slots(extractor):
    """Which slots' words of the first question change when its slot 0 asks something else."""
    query, visual, mask = inputs()
    other = query.clone()
    other[0, 0, 0] = -query[0, 0, 0].flip(0)
    a, b = (extractor.extract(q, visual, mask).words_BQKWD for q in (query, other))
    assert torch.equal(a[0, 1:], b[0, 1:])  # the other questions, and the other clip
    assert torch.equal(a[1], b[1])
    return [not torch.allclose(a[0, 0, k], b[0, 0, k], atol=1e-6) for k in range(K)]


def test_one_look_keeps_slots_apart_and_a_second_lets_them_read_each_other():
    assert changed_slots(build(blocks=1)) == [True, False, False]
    assert changed_slots(build(blocks=2)) == [True, True, True]


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_attention_is_a_distribution_over_the_clips_own_tokens(blocks):
    alpha = build(blocks=blocks).extract(*inputs()).attention_BQKN
    assert torch.allclose(alpha.sum(-1), torch.ones(B, Q, K), atol=1e-6)
    assert alpha[1, ..., 7:].abs().max() == 0


def test_every_block_has_parameters_of_its_own_and_a_gradient():
    extractor = build(blocks=3)
    extractor.extract(*inputs()).words_BQKWD.square().sum().backward()
    unused = [name for name, p in extractor.named_parameters() if p.grad is None and name != "queries_KD"]
    assert not unused
    assert len([name for name, _ in extractor.named_parameters() if name.endswith(".query.weight")]) == 3


def test_a_look_equals_torchs_own_attention():
    extractor = build(blocks=1, heads=4)
    block, (query, visual, mask) = extractor.blocks[0], inputs()
    q = block.query(block.query_norm(query)).view(B, Q * K, 4, D // 4).transpose(1, 2)
    k, v = (
        layer(block.visual_norm(visual)).view(B, N, 4, D // 4).transpose(1, 2) for layer in (block.key, block.value)
    )
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
    state = query + block.output(read.transpose(1, 2).reshape(B, Q, K, D))
    assert torch.allclose(block(query, visual, mask)[0], state + block.mlp(state), atol=1e-5)
