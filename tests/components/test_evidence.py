"""What of a clue reaches the filter's gate and the reasoner."""

import math

import pytest
import torch

from cluenet.config.train import Losses, Stage2
from cluenet.errors import CheckpointError
from cluenet.model.checkpoint import load_model, save_model
from cluenet.model.clues import confidence_of, expected
from helpers.models import clip, example, tiny_model


def batch_of(model, *questions):
    return model.collate([(clip(0), list(questions))], seed=0, shuffle_options=False)


def model_with(*, bottleneck="text", **clue_filter):
    extractor = {"name": "latent_slots", "slots": 2, "heads": 2, "bottleneck": bottleneck}
    return tiny_model(clue_extractor=extractor, clue_filter={"name": "adaptive", **clue_filter})


def test_confidence_is_the_mean_log_probability_of_the_words():
    logits = torch.randn(1, 2, 3, 4, 7, dtype=torch.float64)
    ids = torch.randint(0, 7, (1, 2, 3, 4))
    found = confidence_of(logits, ids)
    for q in range(2):
        for k in range(3):
            each = []
            for w in range(4):
                row = logits[0, q, k, w].tolist()
                each.append(row[int(ids[0, q, k, w])] - math.log(sum(map(math.exp, row))))
            assert float(found[0, q, k]) == pytest.approx(sum(each) / 4, abs=1e-5)
    assert torch.equal(confidence_of(None, ids), torch.zeros(1, 2, 3))


@pytest.mark.parametrize("sees", [True, False])
def test_a_gate_is_told_how_sure_the_extractor_is_of_any_words(sees):
    """Of words that another slot states too: the gate's other inputs stay the same."""
    model = model_with(confidence=sees)
    torch.nn.init.normal_(model.filter.gate.mlp[2].weight)
    batch = batch_of(model, example(0))
    with model.inference():
        look = model.look(batch)
        ids = batch.labels.words_BQKW
        before = model.gate_logits(look, ids)
        look.states.logits_BQKWV[:] = 0.0
        look.states.logits_BQKWV.scatter_(-1, ids[..., None], 9.0)
        assert torch.equal(model.gate_logits(look, ids), before) != sees


def test_the_gate_of_an_extractor_without_probabilities_is_told_nothing():
    model = tiny_model(clue_extractor={"name": "logit_lens", "slots": 2}, clue_filter="adaptive")
    batch = batch_of(model, example(0))
    with model.inference():
        assert model.gate_logits(model.look(batch), batch.labels.words_BQKW).isfinite().all()


def test_through_a_text_bottleneck_the_displayed_words_are_all_and_through_a_soft_one_they_are_not():
    for bottleneck, same in (("text", True), ("soft", False)):
        model = model_with(bottleneck=bottleneck, threshold=0.0)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.extractor.to_words.weight)  # its slots say something
        rows = model.predict_rows(batch_of(model, example(0), example(1)), ("own", "text"))
        own, text = ([answer.option_logprobs for answer in rows[row]] for row in ("own", "text"))
        assert any(answer.clues for answer in rows["own"])
        assert (torch.tensor(own[0]).allclose(torch.tensor(text[0]), atol=1e-6)) == same


def test_a_soft_bottleneck_gives_the_expected_embedding_and_its_gradient():
    logits, table = torch.randn(1, 1, 1, 2, 5, requires_grad=True), torch.randn(5, 3)
    found = expected(logits, table)
    for w in range(2):
        weights = [math.exp(x) for x in logits[0, 0, 0, w].tolist()]
        for d in range(3):
            wanted = sum(p * float(table[v, d]) for v, p in enumerate(weights)) / sum(weights)
            assert float(found[0, 0, 0, w, d].detach()) == pytest.approx(wanted, abs=1e-5)
    model = model_with(bottleneck="soft").train()
    out = model(batch_of(model, example(0)), stage=Stage2(steps=1, losses=Losses(answer=1, filter=0)), seed=0)
    out["answer"].backward()
    assert model.extractor.to_words.weight.grad.abs().sum() > 0


def test_weights_that_do_not_fit_the_settings_beside_them_are_an_error_for_the_user(tmp_path):
    section = {"backbone": "tiny", "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}}
    section["clue_filter"] = {"name": "adaptive", "confidence": True}
    folder = save_model(
        model_with(confidence=False), tmp_path, recipe={"name": "x", "model": section}, frame_policy={}, card={}
    )
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*filter.gate.mlp.0.weight.*Train again"):
        load_model(folder)
