"""Interventions on real tiny models against one question at a time, and on planted ones whose faithfulness is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cluenet.evaluate.faithfulness import faithfulness
from cluenet.model.interventions import inapplicable, intervene, without_video
from cluenet.plugins import load_components
from cluenet.records import Clue, Example, VideoRef
from cluenet.registry import register
from helpers.models import clip, example, tiny_model

load_components()
COLOURS = ("red", "green", "cyan")


def asking(video: int, who: str, *, also: str | None = None, options=COLOURS, **changes) -> Example:
    """`who` hits blue in that video, and `also` moves."""
    clues = [Clue(f"{who} hits blue", concepts={"who": who, "what": "hits", "whom": "blue"})]
    if also:
        clues.append(Clue(f"{also} move", concepts={"who": also, "what": "move"}))
    values = {
        "id": f"v{video}/{who}", "dataset": "fake", "video": VideoRef(f"v{video}.mp4"), "question": "which one does it ?",
        "options": options, "answer": options.index(who), "type": "who", "clues": tuple(clues),
    }  # fmt: skip
    return Example(**{**values, **changes})


def batch_of(model, examples, **frames):
    clips = [(clip(i, **frames), list(group)) for i, group in enumerate(examples)]
    return model.collate(clips, seed=0, shuffle_options=False)


def records_of(model, batch):
    return intervene(model, batch, model.look(batch))


def talkative(**section):
    """An untrained model whose slots say something."""
    model = tiny_model(**section)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    return model


# --------------------------------------------------------------------------- against one question at a time


def alone(model, frames, question, ids_KW, slots):
    """Probabilities of the options when just these slots are shown: no packing, no batch, no shared look."""
    batch = model.collate([(frames, [question])], seed=0, shuffle_options=False)
    words = [row if slot in slots else [model.collator.vocabulary.none] * len(row) for slot, row in enumerate(ids_KW)]
    with torch.no_grad():
        embeds = F.embedding(torch.tensor(words), model.vlm.embeddings_VD) + model.slot_embedding_KWD
        prefix = model.look(batch)[0]
        hidden = model.reason(batch, prefix, embeds[None, None])
        return model.option_logprobs(batch, hidden)[0, 0].exp().tolist()


@pytest.mark.parametrize("clue_filter", ["adaptive", "keep_all"])
@pytest.mark.parametrize("reasoner", ["evidence", {"name": "clue_chain", "scoring": "likelihood"}])
def test_curves_equal_showing_the_clues_one_question_at_a_time(reasoner, clue_filter):
    model = talkative(
        reasoner=reasoner, clue_filter=clue_filter, clue_extractor={"name": "latent_slots", "slots": 3, "heads": 2}
    )
    batch = batch_of(model, [[example(0), example(1)], [example(5)]])
    look = model.look(batch)
    own = model.own_evidence(batch, look)
    shown_by_question = []
    for (b, q), record in zip(((0, 0), (0, 1), (1, 0)), intervene(model, batch, look), strict=True):
        question, ids, frames = batch.clips[b][q], own.ids_BQKW[b, q].tolist(), clip(b)
        shown = [k for k in range(3) if own.keep_BQK[b, q, k]]
        stated = [k for k in range(3) if own.present_BQK[b, q, k]]
        shown_by_question.append(len(shown))
        whole = alone(model, frames, question, ids, shown)
        best = whole.index(max(whole))

        def p(slots, chosen=(frames, question, ids), best=best):
            return alone(model, *chosen, slots)[best]

        if clue_filter == "adaptive":
            worth = {k: float(own.gate_BQK[b, q, k]) for k in shown}
        else:
            worth = {k: p(shown) - p([other for other in shown if other != k]) for k in shown}
        assert [worth[stated[place]] for place in record["order"]] == pytest.approx(record["importance"], abs=1e-5)
        assert record["importance"] == sorted(record["importance"], reverse=True)
        order = [stated[place] for place in record["order"]]
        assert sorted(order) == shown
        assert record["deletion"] == pytest.approx([p(order[m:]) for m in range(len(order) + 1)], abs=1e-5)
        assert record["insertion"] == pytest.approx([p(order[:m]) for m in range(len(order) + 1)], abs=1e-5)
        for size, value in enumerate(record["random"]):
            sets = [s for s in powerset(shown) if len(s) == size]
            assert value == pytest.approx(sum(map(p, sets)) / len(sets), abs=1e-5)
    assert max(shown_by_question) > 1


def powerset(items):
    return [[x for i, x in enumerate(items) if mask >> i & 1] for mask in range(2 ** len(items))]


def test_other_clues_are_read_as_if_the_question_had_them():
    """Against the labels of an example that has the donor's, the renamed, or one clue more."""
    model = tiny_model(clue_extractor={"name": "oracle", "slots": 2}, clue_filter="keep_all")
    examples = [[asking(0, "red")], [asking(1, "cyan")], [asking(2, "green")]]
    batch = batch_of(model, examples)
    records = records_of(model, batch)
    by_id = {e.id: e for e in batch.examples}
    for one, record in zip(batch.examples, records):
        swapped = replace(one, clues=by_id[record["swap"]["donor"]].clues)
        noisy = replace(one, clues=(*one.clues, *by_id[record["noise"]["source"]].clues))
        wanted = [(swapped, record["swap"]["prediction"]), (noisy, record["noise"]["after"])]
        if record["edit"]:
            ((a, b),) = record["edit"]["names"]
            words = {a: b, b: a}
            concepts = {role: words.get(word, word) for role, word in one.clues[0].concepts.items()}
            wanted.append((replace(one, clues=(Clue("renamed", concepts=concepts),)), record["edit"]["prediction"]))
        for changed, prediction in wanted:
            assert model.predict(batch_of(model, [[changed]]), clues="oracle")[0].prediction == prediction
    assert all(record["noise"]["through"] is record["noise"]["kept"] is None for record in records)


# --------------------------------------------------------------------------------------------- the video


@pytest.mark.parametrize("reasoner", ["clue_chain", "direct"])
def test_a_hidden_video_leaves_no_trace(reasoner):
    section = {} if reasoner == "clue_chain" else {"clue_extractor": "none", "clue_filter": "keep_all"}
    model = tiny_model(reasoner=reasoner, **section)

    def scores(seed, hidden):
        batch = model.collate([(clip(seed), [example(1)])], seed=0, shuffle_options=False)
        prefix = model.look(batch)[0]
        clues = model.displayed(batch.labels.words_BQKW)
        return model.logprobs_given(batch, without_video(prefix, batch) if hidden else prefix, clues).tolist()

    assert scores(1, hidden=True) == scores(2, hidden=True)
    assert scores(1, hidden=False) != scores(2, hidden=False)
    assert scores(1, hidden=True) != scores(1, hidden=False)


def test_the_video_is_looked_at_once_for_rows_and_interventions(monkeypatch):
    model = talkative(reasoner="clue_chain")
    looks, prefix = [], model.vlm.prefix
    monkeypatch.setattr(model.vlm, "prefix", lambda *a, **k: looks.append(1) or prefix(*a, **k))
    batch = batch_of(model, [[example(0)], [example(1)]])
    look = model.look(batch)
    rows = model.predict_rows(batch, ("own", "oracle", "none"), look=look)
    records = intervene(model, batch, look)
    assert len(looks) == 1
    assert [r["frames_only"] for r in records] == [answer.prediction for answer in rows["none"]]
    own = [answer.option_probabilities[answer.prediction] for answer in rows["own"]]
    assert [r["deletion"][0] for r in records] == pytest.approx(own, abs=1e-6)


def test_the_model_comes_back_in_the_mode_it_was_in():
    model = talkative().train()
    records_of(model, batch_of(model, [[example(0)]]))
    assert model.training


# ------------------------------------------------------------------------------------------ every combination


@pytest.mark.parametrize("extractor", list(register.clue_extractor))
@pytest.mark.parametrize("clue_filter", list(register.clue_filter))
@pytest.mark.parametrize("reasoner", list(register.reasoner))
def test_every_combination_says_what_it_measures_and_what_not(extractor, clue_filter, reasoner):
    model = tiny_model(clue_extractor=extractor, clue_filter=clue_filter, reasoner=reasoner)
    batch = batch_of(model, [[example(0), example(1, options=(), answer="red")], [example(2)]])
    first, open_ended, last = records_of(model, batch)
    assert open_ended is None  # no probability to compare
    assert json.loads(json.dumps(first)) == first
    missing = set(inapplicable(model))
    curves = {"order", "importance", "deletion", "insertion", "random"}
    expected = {
        *(curves if "curves" not in missing else ()),
        "swap",
        "edit",
        "noise",
        "clue_only",
        "frames_only",
        "text_only",
    }
    assert set(first) == set(last) == expected - missing
    assert records_of(model, batch) == [first, None, last]


# -------------------------------------------------------------------------------------------- planted models


class Planted:
    """A model that states the labelled clues and answers as it is told: `answer(question, shown words, sees video)` gives
    a probability for every option. `gate(words)`: the filter's."""

    def __init__(self, monkeypatch, answer, *, gate=lambda words: 0.9, reasoner="evidence", slots=2):
        extractor = {"name": "latent_slots", "slots": slots, "heads": 2}
        self.model = model = tiny_model(reasoner=reasoner, clue_extractor=extractor)
        self.answer, self.gate = answer, gate
        monkeypatch.setattr(model, "logprobs_given", self.logprobs)
        monkeypatch.setattr(model.filter, "gate_logits", lambda clues, stem, sure: self.each(clues, self.logit))
        monkeypatch.setattr(model, "own_evidence", self.labels_as_own)

    def labels_as_own(self, batch, look, *, seed=0):
        ids = batch.labels.words_BQKW
        return self.model.refiltered(batch, ids, self.model.collator.vocabulary.present(ids), look)

    def logit(self, words):
        gate = self.gate(words)
        return math.log(gate / (1 - gate))

    def words(self, clues_BQKWD):
        """The words that embeddings in the reasoner's input stand for: the nearest ones."""
        bare = clues_BQKWD - self.model.slot_embedding_KWD
        ids = torch.cdist(bare.flatten(0, -2), self.model.vlm.embeddings_VD).argmin(-1).view(clues_BQKWD.shape[:-1])
        decode = self.model.collator.vocabulary.decode
        return [[[decode(slot) for slot in question] for question in row] for row in ids.tolist()]

    def each(self, clues_BQKWD, of):
        return torch.tensor([[[of(slot) for slot in question] for question in row] for row in self.words(clues_BQKWD)])

    def logprobs(self, batch, prefix, clues_BQKWD):
        found = torch.full((*batch.valid_BQ.shape, 8), float("-inf"))
        sees = prefix is not None and bool((prefix.valid_BP.sum(1) > batch.prefix.visual_index_BN[:, 0]).all())
        words = self.words(clues_BQKWD.detach())
        for b, row in enumerate(batch.clips):
            for q, question in enumerate(row):
                shown = [slot for slot in words[b][q] if slot[1] != "none"]
                p = torch.tensor(self.answer(question, shown, sees))
                found[b, q, : len(p)] = p.log()
        return found

    def block(self, examples):
        """(`faithfulness` of results.json, records) on these questions, by clip."""
        batch = batch_of(self.model, examples)
        look = self.model.look(batch)
        own = self.model.own_evidence(batch, look)
        records, samples = intervene(self.model, batch, look), []
        places = [(b, q) for b, row in enumerate(batch.clips) for q in range(len(row))]
        probabilities = self.model.logprobs_given(batch, look[0], own.embeds_BQKWD)
        for (b, q), question, record in zip(places, batch.examples, records, strict=True):
            prediction, decode = int(probabilities[b, q].argmax()), self.model.collator.vocabulary.decode
            clues = [
                {"words": list(decode(own.ids_BQKW[b, q, k].tolist())), "kept": bool(own.keep_BQK[b, q, k]), "gate": 0.5,
                 "start_seconds": None, "end_seconds": None}
                for k in range(self.model.slots) if own.present_BQK[b, q, k]
            ]  # fmt: skip
            samples.append({
                "faithfulness": record, "prediction": prediction, "answer": question.answer, "video": question.video.path,
                "correct": prediction == question.answer, "clues": clues, "true_clues": clues, "rows": {},
            })  # fmt: skip
        return faithfulness(samples, extracts=True, resamples=100), records


def deaf(question, shown, sees):
    """Says the second option whatever it reads."""
    return [0.1, 0.8, *[0.1 / (len(question.options) - 2)] * (len(question.options) - 2)]


def copying(question, shown, sees):
    """The option that the clue about hitting names, at .9; even odds without one."""
    count = len(question.options)
    named = [word for words in shown if words[2] == "hits" for word in words if word in question.options]
    if not named:
        return [1 / count] * count
    return [0.9 if option == named[0] else 0.1 / (count - 1) for option in question.options]


VIDEOS = [[asking(0, "red", also="blue")], [asking(1, "green", also="blue")], [asking(2, "cyan", also="blue")]]


def test_a_model_that_ignores_its_clues_is_found_out(monkeypatch):
    (block, notes), _ = Planted(monkeypatch, deaf).block(VIDEOS)
    for path in ("comprehensiveness", "sufficiency"):
        assert [point["value"] for point in block[path]["at"]] == [0.0] * 5
    assert block["deletion"]["gain"]["value"] == block["insertion"]["gain"]["value"] == 0.0
    assert (block["swap"]["flip"]["value"], block["swap"]["flip"]["n"]) == (0.0, 3)
    assert block["noise"]["cost_after"]["value"] == block["noise"]["cost_through"]["value"] == 0.0
    assert block["inputs"]["own"]["value"] == block["inputs"]["text_only"]["value"] == pytest.approx(1 / 3)
    assert block["edit"]["flip"]["value"] == block["edit"]["steer"]["value"] == 0.0
    assert block["edit"]["flip"]["n"] == 1  # the one whose clue has the word of the answer
    assert not notes


def test_a_model_that_copies_its_clue_shows_it(monkeypatch):
    planted = Planted(monkeypatch, copying, gate=lambda words: 0.9 if words[2] == "hits" else 0.6)
    (block, notes), records = planted.block(VIDEOS)
    assert not notes
    assert block["comprehensiveness"]["mean"]["value"] == pytest.approx(0.9 - 1 / 3, abs=1e-6)
    assert block["comprehensiveness"]["random"]["value"] == pytest.approx((0.9 - 1 / 3) / 2, abs=1e-6)
    assert block["sufficiency"]["mean"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert block["deletion"]["gain"]["value"] == pytest.approx((0.9 - 1 / 3) / 4, abs=1e-6)
    assert block["insertion"]["gain"]["value"] == pytest.approx((0.9 - 1 / 3) / 4, abs=1e-6)
    assert block["swap"]["flip"]["value"] == block["swap"]["steer"]["value"] == 1.0
    assert block["swap"]["steer"]["n"] == 3
    assert (
        block["edit"]["flip"]["value"] == block["edit"]["steer"]["value"] == block["edit"]["from_right"]["value"] == 1.0
    )
    assert (block["inputs"]["own"]["value"], block["inputs"]["text_only"]["value"]) == (1.0, pytest.approx(1 / 3))
    assert block["explained"]["exact"]["of_right"]["value"] == 1.0
    assert [record["order"] for record in records] == [[0, 1]] * 3


def test_the_importance_of_a_clue_decides_the_order(monkeypatch):
    """The same model with the gates the wrong way round: what it needs goes last."""
    planted = Planted(monkeypatch, copying, gate=lambda words: 0.6 if words[2] == "hits" else 0.9)
    (block, _), records = planted.block(VIDEOS)
    assert [record["order"] for record in records] == [[1, 0]] * 3
    assert block["comprehensiveness"]["mean"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert block["sufficiency"]["mean"]["value"] == pytest.approx(0.9 - 1 / 3, abs=1e-6)
    assert block["deletion"]["gain"]["value"] < 0
    assert block["insertion"]["gain"]["value"] < 0


def last_word(question, shown, sees):
    """Reads the last clue alone: noise in a later slot takes over."""
    return copying(question, shown[-1:], sees)


def test_noise_hurts_behind_the_filter_and_through_one_that_drops_nothing(monkeypatch):
    (block, _), records = Planted(monkeypatch, last_word).block([[asking(0, "red")], [asking(1, "green")]])
    assert [record["noise"]["words"][1] for record in records] == ["green", "red"]
    assert [record["noise"]["kept"] for record in records] == [True, True]
    assert not any(record["noise"]["replaces"] for record in records)
    noise = {name: estimate["value"] for name, estimate in block["noise"].items()}
    assert noise == {
        "own": 1.0, "after": 0.0, "through": 0.0, "cost_after": 1.0, "cost_through": 1.0, "saved": 0.0, "kept": 1.0,
        "own_kept": 1.0,
    }  # fmt: skip


def test_a_filter_that_drops_noise_saves_the_answer(monkeypatch):
    """It never shows a clue about cyan: the second question's own one neither, so that it is answered at even odds."""
    planted = Planted(monkeypatch, last_word, gate=lambda words: 0.1 if words[1] == "cyan" else 0.9)
    (block, _), records = planted.block([[asking(0, "red")], [asking(1, "cyan")]])
    assert [record["noise"]["words"][1] for record in records] == ["cyan", "red"]
    assert [record["noise"]["kept"] for record in records] == [False, True]
    assert [(record["noise"]["after"], record["noise"]["through"]) for record in records] == [(2, 0), (0, 0)]
    noise = {name: estimate["value"] for name, estimate in block["noise"].items()}
    assert noise == {
        "own": 0.5, "after": 0.0, "through": 0.5, "cost_after": 0.5, "cost_through": 0.0, "saved": 0.5, "kept": 0.5,
        "own_kept": 0.5,
    }  # fmt: skip
    assert block["comprehensiveness"]["mean"]["n"] == 1  # the other question shows no clue


def watching(question, shown, sees):
    """Sees the first option in the video and bypasses the clues."""
    return (
        [0.8, *[0.2 / (len(question.options) - 1)] * (len(question.options) - 1)]
        if sees
        else copying(question, shown, sees)
    )


def test_inputs_taken_away_tell_a_bypass(monkeypatch):
    (block, _), records = Planted(monkeypatch, watching, reasoner="clue_chain").block(VIDEOS)
    assert block["swap"]["flip"]["value"] == 0.0
    assert block["inputs"]["own"]["value"] == block["inputs"]["frames_only"]["value"] == pytest.approx(1 / 3)
    assert block["inputs"]["clue_only"]["value"] == 1.0
    assert [record["text_only"] for record in records] == [0, 0, 0]  # even odds: the first
