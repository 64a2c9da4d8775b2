"""Filters inside the model: exact utilities, what teaches the gate, what the gate sees, what is kept and how it is read."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cluenet.config.train import FilterLoss, Losses, Stage2
from cluenet.contracts import Judged
from cluenet.errors import CluenetError
from cluenet.model.evidence import for_training
from cluenet.model.utilities import distractors, exact_utilities, gold_logprob
from cluenet.plugins import load_components
from cluenet.records import Clue
from cluenet.registry import register
from helpers.models import COLOURS, clip, example, tiny_model

load_components()
SLOTS = 3
EXTRACTOR = {"name": "latent_slots", "slots": SLOTS, "heads": 2}
LEARNED = [name for name in register.clue_filter if register.clue_filter[name].learned]


def facts(*texts):
    """One clue per text, `red hits blue` at a time of its own."""
    return tuple(
        Clue(text, k / 4, k / 4 + 0.2, (), dict(zip(("who", "what", "whom"), text.split())))
        for k, text in enumerate(texts)
    )


CLUES = (
    facts("red hits blue", "green hits cyan", "blue hits red"),
    facts("cyan hits red", "red hits green"),
    facts("green hits blue"),
)


def questions(count=3):
    return [example(i, clues=CLUES[i]) for i in range(count)]


def speaking_model(**section):
    """Its slots say something at random, without training."""
    model = tiny_model(**{"clue_extractor": EXTRACTOR, **section})
    torch.manual_seed(4)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    if model.filter.learned:  # gates that differ
        torch.nn.init.normal_(model.filter.gate.mlp[2].weight, std=1.0)
        torch.nn.init.zeros_(model.filter.gate.mlp[2].bias)
    return model


def batch_of(model, *rows, first=0):
    return model.collate(
        [(clip(first + i), row) for i, row in enumerate(rows)], seed=0, shuffle_options=False, chain=False
    )


# ---------------------------------------------------------------------------------------------------- exact utilities


@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_exact_utilities_equal_a_loop_that_asks_again_without_and_with_each_clue(reasoner, scoring):
    """The loop answers whole batches through `predict`, clues being taken out of the labels one by one."""
    model = tiny_model(clue_extractor=EXTRACTOR, reasoner={"name": reasoner, "scoring": scoring})
    batch = batch_of(model, questions(), questions(2))
    words, none = batch.labels.words_BQKW, model.collator.vocabulary.none
    present = words.ne(none).any(-1)

    def asked(b, q, shown):
        labels = replace(batch.labels, words_BQKW=words.clone())
        for k in set(range(SLOTS)) - shown:
            labels.words_BQKW[b, q, k] = none
        place = sum(len(row) for row in batch.clips[:b]) + q
        answer = model.predict(replace(batch, labels=labels), clues="oracle")[place]
        return answer.option_logprobs[batch.clips[b][q].answer]

    with model.inference():
        prefix = model.look(batch)[0]
        found = {
            k: exact_utilities(model, batch, prefix, words, present, kind=k)
            for k in ("leave_one_out", "add_one", "mean")
        }
    everything = set(range(SLOTS))
    seen = 0
    for b, q, k in itertools.product(range(2), range(3), range(SLOTS)):
        if not batch.valid_BQ[b, q] or not present[b, q, k]:
            assert all(values[b, q, k] == 0 for values in found.values())
            continue
        leave = asked(b, q, everything) - asked(b, q, everything - {k})
        add = asked(b, q, {k}) - asked(b, q, set())
        wanted = {"leave_one_out": leave, "add_one": add, "mean": (leave + add) / 2}
        assert {name: float(values[b, q, k]) for name, values in found.items()} == pytest.approx(wanted, abs=2e-5)
        seen += abs(leave) > 1e-4
    assert seen >= 5


def test_of_an_open_question_utility_is_the_mean_log_probability_of_the_references_tokens():
    model = tiny_model(clue_extractor=EXTRACTOR)
    open_one = example(1, options=(), answer="red hits blue", clues=CLUES[1])
    batch = batch_of(model, [example(0, clues=CLUES[0]), open_one])
    with model.inference():
        hidden = model.reason(batch, None, model.displayed(batch.labels.words_BQKW))
        found, chosen = gold_logprob(model, batch, hidden), model.option_logprobs(batch, hidden)[0, 0, 0]
        rows = [row for row in batch.answer.option_rows.tolist() if row[1] == 1]
        tokens = [float(model.vlm.head(hidden[0, column]).log_softmax(-1)[token]) for _, _, _, column, token in rows]
    assert [row[4] for row in rows] == [*model.vlm.ids(" red hits blue"), model.vlm.tokenizer.eos_token_id]
    assert float(found[0, 1]) == pytest.approx(sum(tokens) / len(tokens), abs=1e-5)
    assert float(found[0, 0]) == pytest.approx(float(chosen), abs=1e-6)


def test_utilities_of_questions_without_a_known_answer_are_refused():
    model = tiny_model(clue_extractor=EXTRACTOR)
    batch = batch_of(model, [example(0, answer=None)])
    with pytest.raises(CluenetError, match=r"question 'q0'.*right answer is known"):
        exact_utilities(model, batch, None, batch.labels.words_BQKW, batch.labels.words_BQKW.ne(0).any(-1))


# --------------------------------------------------------------------------------------------------- teaching the gate


def stage(**settings):
    return Stage2(steps=1, losses=Losses(answer=1, filter=1), filter_loss=FilterLoss(**settings))


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(
    "settings", [{}, {"utility": "mean", "measured": 2, "ranking": 1, "budget": 1, "distractors": 1.0}]
)
def test_the_filters_loss_moves_its_gate_and_nothing_else(name, settings):
    model = speaking_model(clue_filter=name).train()
    out = model(batch_of(model, questions(), questions(2)), stage=stage(**settings), seed=0)
    out["filter"].backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved
    assert all(n.startswith("filter.") for n in moved)
    assert int(out["labels/filter"]) > 0


def test_more_measured_clues_teach_more_and_answers_that_are_not_known_teach_nothing():
    model = speaking_model().train()
    batch = batch_of(model, questions())
    stated = for_training(model, batch, model.see(batch), stage(), truth_share=0.0, seed=0).present_BQK.sum()
    counts = [int(model(batch, stage=stage(measured=m), seed=0)["labels/filter"]) for m in (1, 2, 9)]
    assert counts[0] == 3 < counts[1] < counts[2] == int(stated)
    hidden = batch_of(model, [example(i, answer=None) for i in range(3)])
    out = model(hidden, stage=stage(), seed=0)
    assert (int(out["labels/filter"]), float(out["filter"].detach())) == (0, 0.0)


def test_the_gates_loss_by_hand():
    """With every clue measured: cross-entropy of the very gates that inference shows, against exact utilities."""
    model = speaking_model()
    batch = batch_of(model, questions())
    with model.inference():
        look = model.look(batch)
        own = model.own_evidence(batch, look)
        utility = exact_utilities(model, batch, look[0], own.ids_BQKW, own.present_BQK, kind="mean")
    assert own.present_BQK.any()
    targets = ((utility - 0.02) / 0.1).sigmoid()
    wanted = F.binary_cross_entropy(own.gate_BQK[own.present_BQK], targets[own.present_BQK])
    settings = {"utility": "mean", "measured": SLOTS, "temperature": 0.1}
    out = model.train()(batch, stage=stage(**settings), seed=0)
    assert float(out["filter"].detach()) == pytest.approx(float(wanted), rel=1e-3)


def test_how_often_the_reasoner_is_asked_does_not_depend_on_the_data(monkeypatch):
    """Ranks that wait for each other must run the same modules, whether their clues say something or not."""
    model = speaking_model().train()
    calls, original = [], model.reason
    monkeypatch.setattr(model, "reason", lambda *args: calls.append(1) or original(*args))
    for rows, settings in itertools.product(
        (questions(), [example(0, clues=None, answer=None)]),
        ({}, {"utility": "mean", "measured": 2, "distractors": 0.5}),
    ):
        model(batch_of(model, rows), stage=stage(**settings), seed=0)
        calls.append(0)
    passes = [len(part) for part in "".join(map(str, calls)).split("0")[:-1]]
    assert passes == [2, 6, 2, 6]  # the answer; then 1 left out, or 2 left out, none, 2 alone


# ---------------------------------------------------------------------------------------------------------- distractors


def _pool_of(model, batch, share=1.0, seed=0, present=None, ids=None):
    none = model.collator.vocabulary.none
    ids = torch.full_like(batch.labels.words_BQKW, none) if ids is None else ids
    if present is None:
        present = torch.zeros(ids.shape[:3], dtype=torch.bool)
        present[..., 0] = True
    generator = torch.Generator().manual_seed(seed)
    return *distractors(batch, ids, present, none=none, share=share, generator=generator), present, ids


def test_distractors_are_true_clues_of_other_questions_of_the_clip_that_are_not_the_questions_own():
    model = tiny_model(clue_extractor=EXTRACTOR)
    shared = [example(0, clues=CLUES[0]), example(1, clues=(*CLUES[1], CLUES[0][0])), example(2, clues=None)]
    batch = batch_of(model, shared, [example(3, clues=CLUES[2])])
    labels = batch.labels.words_BQKW
    truth = [[{tuple(w) for w in row.tolist()} - {(model.collator.vocabulary.none,) * 4} for row in c] for c in labels]
    chosen = set()
    for seed in range(20):
        ids, where, present, before = _pool_of(model, batch, seed=seed)
        assert torch.equal(ids[~where], before[~where])
        assert not (where & present).any()
        for b, q, k in torch.nonzero(where).tolist():
            words = tuple(ids[b, q, k].tolist())
            assert words in set().union(*(truth[b][o] for o in range(3) if o != q)) - truth[b][q]
            chosen.add((b, q, words))
        for row in torch.nonzero(where.any(-1)).tolist():
            placed = [tuple(w) for w in ids[tuple(row)][where[tuple(row)]].tolist()]
            assert len(placed) == len(set(placed))  # each once
    assert {(b, q) for b, q, _ in chosen} == {(0, 0), (0, 1)}  # no labels, or no other question: none
    assert len(chosen) == 4  # two for each: the clue that both need is no distractor


def test_no_distractor_repeats_what_the_model_states_or_joins_a_question_that_states_nothing():
    model = tiny_model(clue_extractor=EXTRACTOR)
    batch = batch_of(model, questions(2))
    stated = batch.labels.words_BQKW.clone()
    stated[0, 0, 0] = batch.labels.words_BQKW[0, 1, 0]  # question 0 states a clue of question 1
    for seed in range(10):
        ids, where, *_ = _pool_of(model, batch, seed=seed, ids=stated)
        assert not (ids[0, 0][where[0, 0]] == stated[0, 0, 0]).all(-1).any()
    silent = torch.zeros(1, 2, SLOTS, dtype=torch.bool)
    assert not _pool_of(model, batch, present=silent)[1].any()


def test_the_share_of_filled_slots_is_as_asked():
    model = tiny_model(clue_extractor=EXTRACTOR)
    batch = batch_of(model, *[questions(2)] * 2)
    shares = {
        s: sum(float(_pool_of(model, batch, s, seed)[1].float().mean()) for seed in range(200)) / 200
        for s in (0, 0.3, 1)
    }
    assert shares[0] == 0
    assert shares[0.3] == pytest.approx(0.3 * shares[1], rel=0.15)
    assert shares[1] == pytest.approx(2 / 3)  # one of three clues is stated, and there are distractors enough


def test_the_reasoner_never_reads_a_distractor(monkeypatch):
    model = speaking_model().train()
    batch, read, original = batch_of(model, questions()), [], model.reason
    monkeypatch.setattr(model, "reason", lambda b, p, clues: read.append(clues.detach()) or original(b, p, clues))
    monkeypatch.setattr(
        model.collator.vocabulary, "present", lambda ids: torch.arange(SLOTS).expand(ids.shape[:3]) == 0
    )
    plain, filled = (model(batch, stage=stage(distractors=share), seed=0) for share in (0.0, 1.0))
    half = len(read) // 2
    assert all(torch.equal(a, b) for a, b in zip(read[:half], read[half:], strict=True))
    assert int(filled["labels/filter"]) > int(plain["labels/filter"])
    assert float(filled["answer"].detach()) == float(plain["answer"].detach())


def test_a_distractor_teaches_that_it_is_worth_nothing(monkeypatch):
    """Where no answer is known, nothing else teaches the gate; one that says the same of every clue needs no pool by hand."""
    model = speaking_model().train()
    with torch.no_grad():
        model.filter.gate.mlp[2].weight.zero_()
        model.filter.gate.mlp[2].bias.fill_(0.7)
    monkeypatch.setattr(
        model.collator.vocabulary, "present", lambda ids: torch.arange(SLOTS).expand(ids.shape[:3]) == 0
    )
    batch = batch_of(model, [replace(question, answer=None) for question in questions()])
    out = model(batch, stage=stage(distractors=1.0, delta=0.02, temperature=0.01), seed=0)
    target = torch.tensor(-2.0).sigmoid()
    wanted = F.binary_cross_entropy(torch.tensor(0.7).sigmoid(), target)
    assert int(out["labels/filter"]) == 6
    assert float(out["filter"].detach()) == pytest.approx(float(wanted), rel=1e-5)


# ------------------------------------------------------------------------------------------------ what the gate sees


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
@pytest.mark.parametrize("name", LEARNED)
def test_gates_are_the_same_bit_by_bit_whatever_the_options_and_the_answer(name, reasoner):
    model = speaking_model(clue_filter=name, reasoner=reasoner)
    one = example(0, options=COLOURS, answer=2)
    others = [replace(one, options=tuple(order), answer=a) for order in itertools.permutations(COLOURS) for a in (0, 3)]
    wanted = _gates(model, one)
    assert wanted.numel() == SLOTS
    assert all(
        torch.equal(_gates(model, other), wanted) for other in (*others, replace(one, options=COLOURS[:2], answer=1))
    )
    assert not torch.equal(_gates(model, replace(one, question="why does it move ?")), wanted)


def _gates(model, question):
    batch = batch_of(model, [question])
    return model.own_evidence(batch, model.look(batch)).gate_BQK


# -------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("name", list(register.clue_filter))
def test_what_is_kept_does_not_depend_on_the_other_clips_of_the_batch(name):
    model = speaking_model(clue_filter=name)
    alone = {}
    for i in range(4):
        (alone[i],) = model.predict(batch_of(model, [example(i)], first=i))
    together = model.predict(batch_of(model, *[[example(i)] for i in range(4)]))
    backwards = model.predict(
        model.collate([(clip(i), [example(i)]) for i in (3, 2, 1, 0)], seed=0, shuffle_options=False)
    )
    for i in range(4):
        kept = [[clue.kept for clue in answer.clues] for answer in (alone[i], together[i], backwards[3 - i])]
        assert kept[0] == kept[1] == kept[2]
    assert {clue.kept for answer in together for clue in answer.clues} >= (
        {True} if name != "random" else {True, False}
    )


def test_a_soft_gate_mixes_kept_clues_with_silence_by_its_share():
    hard, soft = (
        speaking_model(clue_filter={"name": "adaptive", "threshold": 0.5, "gate": gate}) for gate in ("hard", "soft")
    )
    batch = batch_of(hard, questions())
    one, other = (model.own_evidence(batch, model.look(batch)) for model in (hard, soft))
    assert torch.equal(one.keep_BQK, other.keep_BQK)
    assert 0 < int(one.keep_BQK.sum()) < int(one.present_BQK.sum())
    none = torch.full_like(one.ids_BQKW, hard.collator.vocabulary.none)
    words, silence = hard.displayed(one.ids_BQKW), hard.displayed(none)
    for b, q, k in itertools.product(range(1), range(3), range(SLOTS)):
        share = float(one.gate_BQK[b, q, k]) if one.keep_BQK[b, q, k] else 0.0
        mixed = share * words[b, q, k] + (1 - share) * silence[b, q, k]
        assert torch.allclose(other.embeds_BQKWD[b, q, k], mixed, atol=1e-5)
        wanted = words[b, q, k] if one.keep_BQK[b, q, k] else silence[b, q, k]
        assert torch.allclose(one.embeds_BQKWD[b, q, k], wanted, atol=1e-5)


def test_oracle_utility_keeps_the_clues_that_help_and_cannot_be_asked():
    model = speaking_model(clue_filter="oracle_utility")
    batch = batch_of(model, questions(), questions(2))
    look = model.look(batch)
    own = model.own_evidence(batch, look)
    with model.inference():
        utility = exact_utilities(model, batch, look[0], own.ids_BQKW, own.present_BQK)
    assert torch.equal(own.keep_BQK, utility > 0)
    assert 0 < int(own.keep_BQK.sum()) < int(own.present_BQK.sum())
    asked = batch_of(model, [example(0, answer=None)])
    with pytest.raises(CluenetError, match=r"question 'q0'.*'oracle_utility' sees it.*upper bound"):
        model.predict(asked)
    assert model.predict(asked, clues="oracle")


def test_oracle_utility_trains_without_looking_at_utilities(monkeypatch):
    model = speaking_model(clue_filter="oracle_utility").train()
    calls, original = [], model.reason
    monkeypatch.setattr(model, "reason", lambda *args: calls.append(1) or original(*args))
    assert "filter" not in model(batch_of(model, questions()), stage=stage(), seed=0)
    assert len(calls) == 1


# -------------------------------------------------------------------------------------------- the conformal threshold


CONFORMAL = {"name": "adaptive", "threshold": "conformal", "alpha": 0.2}


def judged(gates, useful):
    return Judged(*(torch.tensor(rows)[None].numpy() for rows in (gates, [True] * len(gates), useful)))


def test_until_it_is_calibrated_every_clue_is_kept_and_then_those_above_the_threshold():
    model = speaking_model(clue_filter=CONFORMAL)
    batch = batch_of(model, questions())
    before = model.own_evidence(batch, model.look(batch))
    assert torch.equal(before.keep_BQK, before.present_BQK)
    clips = [judged([0.1, 0.3, 0.5 + 0.01 * i], [False, False, True]) for i in range(18)]
    facts = model.filter.calibrate(clips, seed=0)
    assert "probability 0.8 at least; calibrated on 9 clips" in facts["clue threshold"]
    gates, present = torch.tensor([[[0.1, 0.3, 0.45, 0.9]]]), torch.ones(1, 1, 4, dtype=torch.bool)
    seeds = torch.zeros(1, 1, dtype=torch.long)
    assert model.filter.keep(gates, present, seeds_BQ=seeds)[0, 0].tolist() == [False, False, False, True]
    assert not model.filter.keep(gates[..., :2], present[..., :2], seeds_BQ=seeds).any()  # none passes: no clues at all


def test_a_conformal_threshold_keeps_at_most_max_clues():
    model = speaking_model(clue_filter={**CONFORMAL, "max_clues": 1})
    batch = batch_of(model, questions())
    own = model.own_evidence(batch, model.look(batch))
    assert own.keep_BQK.sum(-1).tolist() == own.present_BQK.any(-1).int().tolist()
    best = own.gate_BQK.masked_fill(~own.present_BQK, -1).argmax(-1)
    assert own.keep_BQK.gather(-1, best[..., None]).any(-1).equal(own.present_BQK.any(-1))


def test_a_number_as_threshold_needs_no_calibration_and_no_buffers():
    filters = [register.clue_filter.parse({"name": "adaptive", "threshold": value}) for value in (0.4, "conformal")]
    assert [config.component.calibration_clips(config) for config in filters] == [0, 200]
    assert not dict(speaking_model(clue_filter="adaptive").filter.named_buffers())
