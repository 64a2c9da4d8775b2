"""Where the components meet: which gradient reaches what, what the answer pass sees, how options are scored."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.errors import DataError, RecipeError
from cluenet.model.evidence import for_row
from cluenet.model.generate import Writing
from cluenet.records import VideoRef
from helpers.models import COLOURS, clip, example, tiny_model

EVERYTHING = Losses(answer=1, chain=1, concept=1, attention=1, filter=1)


def batch_of(model, examples=None, *, clips=2, shuffle=False, chain=True, frames=None):
    rows = [(frames or clip(i), examples or [example(i), example(i + 1)]) for i in range(clips)]
    return model.collate(rows, seed=0, shuffle_options=shuffle, chain=chain)


def gradients(model, batch, stage, *terms):
    model.zero_grad()
    out = model(batch, stage=stage, seed=0)
    sum(out[term] for term in terms).backward()
    return {name: 0.0 if p.grad is None else float(p.grad.abs().sum()) for name, p in model.named_parameters()}


def extractor_gradient(found):
    return sum(value for name, value in found.items() if name.startswith("extractor."))


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_stage_1_keeps_answer_and_chain_out_of_the_clue_head(reasoner):
    model = tiny_model(reasoner=reasoner).train()
    found = gradients(model, batch_of(model), Stage1(steps=1, losses=EVERYTHING), "answer", "chain")
    assert extractor_gradient(found) == 0.0
    assert sum(found.values()) > 0


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_stage_2_lets_the_answer_reach_the_clue_head(reasoner):
    model = tiny_model(reasoner=reasoner).train()
    make_present(model)
    found = gradients(model, batch_of(model), Stage2(steps=1, losses=EVERYTHING), "answer")
    assert found["extractor.to_words.weight"] > 0
    assert found["extractor.blocks.0.query.weight"] > 0


def test_stage_2_uncoupled_does_not():
    model = tiny_model().train()
    found = gradients(model, batch_of(model), Stage2(steps=1, coupled=False, losses=EVERYTHING), "answer", "chain")
    assert extractor_gradient(found) == 0.0


def test_the_filter_loss_moves_the_gate_alone():
    model = tiny_model().train()
    make_present(model)
    found = gradients(model, batch_of(model), Stage2(steps=1, losses=EVERYTHING), "filter")
    assert {name for name, value in found.items() if value} <= {n for n in found if n.startswith("filter.")}
    assert sum(found.values()) > 0


def make_present(model):
    """Words at random, so that slots say something without training."""
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)


def test_loss_is_the_weighted_sum_of_its_terms():
    model = tiny_model(clue_extractor={"name": "latent_slots", "slots": 2, "presence": "learned"}).train()
    clue_terms = {"concept": 3, "attention": 0.25, "span": 0.7, "presence": 0.3}
    losses = Losses(answer=0.5, chain=2, filter=0.1, alignment=0.2, counterfactual=0.6, **clue_terms)
    out = model(batch_of(model), stage=Stage2(steps=1, losses=losses), seed=1)
    wanted = sum(weight * float(out[name].detach()) for name, weight in losses.model_dump().items())
    assert float(out["loss"].detach()) == pytest.approx(wanted, rel=1e-5)


def test_a_weight_of_zero_leaves_the_term_out():
    model = tiny_model().train()
    out = model(batch_of(model), stage=Stage1(steps=1, losses=Losses(answer=1)), seed=0)
    assert set(Losses.model_fields) & set(out) == {"answer"}


def test_missing_labels_are_masked_and_counted():
    model = tiny_model().train()
    bare = example(5, clues=None, chain=None)
    hidden_answer = example(6, answer=None)
    stage = Stage1(steps=1, losses=EVERYTHING)
    out = model(batch_of(model, [example(0), bare, hidden_answer], clips=1), stage=stage, seed=0)
    assert [int(out[f"labels/{name}"]) for name in ("answer", "chain", "concept", "attention")] == [2, 2, 2, 2]
    with_bare = model(batch_of(model, [example(0), bare], clips=1), stage=stage, seed=0)
    without = model(batch_of(model, [example(0)], clips=1), stage=stage, seed=0)
    for term in ("chain", "concept", "attention"):
        assert float(with_bare[term].detach()) == pytest.approx(float(without[term].detach()), rel=1e-4)


def test_ground_truth_clues_cannot_be_coupled():
    with pytest.raises(ValidationError, match="coupled"):
        Stage1(steps=1, coupled=True)


def scores(model, batch, row="own"):
    return [answer.option_logprobs for answer in model.predict(batch, clues=row)]


def test_evidence_answers_do_not_depend_on_the_video_once_the_clues_are_given():
    model = tiny_model(reasoner="evidence")
    one, other = (batch_of(model, [example(1)], clips=1, frames=clip(seed)) for seed in (1, 2))
    assert scores(model, one, "oracle") == scores(model, other, "oracle")
    sighted = tiny_model(reasoner="clue_chain")
    one, other = (batch_of(sighted, [example(1)], clips=1, frames=clip(seed)) for seed in (1, 2))
    assert scores(sighted, one, "oracle") != scores(sighted, other, "oracle")


def test_displayed_words_carry_everything():
    model = tiny_model(clue_filter="keep_all")
    make_present(model)
    batch = batch_of(model)
    for own, text in zip(scores(model, batch, "own"), scores(model, batch, "text")):
        assert own == pytest.approx(text, abs=1e-4)
    assert scores(model, batch, "none") != scores(model, batch, "own")


def test_no_clue_row_equals_examples_that_need_none():
    model = tiny_model()
    labelled_empty = [example(0, clues=())]
    batch = batch_of(model, labelled_empty, clips=1)
    assert scores(model, batch, "oracle")[0] == pytest.approx(scores(model, batch, "none")[0], abs=1e-5)


@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
@pytest.mark.parametrize("reasoner", ["direct", "evidence", "clue_chain"])
def test_questions_of_a_batch_do_not_see_each_other(reasoner, scoring):
    model = tiny_model(reasoner={"name": reasoner, "scoring": scoring})
    questions = [example(0), example(1), example(2, question="why ?")]
    together = scores(model, batch_of(model, questions, clips=1))
    alone = [scores(model, batch_of(model, [q], clips=1))[0] for q in questions]
    for a, b in zip(together, alone):
        assert a == pytest.approx(b, abs=1e-4)


def test_clips_with_fewer_questions_are_padded_without_effect():
    model = tiny_model()
    make_present(model)
    batch = model.collate([(clip(0), [example(0)]), (clip(1), [example(1), example(2)])], seed=0, shuffle_options=False)
    alone = model.collate([(clip(0), [example(0)])], seed=0, shuffle_options=False)
    together = model.predict(batch)
    assert [answer.example_id for answer in together] == ["q0", "q1", "q2"]
    (single,) = model.predict(alone)
    assert together[0].option_logprobs == pytest.approx(single.option_logprobs, abs=1e-4)
    for a, b in zip(together[0].clues, single.clues, strict=True):  # soft values show what the hard words may hide
        assert a.attention_N == pytest.approx(b.attention_N, abs=1e-5)
        assert a.gate == pytest.approx(b.gate, abs=1e-4)


def test_likelihood_is_the_mean_log_probability_per_token_by_hand():
    model = tiny_model(
        clue_extractor="none", clue_filter="keep_all", reasoner={"name": "direct", "scoring": "likelihood"}
    )
    question = example(0, options=("red", "blue green cyan", "it ?"), answer=0)
    batch = batch_of(model, [question], clips=1)
    vlm, wanted = model.vlm, []
    prefix = vlm.prefix(batch.prefix, layer=None, whole=True)
    start = int(batch.prefix.positions_3BP.max()) + 1
    for option in question.options:
        stem, words = vlm.ids(question.question) + vlm.ids("<answer>"), vlm.ids(option)
        ids = torch.tensor([stem + words])
        positions = torch.arange(start, start + ids.shape[1])[None]
        mask = torch.ones(1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        hidden = vlm.text_pass(F.embedding(ids, vlm.embeddings_VD), positions, mask, prefix=prefix)
        logits = vlm.head(hidden).log_softmax(-1)[0]
        wanted.append(sum(float(logits[len(stem) - 1 + i, word]) for i, word in enumerate(words)) / len(words))
    got = torch.tensor(scores(model, batch)[0])
    assert torch.allclose(got, torch.tensor(wanted).log_softmax(-1), atol=1e-4)


def test_likelihood_does_not_depend_on_the_option_order_and_letters_name_places():
    model = tiny_model(reasoner={"name": "evidence", "scoring": "likelihood"})
    q = example(0)
    turned = replace(q, options=q.options[::-1], answer=len(q.options) - 1 - q.answer)
    a, b = (scores(model, batch_of(model, [e], clips=1))[0] for e in (q, turned))
    assert a == pytest.approx(b[::-1], abs=1e-5)


def test_the_gate_sees_neither_options_nor_answer():
    model = tiny_model()
    make_present(model)
    q = example(0)
    changed = replace(q, options=("blue", "green"), answer=1)
    gates = [[c.gate for c in model.predict(batch_of(model, [e], clips=1))[0].clues] for e in (q, changed)]
    assert gates[0]
    assert gates[0] == gates[1]


def test_shuffled_options_keep_the_right_answer_and_depend_on_the_seed_alone():
    model = tiny_model()
    rows = [(clip(0), [example(i, options=COLOURS, answer=i % 4) for i in range(8)])]
    one, again, other = (model.collate(rows, seed=s, shuffle_options=True) for s in (1, 1, 2))
    assert [e.options for e in one.examples] == [e.options for e in again.examples]
    assert [e.options for e in one.examples] != [e.options for e in other.examples]
    assert [e.answer_text for e in one.examples] == [e.answer_text for _, row in rows for e in row]
    assert one.labels.gold_BQ.tolist() == [[e.answer for e in one.examples]]


def test_clue_targets_name_block_words_and_place():
    model = tiny_model()
    batch = batch_of(model, [example(0)], clips=1)
    words = model.collator.vocabulary.decode(batch.labels.words_BQKW[0, 0, 0].tolist())
    assert words == ("<t0>", "red", "hits", "blue")
    grid, target = batch.grids[0], batch.labels.attention_BQKN[0, 0, 0]
    assert (grid.blocks, grid.rows, grid.cols) == (2, 2, 3)
    share = target.view(2, 2, 3)
    assert float(share[0, 0, 0]) > 0.9
    assert float(share.sum()) == pytest.approx(1)
    assert model.collator.vocabulary.decode(batch.labels.words_BQKW[0, 0, 1].tolist()) == ("none",) * 4


def test_predicted_clues_have_words_spans_boxes_and_say_what_was_dropped():
    model = tiny_model(clue_filter={"name": "adaptive", "threshold": 1.0})
    make_present(model)
    (answer,) = model.predict(batch_of(model, [example(0)], clips=1))
    assert answer.clues
    for clue in answer.clues:
        assert not clue.kept
        assert 0 <= clue.start_seconds < clue.end_seconds <= 1.0
        assert sum(clue.attention_N) == pytest.approx(1, abs=1e-4)
        assert 0 <= clue.gate <= 1
    dropped = scores(model, batch_of(model, [example(0)], clips=1))
    none = scores(model, batch_of(model, [example(0)], clips=1), "none")
    assert dropped[0] == pytest.approx(none[0], abs=1e-5)


def test_open_ended_answers_train_on_the_reference_tokens():
    model = tiny_model().train()
    asked = example(0, options=(), answer="red hits blue")
    out = model(batch_of(model, [asked], clips=1), stage=Stage1(steps=1, losses=Losses(answer=1)), seed=0)
    assert int(out["labels/answer"]) == 1
    out["loss"].backward()
    assert float(out["answer"].detach()) > 0


def test_the_oracle_extractor_states_the_labels_and_none_states_nothing():
    oracle = tiny_model(clue_extractor={"name": "oracle", "slots": 2}, clue_filter="keep_all")
    (answer,) = oracle.predict(batch_of(oracle, [example(0)], clips=1))
    assert [clue.text for clue in answer.clues] == ["red hits blue"]
    nothing = tiny_model(clue_extractor="none", clue_filter="keep_all", reasoner="direct")
    (answer,) = nothing.predict(batch_of(nothing, [example(0)], clips=1))
    assert answer.clues == ()


def test_prediction_is_repeatable_and_leaves_the_mode_alone():
    model = tiny_model(clue_filter={"name": "random", "keep": 0.5}).train()
    make_present(model)
    batch = batch_of(model)
    assert model.predict(batch) == model.predict(batch)
    assert model.training


def test_exchanging_one_component_leaves_the_others_as_they_were():
    one, other = tiny_model(clue_filter="adaptive"), tiny_model(clue_filter={"name": "top_k", "k": 1})
    assert torch.equal(one.extractor.blocks[0].query.weight, other.extractor.blocks[0].query.weight)
    assert torch.equal(one.slot_embedding_KWD, other.slot_embedding_KWD)
    assert not torch.equal(one.extractor.blocks[0].query.weight, tiny_model(seed=1).extractor.blocks[0].query.weight)


@pytest.mark.parametrize("reasoner", ["evidence", "direct"])
def test_open_answers_are_greedy_token_by_token(reasoner, monkeypatch):
    model = tiny_model(reasoner=reasoner)
    special, head = torch.tensor(list(model.vlm.tokenizer.added_tokens_decoder)), model.vlm.head
    # an untrained model likes special tokens, which are not shown
    monkeypatch.setattr(model.vlm, "head", lambda states: head(states).index_fill(-1, special, -1e9))
    questions = [example(0), example(1, options=(), answer=None)]
    (_, answer) = model.predict(batch_of(model, questions, clips=1))
    tokens = model.vlm.ids(answer.prediction)
    assert tokens
    reference = replace(questions[1], answer=answer.prediction)
    batch = batch_of(model, [questions[0], reference], clips=1)
    with torch.no_grad():
        look = model.see(batch)
        own = for_row(model, "own", batch, look, 0)
        hidden = model.reason(batch, look.prefix, own.embeds_BQKWD)
        rows = batch.answer.option_rows[: len(tokens)]
        assert model.vlm.head(hidden[rows[:, 0], rows[:, 3]]).argmax(-1).tolist() == rows[:, 4].tolist()


def test_labels_of_a_clip_that_starts_later_are_on_the_clock_of_the_clip():
    model = tiny_model()
    at_start = example(0)
    (clue,) = at_start.clues
    later = replace(at_start, video=VideoRef("v0.mp4", 10.0, 12.0), clues=(clue.shifted(10.0),))
    one, other = (batch_of(model, [e], clips=1).labels for e in (at_start, later))
    assert torch.equal(one.words_BQKW, other.words_BQKW)
    assert torch.allclose(one.attention_BQKN, other.attention_BQKN)


def test_rows_answered_together_equal_rows_answered_apart():
    model = tiny_model()
    make_present(model)
    batch = batch_of(model)
    together = model.predict_rows(batch, ("own", "oracle", "none", "text"))
    assert together == {row: model.predict(batch, clues=row) for row in together}


def test_more_options_than_letters_is_an_error_with_a_way_out():
    model = tiny_model()
    assert model.collator.layout.most_options == 8
    many = example(0, options=tuple(f"red {i}" for i in range(9)), answer=0)
    with pytest.raises(DataError, match=r"q0: 9 options.*scoring=likelihood"):
        batch_of(model, [many], clips=1)
    scored = tiny_model(reasoner={"name": "evidence", "scoring": "likelihood"})
    assert len(scores(scored, batch_of(scored, [many], clips=1))[0]) == 9


def test_heads_that_do_not_divide_the_width_are_the_recipes_mistake():
    with pytest.raises(RecipeError, match=r"model\.clue_extractor\.heads: 3 does not divide.*64"):
        tiny_model(clue_extractor={"name": "latent_slots", "heads": 3})


def answer_loss(model, batch, stage, progress=0.0):
    return float(model(batch, stage=stage, seed=0, progress=progress)["answer"].detach())


def test_truth_share_mixes_ground_truth_into_the_reasoners_clues():
    model = tiny_model().train()
    make_present(model)
    batch, losses = batch_of(model), Losses(answer=1)
    truth = answer_loss(model, batch, Stage1(steps=1, losses=losses))
    own = answer_loss(model, batch, Stage2(steps=1, losses=losses))
    assert own != truth
    assert answer_loss(model, batch, Stage2(steps=1, truth_share=(1, 1), losses=losses)) == pytest.approx(truth)
    some = Stage2(steps=1, truth_share=(0.5, 0.5), losses=losses)
    losses_found = {float(model(batch, stage=some, seed=seed)["answer"].detach()) for seed in range(8)}
    assert len(losses_found) > 2  # which questions read the truth follows from the seed


def test_questions_without_labels_keep_reading_the_models_own_clues():
    model = tiny_model().train()
    make_present(model)
    batch = batch_of(model, [example(5, clues=None, chain=None)], clips=1)
    stage = Stage2(steps=1, losses=Losses(answer=1))
    mixed = stage.model_copy(update={"truth_share": (1.0, 1.0)})
    assert answer_loss(model, batch, mixed) == answer_loss(model, batch, stage)


def test_the_gate_learns_nothing_from_questions_that_read_the_truth():
    model = tiny_model().train()
    make_present(model)
    out = model(batch_of(model), stage=Stage2(steps=1, truth_share=(1, 1), losses=EVERYTHING), seed=0)
    assert int(out["labels/filter"]) == 0


def test_truth_share_follows_an_inverse_sigmoid():
    stage = Stage2(steps=1, truth_share=(1.0, 0.2))
    shares = [stage.truth_share_at(i / 10) for i in range(11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(1.0, abs=0.01)
    assert shares[5] == pytest.approx(0.6)
    assert shares[10] == pytest.approx(0.2, abs=0.01)


def test_truth_share_without_own_clues_is_refused():
    with pytest.raises(ValidationError, match="truth_share"):
        Stage1(steps=1, truth_share=(0.5, 0.5))


@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
def test_questions_with_options_can_be_answered_by_writing_and_are_scored_all_the_same(scoring, monkeypatch):
    model = tiny_model(reasoner={"name": "evidence", "scoring": scoring})
    special, head = torch.tensor(list(model.vlm.tokenizer.added_tokens_decoder)), model.vlm.head
    monkeypatch.setattr(model.vlm, "head", lambda states: head(states).index_fill(-1, special, -1e9))
    rows = [(clip(0), [example(0), example(1, options=(), answer=None)]), (clip(1), [example(2)])]
    batch = model.collate(rows, seed=0, shuffle_options=False)
    scored = model.predict(batch)
    written = model.predict_rows(batch, ("own",), writing=Writing(every=True, most_tokens=5))["own"]
    assert [answer.reply is None for answer in scored] == [True, False, True]
    assert [replace(answer, reply=None) for answer in (written[0], written[2])] == [scored[0], scored[2]]
    for answer, row in zip(written, [(rows[0][0], [q]) for q in rows[0][1]] + [rows[1]]):
        alone = model.collate([row], seed=0, shuffle_options=False)
        assert 1 <= len(model.vlm.ids(answer.reply)) <= 5
        assert model.predict_rows(alone, ("own",), writing=Writing(True, 5))["own"][0].reply == answer.reply
