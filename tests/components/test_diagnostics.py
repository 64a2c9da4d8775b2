"""Diagnostics on real tiny models against plain Python, and a planted filter whose worth is known."""

from __future__ import annotations

import html
import itertools
import json
import math

import pytest
import torch

from cluenet import fingerprint
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.results import summarise
from cluenet.evaluate.samples import View, sample_of
from cluenet.metrics import biases, filtering
from cluenet.model.clues import ClueStates
from cluenet.model.diagnostics import KS, diagnose, energy, named, paired, top_ids
from cluenet.model.interventions import intervene
from cluenet.model.utilities import exact_utilities
from cluenet.plugins import load_components
from cluenet.records import Box, Clue, Example, VideoRef
from cluenet.registry import register
from cluenet.report.build import build_report
from helpers.evaluation import Silent, model_folder, prepared_test, recipe
from helpers.models import clip, example, tiny_model

load_components()
COLOURS = ("red", "green", "cyan")
USEFUL = {"utility": "leave_one_out", "delta": 0.02}
BOX = Box(0.1, 0.0, 0.0, 0.34, 0.5)


def batch_of(model, examples):
    return model.collate([(clip(i), list(group)) for i, group in enumerate(examples)], seed=0, shuffle_options=False)


def talkative(**section):
    """An untrained model whose slots say something."""
    model = tiny_model(**section)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    return model


def records_of(model, batch, **changes):
    return diagnose(model, batch, model.look(batch), **{**USEFUL, **changes})


# ----------------------------------------------------------------------------------------------- reading layers


def test_layers_are_read_in_one_pass_as_one_by_one():
    model = tiny_model()
    batch = model.collate([(clip(0), [example(0)]), (clip(1, frames=8), [example(1)])], seed=0, shuffle_options=False)
    visible = batch.prefix.visual_mask_BN
    with torch.no_grad():
        states = model.vlm.read_layers(batch.prefix, lambda states_BND: states_BND)
        for layer, found in enumerate(states, start=1):
            alone = model.vlm.prefix(batch.prefix, layer=layer, whole=True).visual_BND
            torch.testing.assert_close(found[visible], model.vlm.text.norm(alone)[visible])
    assert len(states) == model.vlm.layers
    assert not torch.allclose(states[0][visible], states[-1][visible])


def test_top_words_of_the_lens_against_sorting():
    model, states = tiny_model(), torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, weights = top_ids(model.vlm, states).tolist(), model.vlm.embeddings_VD.tolist()
    for b, n in itertools.product(range(2), range(3)):
        logits = [sum(x * w for x, w in zip(states[b, n].tolist(), row)) for row in weights]
        assert found[b][n] == sorted(range(len(logits)), key=lambda i: -logits[i])[: max(KS)]


def test_shares_of_tokens_that_have_the_word_against_loops():
    hits = torch.rand(2, 7, 5, generator=torch.Generator().manual_seed(0)) < 0.2
    region = torch.tensor([1, 0, 0, 1, 1, 0, 0]).bool()
    found = named(hits, region)
    for name, where in (("inside", True), ("outside", False)):
        tokens = [n for n in range(7) if bool(region[n]) is where]
        for place, k in enumerate(KS):
            plain = [sum(any(row[n][:k]) for n in tokens) / len(tokens) for row in hits.tolist()]
            assert found[name][place] == pytest.approx(plain)
    assert named(hits, torch.ones(7).bool())["outside"] is None


def test_words_of_labelled_clues_at_every_layer_against_loops():
    """The region of `example`'s box are the tokens (row 0, columns 0 and 1) of block 0, one of them partly."""
    model = tiny_model()
    batch = batch_of(model, [[example(0, clues=(Clue("red and .", 0.0, 0.5, (BOX,)), *example(0).clues))]])
    lens, ids = records_of(model, batch)[0]["lens"], model.vlm.word_id
    assert [(word["role"], word["word"]) for word in lens["words"]] == [
        (None, "red"),
        ("who", "red"),
        ("what", "hits"),
        ("whom", "blue"),
    ]  # fmt: skip (“and” has no token of its own)
    with torch.no_grad():
        logits = torch.stack(model.vlm.read_layers(batch.prefix, model.vlm.head))[:, 0].tolist()
    for word, (place, k) in itertools.product(lens["words"], enumerate(KS)):
        has = [[ids(word["word"]) in sorted(range(len(t)), key=lambda i: -t[i])[:k] for t in layer] for layer in logits]
        assert word["tokens"] == 2
        assert word["inside"][place] == [sum(row[:2]) / 2 for row in has]
        assert word["outside"][place] == pytest.approx([sum(row[2:]) / len(row[2:]) for row in has])
    assert lens["vocabulary"] == len(logits[0][0])


def test_without_boxes_the_video_is_not_run_again(monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(model.vlm, "read_layers", None)
    (record,) = records_of(model, batch_of(model, [[example(0, clues=(Clue("red hits blue"),))]]))
    assert record["lens"]["words"] == []


# --------------------------------------------------------------------------------------- attention and closeness


def test_energy_against_a_sum():
    attention, region = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([True, False, True, False])
    assert energy(attention, region) == pytest.approx({"share": 0.4, "chance": 0.5})
    assert energy(attention, torch.zeros(4).bool()) is None
    assert energy(torch.zeros(4), region) is None


def test_stated_and_labelled_clues_are_paired_as_trying_every_order_would():
    rng = torch.Generator().manual_seed(0)
    for _ in range(30):
        count, other = torch.randint(1, 4, (2,), generator=rng).tolist()
        stated, labelled = (torch.randint(0, 3, (n, 4), generator=rng).tolist() for n in (count, other))
        short, long = min(count, other), max(count, other)
        best = 0
        for order in itertools.permutations(range(long), short):
            pairs = [(i, j) if count <= other else (j, i) for i, j in enumerate(order)]
            best = max(best, sum(a == b for i, j in pairs for a, b in zip(stated[i], labelled[j])))
        found = paired(stated, labelled)
        assert len({i for i, _ in found}) == len({j for _, j in found}) == short
        assert sum(a == b for i, j in found for a, b in zip(stated[i], labelled[j])) == best
    assert paired([[1, 2], [3, 4]], [[9, 9], [8, 8]]) == [(0, 0), (1, 1)]  # nothing alike: in order
    assert paired([[1, 2], [3, 4]], [[3, 4], [1, 2]]) == [(0, 1), (1, 0)]
    assert paired([], [[1]]) == paired([[1]], []) == []


def test_closeness_to_the_options_against_loops():
    model = talkative(clue_filter="keep_all")
    batch = batch_of(model, [[example(0, options=("red", "blue square"), answer=0)]])
    own = model.own_evidence(batch, model.look(batch))
    silent = (model.collator.vocabulary.none, model.collator.vocabulary.absent)
    words = [
        i for k in range(2) if own.keep_BQK[0, 0, k] for i in own.ids_BQKW[0, 0, k, 1:].tolist() if i not in silent
    ]
    rows = model.vlm.embeddings_VD.tolist()

    def mean(ids):
        return [sum(column) / len(ids) for column in zip(*(rows[i] for i in ids))]

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    options = [model.vlm.ids(" red"), model.vlm.ids(" blue square")]
    assert [len(ids) for ids in options] == [1, 2]
    plain = [cosine(mean(words), mean(ids)) for ids in options]
    assert records_of(model, batch)[0]["proximity"] == pytest.approx(plain, abs=1e-5)


# ----------------------------------------------------------------------------------------------- what clues are worth


@pytest.mark.parametrize("utility", ["leave_one_out", "mean"])
def test_utilities_are_the_exact_ones_of_the_stated_clues(utility):
    model = talkative(clue_filter={"name": "adaptive", "threshold": "conformal", "alpha": 0.2})
    batch = batch_of(model, [[example(0), example(1)], [example(2)]])
    look = model.look(batch)
    own = model.own_evidence(batch, look)
    with model.inference():
        exact = exact_utilities(model, batch, look.prefix, own.ids_BQKW, own.present_BQK, kind=utility)
    records = [record["filter"] for record in records_of(model, batch, utility=utility, delta=0.0)]
    answers = model.predict_rows(batch, ("stated",))["stated"]
    for (b, q), record, answer in zip(((0, 0), (0, 1), (1, 0)), records, answers, strict=True):
        wanted = exact[b, q][own.present_BQK[b, q]].tolist()
        assert record["utility"] == pytest.approx(wanted, abs=1e-6)
        assert record["useful"] == [value > 0 for value in record["utility"]]
        assert (record["unfiltered"], record["kind"], record["promised"]) == (answer.prediction, utility, 0.8)


def test_a_limit_on_clues_promises_nothing():
    limited = {"name": "adaptive", "threshold": "conformal", "max_clues": 1}
    assert tiny_model(clue_filter=limited).filter.promised is None
    assert tiny_model(clue_filter="keep_all").filter.promised is None


@pytest.mark.parametrize("extractor", list(register.clue_extractor))
@pytest.mark.parametrize("clue_filter", ["adaptive", "keep_all"])
def test_every_extractor_is_diagnosed(extractor, clue_filter):
    model = tiny_model(clue_extractor=extractor, clue_filter=clue_filter)
    batch = batch_of(model, [[example(0), example(1, options=(), answer="red")], [example(2, answer=None)]])
    records = records_of(model, batch)
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert records == records_of(model, batch)
    assert all((record["filter"] is not None) is model.extracts for record in records)
    assert records[1]["proximity"] is None
    if model.extracts:
        assert records[2]["filter"]["utility"] is records[2]["filter"]["useful"] is None
        assert isinstance(records[1]["filter"]["unfiltered"], str)


# ------------------------------------------------------------------------------------------------ a planted filter


def asking(video: int, who: str) -> Example:
    """`who` hits blue in that video, which answers the question, and blue moves, which does not help."""
    clues = (
        Clue(f"{who} hits blue", boxes=(BOX,), concepts={"who": who, "what": "hits", "whom": "blue"}),
        Clue("blue move", concepts={"who": "blue", "what": "move"}),
    )
    return Example(
        id=f"v{video}/{who}", dataset="fake", video=VideoRef(f"v{video}.mp4"), question="which one does it ?",
        options=COLOURS, answer=COLOURS.index(who), type="who", clues=clues,
    )  # fmt: skip


class Planted:
    """A model that states the labelled clues, looking at their boxes, and answers as the *last* shown clue about hitting says
    unless a clue about moving stands behind it; even odds else. `gate(words)`: its filter's."""

    def __init__(self, monkeypatch, gate):
        self.model = tiny_model(clue_extractor={"name": "latent_slots", "slots": 3, "heads": 2})
        monkeypatch.setattr(self.model, "reason", lambda batch, prefix, clues: clues.flatten(1, 3))
        monkeypatch.setattr(self.model, "option_logprobs", self.answer)
        monkeypatch.setattr(self.model.filter, "gate_logits", lambda clues, stem, sure: self.logits(clues, gate))

    def said(self, clues_BQKWD):
        bare = clues_BQKWD - self.model.slot_embedding
        ids = torch.cdist(bare.flatten(0, -2), self.model.vlm.embeddings_VD).argmin(-1).view(clues_BQKWD.shape[:-1])
        decode = self.model.collator.vocabulary.decode
        return [[[decode(slot) for slot in question] for question in row] for row in ids.tolist()]

    def logits(self, clues_BQKWD, gate):
        return torch.tensor([[[gate(words) for words in q] for q in row] for row in self.said(clues_BQKWD)]).logit()

    def answer(self, batch, hidden):
        shape = (*batch.labels.words_BQKW.shape, -1)
        return torch.tensor([[self.odds(question) for question in row] for row in self.said(hidden.view(shape))]).log()

    def odds(self, words_K):
        shown = [words for words in words_K if words[1] != "none"]
        if not shown or shown[-1][2] != "hits":
            return [1 / 3] * 3
        return [0.9 if option == shown[-1][1] else 0.05 for option in COLOURS]

    def results(self, examples):
        batch = batch_of(self.model, examples)
        labels = batch.labels
        states = ClueStates(words_BQKWD=None, attention_BQKN=labels.attention_BQKN, ids_BQKW=labels.words_BQKW)
        look = self.model.look(batch)._replace(states=states)
        answers = self.model.predict_rows(batch, ("own",), look=look)["own"]
        records = zip(
            intervene(self.model, batch, look), diagnose(self.model, batch, look, utility="add_one", delta=0.02)
        )
        samples = []
        for one, answer, grid, (changed, diagnosed) in zip(batch.examples, answers, batch.grids, records, strict=True):
            view = View((grid.blocks, grid.rows, grid.cols), grid.seconds, seen=0)
            encode, decode = self.model.collator.vocabulary.encode, self.model.collator.vocabulary.decode
            line = sample_of(
                one,
                one.id,
                range(len(one.options)),
                {"own": answer},
                [decode(encode(clue, grid)) for clue in one.clues],
                view,
            )
            samples.append({**line, "faithfulness": changed, "diagnostics": diagnosed})
        return summarise(samples, [], extracts=True, notes={}, resamples=100), samples


VIDEOS = [[asking(0, "green")], [asking(1, "green")], [asking(2, "cyan")]]


def test_a_filter_that_drops_exactly_the_useless_clues(monkeypatch):
    results, samples = Planted(monkeypatch, lambda words: 0.9 if words[2] == "hits" else 0.1).results(VIDEOS)
    block = results["filter"]
    assert [sample["diagnostics"]["filter"]["useful"] for sample in samples] == [[True, False]] * 3
    assert (block["useful"]["value"], block["useful"]["n"]) == (0.5, 6)
    for name in ("useful_kept", "useful_kept_by_clip", "useless_dropped", "auroc"):
        assert block[name]["value"] == 1.0, name
    assert (block["own"]["value"], block["unfiltered"]["value"], block["gained"]["value"]) == (1.0, 0.0, 1.0)
    assert "filter" not in results["notes"]


def test_a_filter_that_is_wrong_about_every_clue(monkeypatch):
    block = Planted(monkeypatch, lambda words: 0.1 if words[2] == "hits" else 0.9).results(VIDEOS)[0]["filter"]
    for name in ("useful_kept", "useful_kept_by_clip", "useless_dropped", "auroc"):
        assert block[name]["value"] == 0.0, name


def test_a_foreign_clue_with_and_without_the_filter(monkeypatch):
    """The clue “green hits blue” of another video is dropped by a filter that only keeps cyan: the third question gains."""
    planted = Planted(monkeypatch, lambda words: 0.9 if words[1] == "cyan" else 0.1)
    results, samples = planted.results(VIDEOS)
    noises = [sample["faithfulness"]["noise"] for sample in samples]
    assert [noise["words"][1] for noise in noises] == ["cyan", "cyan", "green"]
    assert [noise["unfiltered"] for noise in noises] == [2, 2, 1]  # what the foreign clue says: it stands last
    assert [noise["through"] for noise in noises] == [2, 2, 2]
    noise = {name: one["value"] for name, one in results["filter"]["noise"].items()}
    assert noise == pytest.approx({"own": 1 / 3, "unfiltered": 0.0, "gained": 1 / 3}, abs=1e-6)


def test_attention_on_the_labelled_boxes_has_all_of_its_energy_there(monkeypatch):
    results, samples = Planted(monkeypatch, lambda words: 0.9).results(VIDEOS)
    assert [sample["diagnostics"]["energy"][1] for sample in samples] == [None] * 3  # its clue has no box
    assert results["biases"]["perception"]["energy_in_box"]["all"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert results["biases"]["perception"]["pointing"]["all"]["value"] == 1.0


# ------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(("faithfulness", "same"), [(True, False), (False, True)])
def test_what_makes_a_clue_useful_is_part_of_the_address_of_faithfulness_alone(faithfulness, same):
    def address(delta):
        stage = {"steps": 1, "filter_loss": {"delta": delta}}
        return fingerprint.evaluation(
            recipe(evaluate={"faithfulness": faithfulness}, train={"stage2": stage}), "model", "test"
        )

    assert (address(0.1) == address(0.2)) is same


# ------------------------------------------------------------------------------------------- from models to pages


def test_both_blocks_follow_from_samples_jsonl_and_stand_in_the_report(tmp_path):
    settings = recipe(evaluate={"questions_per_batch": 8, "bootstrap": 100, "faithfulness": True, "rows": ["own"]})
    model = model_folder(tmp_path / "model", recipe=settings, clue_extractor={"name": "logit_lens", "slots": 2})
    test = prepared_test(tmp_path / "0123456789abcdef", recipe=settings, clips=3)
    results = evaluate(
        settings, model_folder=model, prepared=[test], out=tmp_path / "evaluation", progress=Silent, local=True
    )["fake-test"]
    again = summarise(read_samples(tmp_path / "evaluation/fake-test"), [], extracts=True, notes={}, resamples=100)
    assert again["biases"] == results["biases"]
    assert again["filter"] == results["filter"]
    assert set(results["biases"]) == {"perception", "cognition", "proximity"}
    page = html.unescape(build_report(tmp_path).read_text())
    lines = [*biases.headlines(results["biases"]), *filtering.headlines(results["filter"])]
    assert len(lines) > 6
    assert all(f'data-value="{found["value"]}"' in page and words in page for words, _, found, _ in lines)
    assert "decoder layer" in page
    for point in results["biases"]["cognition"]:
        assert f"layer {point['layer']}: {100 * point['rate']['value']:.1f}" in page
