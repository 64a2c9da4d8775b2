"""Extractors that learn: what tells that a slot speaks, what teaches it, and which label it is taught by."""

from dataclasses import replace

import pytest
import torch

from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.model.checkpoint import load_model, save_model
from cluenet.records import Clue
from helpers.models import clip, example, tiny_model

TWO_CLUES = (
    Clue("red hits blue", 0.0, 0.5, concepts={"who": "red", "what": "hits", "whom": "blue"}),
    Clue("green move", 0.5, 1.0, concepts={"who": "green", "what": "move"}),
)


def model_of(**settings):
    return tiny_model(clue_extractor={"name": "latent_slots", "slots": 2, **settings}, clue_filter="keep_all")


def batch_of(model, *examples):
    return model.collate([(clip(0), list(examples))], seed=0, shuffle_options=False)


def terms_of(model, batch, **weights):
    return model.train()(batch, stage=Stage1(steps=1, losses=Losses(answer=0, **weights)), seed=0)


def test_hungarian_slots_do_not_care_which_clue_is_labelled_first():
    labelled = [example(0, clues=TWO_CLUES), example(0, clues=TWO_CLUES[::-1])]
    for matching, same in (("hungarian", True), ("ordered", False)):
        model = model_of(matching=matching)
        one, other = (float(terms_of(model, batch_of(model, e), concept=1)["concept"].detach()) for e in labelled)
        assert (one == pytest.approx(other, rel=1e-6)) is same


def test_the_default_is_ordered_without_a_presence_score():
    default, spelled = model_of(), model_of(matching="ordered", presence="words")
    scored = model_of(presence="learned")
    assert list(default.state_dict()) == list(spelled.state_dict())
    assert set(scored.state_dict()) - set(default.state_dict()) == {
        "extractor.presence.weight",
        "extractor.presence.bias",
    }
    assert all(torch.equal(value, scored.state_dict()[name]) for name, value in default.state_dict().items())


@pytest.mark.parametrize(("bias", "stated"), [(50.0, 2), (-50.0, 0)])
def test_a_learned_score_tells_which_slots_speak(bias, stated):
    model = model_of(presence="learned")
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)  # words at random, none of them `none`
    with torch.no_grad():
        model.extractor.presence.bias.fill_(bias)
    (answer,) = model.predict(batch_of(model, example(0)))
    assert len(answer.clues) == stated


def test_the_presence_loss_teaches_the_score_and_needs_it():
    model = model_of(presence="learned")
    out = terms_of(model, batch_of(model, example(0), example(1, clues=None)), presence=1)
    assert int(out["labels/presence"]) == 1
    assert float(out["loss"].detach()) == float(out["presence"].detach()) > 0
    out["loss"].backward()
    assert float(model.extractor.presence.weight.grad.abs().sum()) > 0
    assert "presence" not in terms_of(model_of(), batch_of(model, example(0)), presence=1)
    assert not any(p is model.extractor.presence.weight for p in model.matrix_parameters())


def test_presence_is_learned_from_few_examples():
    """One question needs one clue, the other none: the scores follow, whatever the words say."""
    model = model_of(presence="learned").train()
    batch = batch_of(model, example(0), example(1, clues=()))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    stage = Stage1(steps=1, losses=Losses(answer=0, presence=1))
    for step in range(60):
        optimizer.zero_grad()
        model(batch, stage=stage, seed=step)["loss"].backward()
        optimizer.step()
    assert [len(answer.clues) for answer in model.predict(batch)] == [1, 0]


def test_the_span_loss_moves_attention_to_the_time_of_the_clue():
    model = model_of().train()
    late = Clue("green move", 0.375, 0.875)  # the second of the clip's two temporal blocks
    batch = batch_of(model, example(0, clues=(late,)))
    assert batch.labels.span_BQK2[0, 0, 0].tolist() == pytest.approx([0.375 / 0.875, 1.0])
    assert batch.labels.timed_BQK[0, 0].tolist() == [True, False]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    stage = Stage1(steps=1, losses=Losses(answer=0, span=1))
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        out = model(batch, stage=stage, seed=step)
        out["loss"].backward()
        optimizer.step()
        losses.append(float(out["span"].detach()))
    assert int(out["labels/span"]) == 1
    assert losses[-1] < 0.1 < losses[0]
    _, states, _ = model.look(batch)
    second_block = states.attention_BQKN[0, 0, 0].view(2, -1).sum(-1)[1]
    assert float(second_block) > 0.95


def test_span_and_time_labels_without_times_are_masked():
    model = model_of()
    out = terms_of(model, batch_of(model, example(0, clues=(Clue("red hits blue"),))), span=1)
    assert int(out["labels/span"]) == 0
    assert float(out["span"].detach()) == 0


def test_a_clip_that_starts_later_has_the_same_spans():
    model = model_of()
    at_start = example(0)
    later = replace(
        at_start,
        video=replace(at_start.video, start_seconds=10.0, end_seconds=12.0),
        clues=tuple(clue.shifted(10.0) for clue in at_start.clues),
    )
    one, other = (batch_of(model, e).labels.span_BQK2 for e in (at_start, later))
    assert torch.allclose(one, other)
    assert one[0, 0, 0].tolist() == pytest.approx([0.0, 0.5 / 0.875])  # the blocks end at 0.875 s


def test_a_presence_score_travels_with_the_model_folder(tmp_path):
    model = model_of(presence="learned", matching="hungarian").eval()
    with torch.no_grad():
        model.extractor.presence.bias.fill_(3.0)
    section = {
        "backbone": "tiny", "clue_filter": "keep_all", "reasoner": "evidence",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "presence": "learned", "matching": "hungarian"},
    }  # fmt: skip
    folder = save_model(model, tmp_path, recipe={"name": "x", "model": section}, frame_policy={}, card={})
    loaded = load_model(folder)
    batch = batch_of(model, example(0))
    assert loaded.predict(batch) == model.predict(batch)
    assert loaded.predict(batch)[0].clues


def test_all_clue_losses_under_bf16():
    model = model_of(matching="hungarian", presence="learned").train()
    batch = batch_of(model, example(0, clues=TWO_CLUES), example(1))
    weights = {"concept": 1, "attention": 1, "span": 1, "presence": 1}
    exact = {name: float(terms_of(model, batch, **weights)[name].detach()) for name in weights}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = terms_of(model, batch, **weights)
    rounded["loss"].backward()
    assert {name: float(rounded[name].detach()) for name in weights} == pytest.approx(exact, rel=0.1)


# ------------------------------------------------------------------------------------------- generated


def writer():
    return tiny_model(clue_extractor={"name": "generated", "slots": 2}, clue_filter="keep_all")


def alone(model, batch, question, words):
    """Logits of the language model after prompt, question and words, in one row of their own."""
    vlm = model.vlm
    prefix = vlm.prefix(batch.prefix, layer=None, whole=True)
    ids = torch.tensor([vlm.ids(question) + words])
    start = int(batch.prefix.positions_3BP.max()) + 1
    positions = torch.arange(start, start + ids.shape[1])[None]
    causal = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    embeds = torch.nn.functional.embedding(ids, vlm.embeddings_VD)
    return vlm.head(vlm.text_pass(embeds, positions, causal, prefix=prefix))[0]


def test_generated_clues_are_the_models_own_greedy_words():
    model = writer().eval()
    questions = [example(0), example(1, question="why does it move ?")]
    batch = batch_of(model, *questions)
    with torch.no_grad():
        _, states, _ = model.look(batch)
        found = model.vlm.head(states.words_BQKWD).argmax(-1)
        for q, question in enumerate(questions):
            words = []
            for _ in range(2 * 4):
                words.append(int(alone(model, batch, question.question, words)[-1].argmax()))
            assert found[0, q].flatten().tolist() == words


def test_generated_clues_are_taught_as_text():
    """The concept loss is the language model's own: each word given the true words before it, not the written ones."""
    model = writer().train()
    question = example(0)
    batch = batch_of(model, question)
    truth = batch.labels.words_BQKW[0, 0].flatten().tolist()
    out = terms_of(model, batch, concept=1)
    with torch.no_grad():
        logprobs = alone(model, batch, question.question, truth).log_softmax(-1)
    first = len(model.vlm.ids(question.question)) - 1
    wanted = -sum(float(logprobs[first + i, word]) for i, word in enumerate(truth)) / len(truth)
    assert float(out["concept"].detach()) == pytest.approx(wanted, rel=1e-4)
    own = model(batch, stage=Stage2(steps=1, losses=Losses(answer=1, concept=1)), seed=0)
    assert float(own["concept"].detach()) == pytest.approx(wanted, rel=1e-4)


def test_other_clue_losses_do_not_teach_a_writer():
    out = terms_of(writer(), batch_of(writer(), example(0)), concept=1, attention=1, span=1, presence=1)
    assert not {"attention", "span", "presence"} & set(out)


def test_stage_1_does_not_write_and_stage_2_reads_what_was_written(monkeypatch):
    model, passes = writer().train(), []
    batch, text_pass = batch_of(model, example(0)), model.vlm.text_pass
    monkeypatch.setattr(model.vlm, "text_pass", lambda *a, **k: passes.append(1) or text_pass(*a, **k))
    model(batch, stage=Stage1(steps=1, losses=Losses(answer=1, concept=1)), seed=0)
    assert len(passes) == 1 + 1  # taught words, answer
    passes.clear()
    out = model(batch, stage=Stage2(steps=1, losses=Losses(answer=1)), seed=0)
    assert len(passes) == 8 + 1 + 1  # a word each, their states, answer
    out["answer"].backward()
    assert float(model.vlm.embeddings_VD.grad.abs().sum()) > 0


def test_a_writer_learns_its_clues():
    model = writer().train()
    batch = batch_of(model, example(0, clues=TWO_CLUES), example(1, question="why does it move ?", clues=TWO_CLUES[1:]))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        model(batch, stage=Stage1(steps=1, losses=Losses(answer=0, concept=1)), seed=step)["loss"].backward()
        optimizer.step()
    one, other = model.predict(batch)
    assert [clue.words for clue in one.clues] == [("<t0>", "red", "hits", "blue"), ("<t1>", "green", "move", "_")]
    assert [clue.words for clue in other.clues] == [("<t1>", "green", "move", "_")]
    span = (one.clues[1].start_seconds, one.clues[1].end_seconds)
    assert span == (0.375, 0.875)  # the block that its first word names
    assert sum(one.clues[1].attention_N[:6]) == 0
