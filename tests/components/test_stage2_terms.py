"""Alignment, counterfactual and visual dropout inside the model: their values by hand, what their gradients reach, what they
leave out, and that which modules run never depends on the data."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from cluenet.config.model import ModelSection
from cluenet.config.train import FilterLoss, Losses, Stage1, Stage2
from cluenet.errors import SupervisionError
from cluenet.model import evidence
from cluenet.model.alignment import donors
from cluenet.records import Clue, VideoRef
from cluenet.train.supervision import supervise
from helpers.models import COLOURS, clip, example, tiny_model

EVERYTHING = Losses(
    answer=1, chain=1, concept=1, attention=1, span=1, presence=1, filter=1, alignment=1, counterfactual=1
)
FILTER = FilterLoss(measured=2, ranking=1, budget=1, distractors=1)
TIES = Losses(answer=0, alignment=1, counterfactual=1)
SLOTS = {"name": "latent_slots", "slots": 2, "heads": 2, "presence": "learned"}
PAIRS = [(r, s) for r in ("evidence", "clue_chain") for s in ("letters", "likelihood")]


def fact(text):
    return (Clue(text, 0.0, 0.4, (), dict(zip(("who", "what", "whom"), text.split()))),)


FACTS = ("red hits blue", "blue hits red", "green hits cyan", "cyan hits red", "red hits green", "blue hits cyan")


def question(index, video, **changes):
    return example(index, **{"video": VideoRef(f"{video}.mp4"), "clues": fact(FACTS[index % 6]), **changes})


def rows(**changes):
    return [[question(0, "a", **changes), question(1, "a", **changes)], [question(2, "b", **changes)],
            [question(3, "c", **changes), question(4, "c", **changes)]]  # fmt: skip


def batch_of(model, clips):
    return model.collate([(clip(i), row) for i, row in enumerate(clips)], seed=0, shuffle_options=False, chain=True)


def speaking(reasoner="evidence", scoring="letters", **section):
    """In training; its slots say something, at random, and differently for every question."""
    model = tiny_model(
        reasoner={"name": reasoner, "scoring": scoring}, **{"clue_extractor": {**SLOTS, "presence": "words"}, **section}
    )
    torch.manual_seed(4)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    return model.train()


def terms(model, batch, stage, **options):
    out = model(batch, stage=stage, seed=options.pop("seed", 0), **options)
    return {name: float(value.detach()) for name, value in out.items()}


def answer_pass(model, batch, clues_BQKWD):
    return model.reason(batch, model.see(batch).prefix, clues_BQKWD)


# -------------------------------------------------------------------------------------------------- values by hand


def token_states(batch, hidden, b, ids, *, after):
    """States of the first run of these tokens in a row after a column, and the column where it ends."""
    row = batch.answer.packed.ids_BL[b].tolist()
    start = next(c for c in range(after, len(row)) if row[c : c + len(ids)] == ids)
    return hidden[b, start : start + len(ids)].tolist(), start + len(ids)


def mean(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors)]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize(("reasoner", "scoring"), PAIRS)
def test_alignment_by_hand(reasoner, scoring):
    """Tokens are looked up in the packed row, states are averaged in plain Python."""
    model = speaking(reasoner, scoring)
    batch = batch_of(model, rows(options=COLOURS, answer=2))
    stage = Stage1(steps=1, losses=TIES, alignment_temperature=0.2)
    with torch.no_grad():
        read = evidence.truth(model, batch)
        hidden = answer_pass(model, batch, read.embeds_BQKWD)
    wanted = []
    for b, row in enumerate(batch.clips):
        for q, asked in enumerate(row):
            start = batch.answer.packed.starts[b][q]
            (said,) = (ids.tolist() for ids in read.ids_BQKW[b, q, :1])  # one clue is labelled, the other slot is empty
            assert model.collator.vocabulary.decode(said)[1:] == tuple(FACTS[int(asked.id[1:])].split())
            clue = mean(hidden[b, batch.answer.clue_index_BQKW[b, q, 0]].tolist())
            scores, end = [], start + len(model.vlm.ids(asked.question))
            for option in asked.options:
                states, end = token_states(batch, hidden, b, model.vlm.ids(option), after=end)
                scores.append(cosine(clue, mean(states)) / 0.2)
            wanted.append(math.log(sum(map(math.exp, scores))) - scores[asked.answer])
    out = terms(model, batch, stage)
    assert out["labels/alignment"] == len(wanted) == 5
    assert out["alignment"] == pytest.approx(sum(wanted) / 5, rel=1e-4)


@pytest.mark.parametrize(("reasoner", "scoring"), PAIRS)
def test_counterfactual_by_hand(reasoner, scoring):
    """Each question alone in a batch, with its own clues and then with those of its donor in the labels' place."""
    model = speaking(reasoner, scoring)
    asked = rows()
    asked[1] = [question(2, "b", options=(), answer="red hits blue")]  # open: mean over the reference's tokens
    batch = batch_of(model, asked)
    chosen, _ = donors(batch, seed=0)
    examples = {b * 2 + q: e for b, row in enumerate(asked) for q, e in enumerate(row)}

    def right(b, one):
        alone = model.collate([(clip(b), [one])], seed=0, shuffle_options=False)
        with torch.no_grad():
            hidden = answer_pass(model, alone, evidence.truth(model, alone).embeds_BQKWD)
            if one.options:
                return float(model.option_logprobs(alone, hidden)[0, 0, one.answer])
            values = [model.vlm.head(hidden[0, c]).log_softmax(-1)[t] for *_, c, t in alone.answer.option_rows.tolist()]
            return float(sum(values) / len(values))

    gaps = []
    for place, one in examples.items():
        other = examples[int(chosen[place // 2, place % 2])]
        assert other.video != one.video
        own, swapped = (right(place // 2, replace(one, clues=clues)) for clues in (one.clues, other.clues))
        gaps.append(own - swapped)
    margin = max(gaps) / 2
    wanted = [max(0.0, margin - gap) for gap in gaps]
    assert 0 < sum(value > 0 for value in wanted) < 5  # some hinges are open, some closed
    out = terms(model, batch, Stage1(steps=1, losses=TIES, counterfactual_margin=margin))
    assert out["labels/counterfactual"] == 5
    assert out["counterfactual"] == pytest.approx(sum(wanted) / 5, rel=1e-3, abs=1e-6)
    assert out["labels/alignment"] == 4  # not the open question


# ------------------------------------------------------------------------------------------------------- gradients


def gradients(model, batch, stage, *names):
    model.zero_grad()
    out = model(batch, stage=stage, seed=0)
    sum(out[name] for name in names).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def of_extractor(found):
    return {name: grad for name, grad in found.items() if name.startswith("extractor.")}


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
@pytest.mark.parametrize("term", ["alignment", "counterfactual"])
def test_in_stage_1_they_teach_the_reasoner_and_never_reach_the_clue_head(reasoner, term):
    model = speaking(reasoner)
    found = gradients(model, batch_of(model, rows()), Stage1(steps=1, losses=TIES), term)
    assert found
    assert of_extractor(found) == {}


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
@pytest.mark.parametrize("term", ["alignment", "counterfactual"])
def test_in_stage_2_they_reach_the_clue_head_where_it_is_coupled(reasoner, term):
    model = speaking(reasoner)
    batch = batch_of(model, rows())
    stage = Stage2(steps=1, losses=TIES, counterfactual_margin=20)
    found = of_extractor(gradients(model, batch, stage, term))
    assert {"extractor.to_words.weight", "extractor.blocks.0.query.weight", "extractor.queries_KD"} <= set(found)
    uncoupled = gradients(model, batch, stage.model_copy(update={"coupled": False}), term)
    assert uncoupled
    assert of_extractor(uncoupled) == {}


def test_foreign_clues_are_not_pushed_to_be_wrong():
    """All hinges open, the clue head's gradient is that of the mean log-probability with own clues, and nothing else."""
    from cluenet.model.utilities import gold_logprob

    model = speaking()
    batch = batch_of(model, rows())
    stage = Stage2(steps=1, losses=TIES, counterfactual_margin=50)
    found = of_extractor(gradients(model, batch, stage, "counterfactual"))
    model.zero_grad()
    look = model.see(batch, stage)
    read = evidence.for_training(model, batch, look, stage, truth_share=0.0, seed=0)
    own = gold_logprob(model, batch, model.reason(batch, look.prefix, read.embeds_BQKWD))
    assert terms(model, batch, stage)["labels/counterfactual"] == int(batch.valid_BQ.sum())
    (-own[batch.valid_BQ].mean()).backward()
    for name, grad in found.items():
        assert torch.allclose(grad, dict(model.named_parameters())[name].grad, atol=1e-6, rtol=1e-3), name


# --------------------------------------------------------------------------------------------------- what is left out


def test_one_video_has_no_counterfactual():
    model = speaking()
    for asked in (rows()[:1], [rows()[0], [question(5, "a")]]):
        model.zero_grad()
        out = model(batch_of(model, asked), stage=Stage2(steps=1, losses=TIES), seed=0)
        assert (int(out["labels/counterfactual"]), float(out["counterfactual"].detach())) == (0, 0.0)
        out["counterfactual"].backward()
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())


def test_unknown_answers_missing_clues_and_equal_clues_drop_out():
    model, stage = speaking(), Stage1(steps=1, losses=TIES)
    unknown = rows()
    unknown[1] = [question(2, "b", answer=None)]
    silent = rows()
    silent[1] = [question(2, "b", clues=())]
    assert terms(model, batch_of(model, unknown), stage)["labels/alignment"] == 4
    assert terms(model, batch_of(model, unknown), stage)["labels/counterfactual"] == 4
    assert terms(model, batch_of(model, silent), stage)["labels/alignment"] == 4
    assert (
        terms(model, batch_of(model, silent), stage)["labels/counterfactual"] == 5
    )  # to have none is another evidence
    alike = terms(model, batch_of(model, rows(clues=fact(FACTS[0]))), stage)
    assert (alike["labels/alignment"], alike["labels/counterfactual"], alike["counterfactual"]) == (5, 0, 0)


def test_a_model_without_clues_has_neither():
    model = tiny_model(clue_extractor="none", clue_filter="keep_all", reasoner="direct").train()
    out = terms(model, batch_of(model, rows()), Stage2(steps=1, losses=EVERYTHING))
    assert not {"alignment", "counterfactual"} & set(out)


def test_questions_that_read_the_truth_are_tied_to_the_truth():
    """Scheduled sampling: the words that count are those that are read."""
    model = speaking()
    batch = batch_of(model, rows())
    mixed = terms(model, batch, Stage2(steps=1, losses=TIES, truth_share=(1, 1)))
    true = terms(model, batch, Stage1(steps=1, losses=TIES))
    assert mixed == pytest.approx(true, abs=1e-5)
    stage = Stage2(steps=1, losses=TIES)
    half = evidence.for_training(model, batch, model.see(batch, stage), stage, truth_share=0.5, seed=1)
    mine = evidence.for_training(model, batch, model.see(batch, stage), stage, truth_share=0.0, seed=1)
    labelled = evidence.truth(model, batch)
    read = {
        tuple(torch.equal(half.embeds_BQKWD[b, q], one.embeds_BQKWD[b, q]) for one in (mine, labelled))
        for b, q in batch.valid_BQ.nonzero().tolist()
    }
    assert read == {(True, False), (False, True)}  # some read their own, some the truth
    for b, q in batch.valid_BQ.nonzero().tolist():
        source = labelled if torch.equal(half.embeds_BQKWD[b, q], labelled.embeds_BQKWD[b, q]) else mine
        assert torch.equal(half.ids_BQKW[b, q], source.ids_BQKW[b, q])
        assert torch.equal(half.keep_BQK[b, q], source.keep_BQK[b, q])


def test_they_keep_their_value_under_bf16():
    model = speaking()
    batch, stage = batch_of(model, rows()), Stage2(steps=1, losses=TIES)
    full = terms(model, batch, stage)
    with torch.autocast("cpu", torch.bfloat16):
        half = terms(model, batch, stage)
    for name in ("alignment", "counterfactual"):
        assert half[name] == pytest.approx(full[name], rel=0.1)


@pytest.mark.parametrize(
    ("components", "reason"),
    [
        ({"clue_extractor": "none", "reasoner": "direct"}, "the reasoner `direct` reads no clues"),
        ({"clue_extractor": "none", "reasoner": "clue_chain"}, "the clue extractor `none` states no clues"),
    ],
)
def test_before_training_it_is_said_where_they_do_not_apply(components, reason):
    section = ModelSection.model_validate({"backbone": "tiny", "clue_filter": "keep_all", **components})
    stage = Stage2(steps=1, losses=Losses(answer=1, alignment=0.5, counterfactual=2))
    lines = supervise("stage2", stage, section, [labels_of(answer=10)]).lines()
    assert f"stage2: alignment x 0.5: does not apply, {reason}" in lines
    assert f"stage2: counterfactual x 2: does not apply, {reason}" in lines


def test_before_training_it_is_said_how_many_questions_teach_them():
    """On ground truth those with an answer and clues; on own clues all with an answer."""
    section = ModelSection.model_validate({"backbone": "tiny", "reasoner": "evidence"})
    sets, losses = [labels_of(answer=8, clues=3)], Losses(answer=0, alignment=1)
    own, true = (supervise("s", stage(steps=1, losses=losses), section, sets).lines() for stage in (Stage2, Stage1))
    assert own[0] == "s: alignment x 1: 8 of 10 questions have labels, masked for the other 2"
    assert true[0] == "s: alignment x 1: 3 of 10 questions have labels, masked for the other 7"
    with pytest.raises(SupervisionError, match="alignment x 1: masked everywhere"):
        supervise("s", Stage1(steps=1, losses=losses), section, [labels_of(answer=8, clues=0)])


def labels_of(**labels):
    return {"rows": {"in": 10, "ready": 10, "quarantined": 0}, "labels": labels}


# -------------------------------------------------------------------------------------------------- visual dropout


def test_dropout_hides_the_video_from_the_answer_and_never_from_extraction():
    model = speaking("clue_chain")
    batch = batch_of(model, rows())
    whole = Stage2(steps=1, losses=EVERYTHING, coupled=False)
    dropped = whole.model_copy(update={"visual_dropout": (0.8, 0.0)})
    seen, hidden, other = (
        terms(model, batch, stage, seed=seed) for stage, seed in ((whole, 0), (dropped, 0), (dropped, 1))
    )
    for name in ("concept", "attention", "span"):
        assert hidden[name] == seen[name]
    assert len({one["answer"] for one in (seen, hidden, other)}) == 3
    assert terms(model, batch, dropped, progress=1.0)["answer"] == seen["answer"]
    assert terms(model, batch, dropped)["answer"] == hidden["answer"]  # from the seed alone


def test_all_answer_passes_of_a_step_see_the_same_part_of_the_video(monkeypatch):
    """What a clue is worth must not depend on which tokens happened to be hidden."""
    model = speaking("clue_chain")
    passes, original = [], model.reason
    monkeypatch.setattr(model, "reason", lambda *args: passes.append(args[1].valid_BP) or original(*args))
    stage = Stage2(steps=1, losses=EVERYTHING, filter_loss=FILTER, visual_dropout=(0.5, 0.5))
    batch = batch_of(model, rows())
    model(batch, stage=stage, seed=0)
    assert len(passes) == 4  # the answer, two clues left out, another video's clues
    assert all(torch.equal(valid, passes[0]) for valid in passes)
    assert passes[0].sum() < batch.prefix.valid_BP.sum()


# ---------------------------------------------------------------------------------------------- which modules run


def calls(model, batch, stage):
    """How often every module is called in a forward pass."""
    counts: Counter[str] = Counter()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: counts.update([name]))
        for name, module in model.named_modules()
        if name
    ]
    out = model(batch, stage=stage, seed=0)
    for hook in hooks:
        hook.remove()
    return counts, out


@pytest.mark.parametrize(("reasoner", "scoring"), PAIRS)
@pytest.mark.parametrize("matching", ["ordered", "hungarian"])
def test_which_modules_run_does_not_depend_on_labels_or_clues(reasoner, scoring, matching, monkeypatch):
    """Ranks that wait for each other must do the same, whatever their questions and clues are like."""
    model = speaking(reasoner, scoring, clue_extractor={**SLOTS, "matching": matching})
    dropout = (0.5, 0.0) if reasoner == "clue_chain" else (0.0, 0.0)
    stage = Stage2(steps=1, losses=EVERYTHING, filter_loss=FILTER, truth_share=(0.5, 0.5), visual_dropout=dropout)
    original = model.extractor.extract

    def shifted(by):
        def extract(*args):
            states = original(*args)
            states.presence_BQK = states.presence_BQK + by
            return states

        monkeypatch.setattr(model.extractor, "extract", extract)

    shifted(1e3)  # every slot says something
    full, out = calls(model, batch_of(model, rows()), stage)
    assert all(int(out[f"labels/{name}"]) > 0 for name in ("concept", "filter", "alignment", "counterfactual"))
    shifted(-1e3)  # none does
    bare = [[question(7, "z", clues=None, chain=None, answer=None)]]
    unlabelled = rows(clues=None, chain=None)
    for asked in (bare, unlabelled, [[question(6, "y", clues=None, chain=None, options=(), answer="red")]]):
        empty, out = calls(model, batch_of(model, asked), stage)
        assert empty == full
        assert all(int(out[f"labels/{name}"]) == 0 for name in ("concept", "filter", "alignment", "counterfactual"))
    assert sum(full.values()) > 100
    # the prompt, the question, the answer, two clues left out, another video's clues
    assert full["vlm.hf.model.language_model.layers.0"] == 6
