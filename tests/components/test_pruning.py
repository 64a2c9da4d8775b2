"""Visual tokens that are left for the answer: which, how many, and that the answer rests on nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cluenet.config.pruning import FASTV_LAYER, pruning_of
from cluenet.diagnose.questions import _asking
from cluenet.errors import CluenetError
from cluenet.evaluate.evaluator import evaluate
from cluenet.folders import read_manifest
from cluenet.model import chains, pruning
from cluenet.model.batch import Batch
from cluenet.model.checkpoint import load_model
from cluenet.model.engine import answering
from cluenet.model.engine.clips import watch
from cluenet.model.engine.engine import Engine, Question
from cluenet.model.generate import Writing
from cluenet.model.pipeline import ClueNet
from cluenet.model.shared_prompt import prefix_batch
from cluenet.prepared import PreparedSet
from cluenet.records import Answer
from cluenet.testing.backbone_pair import BackbonePair
from helpers.checkpoints import FAMILIES, checkpoint
from helpers.evaluation import Silent, model_folder, prepared_test, recipe
from helpers.models import clip, example, tiny_model

MODES, WAYS = ("two_pass", "kv_select"), ("clues", "attention", "random", "uniform")
KINDS = {
    "letters": {"reasoner": "clue_chain"},
    "likelihood": {"reasoner": {"name": "clue_chain", "scoring": "likelihood"}},
    "chains": {"reasoner": {"name": "clue_chain", "generate_chain": True}},
    "direct": {"reasoner": "direct", "clue_extractor": "none", "clue_filter": "keep_all"},
    "labels": {"reasoner": "clue_chain", "clue_extractor": "oracle", "clue_filter": "keep_all"},
}  # fmt: skip
CLIPS = {"a": clip(0), "b": clip(1, frames=7), "c": clip(2, height=48)}
OPEN = {"options": (), "answer": None, "clues": None}


@pytest.fixture(autouse=True)
def short_chains(monkeypatch) -> None:
    for module in (chains, answering):
        monkeypatch.setattr(module, "MOST_CHAIN_TOKENS", 6)


def how(name: str, **settings):
    return pruning_of({"name": name, **settings})


def lively(model: ClueNet) -> ClueNet:
    """An untrained model answers nearly the same to everything: make it differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.0)
    return model.eval()


def model_of(kind: str = "letters") -> ClueNet:
    return lively(tiny_model(**KINDS[kind]))


def batch_of(model: ClueNet, questions: int = 3) -> Batch:
    """The same questions about every clip, and an open one."""
    asked = [example(number) for number in range(questions)] + [example(9, **OPEN)]
    clips = [(frames, [replace(one, id=f"{key}{one.id}") for one in asked]) for key, frames in CLIPS.items()]
    return model.collate(clips, seed=0, shuffle_options=False)


def kept_of(model: ClueNet, batch: Batch) -> list[Tensor]:
    look = model.look(batch)
    with model.inference():
        return pruning.kept_tokens(model, batch, look.prefix, model.own_evidence(batch, look), model.pruning)


def scores(answers: list[Answer]) -> Tensor:
    return torch.tensor([value for answer in answers for value in answer.option_logprobs])


# --------------------------------------------------------------------------------------- against Hugging Face


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_pass_is_hugging_faces_pass_over_the_kept_tokens(family: str, monkeypatch) -> None:
    """Embeddings and DeepStack rows of the kept tokens at their positions, no frame's marks where nothing of it is kept."""
    folder = checkpoint(family)
    both = BackbonePair.of(folder, "cpu")
    model = tiny_model(folder=folder, reasoner="clue_chain").eval()
    one, questions = both.clips[0], [example(0), example(1)]
    batch = model.collate([(one.frames, questions)], seed=0, shuffle_options=False)
    read, kept = model.own_evidence(batch, model.look(batch)), [some(one.grid, seed) for seed in (0, 1)]
    whole = scores(model.predict(batch))
    monkeypatch.setattr(pruning, "kept_tokens", lambda *args: kept)
    found = model.prune(how("two_pass")).predict(batch)
    for question, answer, kept_N, clues_KWD in zip(questions, found, kept, read.embeds_BQKWD[0], strict=True):
        alone = model.collate([(one.frames, [question])], seed=0, shuffle_options=False)
        prompt = prefix_batch(both.vlm, [one.frames], [one.grid], kept=[kept_N])
        with torch.no_grad():
            logits_LV = both.pruned_logits(one, prompt, model.answer_inputs(alone, clues_KWD[None, None]))
        letters = logits_LV[-1, model.letter_ids[: len(question.options)]].log_softmax(-1)
        assert answer.option_logprobs == pytest.approx(letters.tolist(), abs=1e-4)
    assert (scores(found) - whole).abs().max() > 1e-3  # it matters what is seen


def some(grid, seed: int) -> Tensor:
    """Half of the tokens, none of the first block."""
    kept_N = torch.rand(grid.tokens, generator=torch.Generator().manual_seed(seed)) < 0.5
    kept_N[: grid.per_block] = False
    return kept_N


def test_attention_is_hugging_faces_of_the_last_token() -> None:
    model = model_of("direct").prune(how("two_pass", by="attention", keep=0.3))
    vlm, question = model.vlm, example(0)
    batch = model.collate([(CLIPS["a"], [question])], seed=0, shuffle_options=False)
    (kept_N,) = kept_of(model, batch)
    vlm.text.set_attn_implementation("eager")
    prompt, rows = vlm._prompt(batch.prefix), batch.answer.packed
    text = torch.nn.functional.embedding(rows.ids_BL, vlm.embeddings_VD)
    whole = torch.cat([prompt["inputs_embeds"], text], dim=1)
    positions = torch.cat([prompt["position_ids"], rows.positions_BL.expand(3, 1, -1)], dim=-1)
    mask = torch.ones(whole.shape[:2], dtype=torch.long)
    with torch.no_grad():
        maps = vlm.text(inputs_embeds=whole, attention_mask=mask, position_ids=positions, output_attentions=True)
    row = maps.attentions[FASTV_LAYER - 1][0].mean(0)[-1]
    seen_N = row[batch.prefix.visual_index_BN[0]]
    assert kept_N.nonzero()[:, 0].tolist() == sorted(seen_N.topk(int(kept_N.sum())).indices.tolist())


# ---------------------------------------------------------------------------------------------- what is equal


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_keeping_all_changes_nothing(kind: str, mode: str, by: str) -> None:
    if (kind, by) == ("direct", "clues"):
        pytest.skip("reads no clues")
    model = model_of(kind)
    wanted = model.predict_rows(batch_of(model), ("own", "none"), writing=Writing(most_tokens=4))
    found = model.prune(how(mode, by=by, keep=1.0)).predict_rows(
        batch_of(model), ("own", "none"), writing=Writing(most_tokens=4)
    )
    for row, answers in wanted.items():
        assert torch.allclose(scores(found[row]), scores(answers), atol=1e-4)
        assert [(a.example_id, a.prediction, a.chain, a.reply) for a in found[row]] == [
            (a.example_id, a.prediction, a.chain, a.reply) for a in answers
        ]


@pytest.mark.parametrize("by", WAYS)
def test_selected_rows_are_a_mask_over_the_whole_cache(by: str) -> None:
    """Every question alone, on the clip's whole cache, of which it may not look at the columns that are dropped."""
    model = model_of()
    batch, settings = batch_of(model), how("kv_select", by=by, keep=0.25)
    kept = kept_of(model.prune(settings), batch)
    found = model.predict(batch)
    assert (scores(found) - scores(model.prune(how("none")).predict(batch))).abs().max() > 1e-3
    look = model.look(batch)
    read = model.own_evidence(batch, look)
    places = [(b, q) for b, row in enumerate(batch.clips) for q in range(len(row))]
    for (b, q), kept_N, answer in zip(places, kept, found, strict=True):
        if not answer.option_logprobs:
            continue
        alone = model.collate([(list(CLIPS.values())[b], [batch.clips[b][q]])], seed=0, shuffle_options=False)
        one = look.prefix.only(b)
        valid_BP = torch.zeros_like(one.valid_BP)
        valid_BP[0, model.vlm.kept_columns(batch.grids[b], kept_N)] = True
        hidden = model.logprobs_given(alone, replace(one, valid_BP=valid_BP), read.embeds_BQKWD[b, q][None, None])
        assert answer.option_logprobs == pytest.approx(hidden[0, 0, : len(answer.option_logprobs)].tolist(), abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_dropped_is_in_the_answer_with_a_selected_cache_only(mode: str, monkeypatch) -> None:
    """Dropped tokens' inputs are changed, the kept set is held: a second pass never meets them, cached rows have read them."""
    model = model_of("direct").prune(how(mode, by="uniform", keep=0.25))
    batch = batch_of(model)
    before, kept = scores(model.predict(batch)), kept_of(model, batch)
    seen_N, right = torch.stack(kept[: len(batch.clips[0])]).any(0), model.vlm.visual_inputs

    def changed(prompts):
        embeds, *deepstack = right(prompts)
        embeds = embeds.clone()
        embeds[: len(seen_N)][~seen_N] += 5.0  # of the first clip, what none of its questions keeps
        return [embeds, *deepstack]

    monkeypatch.setattr(model.vlm, "visual_inputs", changed)
    monkeypatch.setattr(pruning, "kept_tokens", lambda *args: kept)
    after = scores(model.predict(batch))
    assert torch.allclose(after, before, atol=1e-5) == (mode == "two_pass")


# ----------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("keep", [0.001, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("by", WAYS)
def test_so_many_are_kept_and_no_more(by: str, keep: float) -> None:
    model = model_of().prune(how("kv_select", by=by, keep=keep))
    batch = batch_of(model)
    grids = [grid for grid, row in zip(batch.grids, batch.clips) for _ in row]
    wanted = [max(1, int(keep * grid.tokens + 0.5)) for grid in grids]
    assert [int(kept_N.sum()) for kept_N in kept_of(model, batch)] == wanted
    assert [model.tokens_seen(grid) for grid in grids] == wanted


def test_clues_keep_what_the_kept_ones_look_at() -> None:
    """Against plain Python on the clues that an answer comes with; `top_k` drops a clue of every question."""
    model = lively(tiny_model(reasoner="clue_chain", clue_filter={"name": "top_k", "k": 1}))
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)  # its slots say something
    batch = batch_of(model)
    answers = model.predict(batch)
    assert any(not clue.kept for answer in answers for clue in answer.clues)
    kept = kept_of(model.prune(how("two_pass", keep=0.2)), batch)
    for answer, kept_N in zip(answers, kept, strict=True):
        looks = [clue.attention_N for clue in answer.clues if clue.kept]
        if not looks:
            continue
        worth = [sum(values) for values in zip(*looks)]
        best = sorted(range(len(worth)), key=lambda n: -worth[n])[: int(kept_N.sum())]
        assert kept_N.nonzero()[:, 0].tolist() == sorted(best)


def test_without_a_clue_evenly_spread_tokens_are_kept() -> None:
    model = model_of("labels")
    one = example(0, clues=())
    batch = model.collate([(CLIPS["a"], [one])], seed=0, shuffle_options=False)
    by_clues, evenly = (kept_of(model.prune(how("two_pass", by=by)), batch)[0] for by in ("clues", "uniform"))
    assert torch.equal(by_clues, evenly)


def test_boxes_that_are_smaller_than_what_is_kept_are_filled_up() -> None:
    model = model_of("labels").prune(how("two_pass", keep=0.5))
    batch = model.collate([(CLIPS["a"], [example(0)])], seed=0, shuffle_options=False)
    seen_N = batch.labels.attention_BQKN[0, 0].sum(0) > 0
    (kept_N,) = kept_of(model, batch)
    assert 0 < int(seen_N.sum()) < int(kept_N.sum())
    assert kept_N[seen_N].all()


def test_one_token_of_every_stretch() -> None:
    for tokens, count in ((8, 3), (128, 13), (7, 7), (5, 1)):
        kept = pruning.spread(tokens, count, torch.Generator().manual_seed(count)).nonzero()[:, 0].tolist()
        edges = [tokens * part // count for part in range(count + 1)]
        assert [sum(lo <= n < hi for n in kept) for lo, hi in itertools.pairwise(edges)] == [1] * count


@pytest.mark.parametrize("by", ["random", "uniform"])
def test_chance_comes_from_the_question_and_the_seed_alone(by: str) -> None:
    model = model_of("direct").prune(how("two_pass", by=by, keep=0.3))
    together = kept_of(model, batch_of(model))
    asked = [(key, one) for key, row in zip(CLIPS, batch_of(model).clips) for one in row]
    alone = [
        kept_of(model, model.collate([(CLIPS[key], [one])], seed=5, shuffle_options=False))[0] for key, one in asked
    ]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))
    assert not torch.equal(together[0], together[1])  # of one clip
    again = kept_of(model.prune(how("two_pass", by=by, keep=0.3, seed=1)), batch_of(model))
    assert any(not torch.equal(one, other) for one, other in zip(together, again, strict=True))


def test_random_tokens_are_uniform() -> None:
    settings = how("two_pass", by="random", keep=0.25)
    counts = sum(pruning._kept(torch.zeros(16), seed, settings).long() for seed in range(2000))
    assert counts.sum() == 4 * 2000
    assert (counts - 500).abs().max() < 5 * (2000 * 0.25 * 0.75) ** 0.5


# --------------------------------------------------------------------------------------------- the first pass


@pytest.mark.parametrize(
    ("kind", "settings", "layers"),
    [
        ("letters", {}, 2),  # up to the clue layer of 3
        ("letters", {"by": "attention", "layer": 3}, 3),
        ("direct", {"by": "attention", "layer": 1}, 1),
        ("direct", {"by": "random"}, 0),
    ],
)
def test_before_a_second_pass_the_decoder_runs_as_far_as_is_read(kind: str, settings: dict, layers: int) -> None:
    model = model_of(kind).prune(how("two_pass", **settings))
    (one,) = watch(model, [CLIPS["a"]], device="cpu")
    assert len(one.prefix.keys_values) == layers


def test_a_filter_that_knows_the_answer_asks_the_reasoner_about_the_whole_video() -> None:
    model = lively(tiny_model(reasoner="clue_chain", clue_filter="oracle_utility")).prune(how("two_pass"))
    batch = model.collate([(CLIPS["a"], [example(0)])], seed=0, shuffle_options=False)
    assert len(model.predict(batch)[0].option_logprobs) == 3


# ------------------------------------------------------------------------------------------------- the engine


@pytest.mark.parametrize("by", ["clues", "attention", "random"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["letters", "chains"])
def test_the_engine_answers_as_every_question_alone(kind: str, mode: str, by: str) -> None:
    model = model_of(kind).prune(how(mode, by=by))
    questions = [
        Question(key, example(n, id=f"{key}{n}", **(OPEN if n == 3 else {})), CLIPS[key], most_tokens=4, utilities=n == 0)
        for n in range(4) for key in CLIPS
    ]  # fmt: skip
    with Engine(model) as engine:
        found = engine.answer(questions)
    for question, one in zip(questions, found, strict=True):
        batch = model.collate([(question.frames, [question.example])], seed=0, shuffle_options=False)
        wanted = model.predict_rows(batch, ("own",), writing=Writing(most_tokens=4))["own"][0]
        assert (one.answer.prediction, one.answer.chain) == (wanted.prediction, wanted.chain)
        assert one.answer.option_logprobs == pytest.approx(wanted.option_logprobs, abs=1e-4)
        assert (one.utilities is not None) == question.utilities


def test_a_kept_clip_is_of_the_pruning_that_it_was_watched_for() -> None:
    model, question = model_of(), Question("a", example(0), CLIPS["a"])
    batch = model.collate([(CLIPS["a"], [question.example])], seed=0, shuffle_options=False)
    with Engine(model) as engine:
        for settings in (how("none"), how("two_pass"), how("kv_select", keep=0.5), how("two_pass")):
            model.prune(settings)
            assert engine.keeps("a") == (engine.clips.stats.entries == 3)
            (found,) = engine.answer([question])
            assert found.answer.option_logprobs == pytest.approx(model.predict(batch)[0].option_logprobs, abs=1e-4)
        assert (engine.clips.stats.hits, engine.clips.stats.entries) == (1, 3)


def test_a_watched_clip_counts_what_a_second_pass_needs() -> None:
    model = model_of()
    whole, twice = (
        watch(model.prune(how(name)), list(CLIPS.values()), device="cpu")[0] for name in ("none", "two_pass")
    )
    inputs = twice.prefix.visual_inputs_SBMD
    assert inputs.shape == (1, 1, twice.grid.tokens, model.vlm.width)
    layer = sum(part.nbytes for part in whole.prefix.keys_values[0])
    assert twice.bytes == whole.bytes - layer + inputs.nbytes


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ({"reasoner": "evidence"}, {}, r"pruning: is two_pass.*'evidence' answers without the video.*clue_chain"),
        (KINDS["direct"], {}, r"pruning\.by: is clues.*reads no clues.*attention, random or uniform"),
        ({"reasoner": "clue_chain"}, {"by": "attention", "layer": 4}, r"pruning\.layer: is 4.*3 decoder layers"),
    ],
)
def test_a_model_that_cannot_be_pruned_so_says_why(section: dict, settings: dict, message: str) -> None:
    with pytest.raises(CluenetError, match=message):
        tiny_model(**section).prune(how("two_pass", **settings))


# --------------------------------------------------------------------------------------------------- evaluation


def test_results_say_how_many_tokens_were_seen(tmp_path) -> None:
    settings = {"evaluate": {"pruning": {"name": "two_pass", "keep": 0.2}, "shuffles": 2}}
    pruned = recipe(**settings, model={**recipe().to_dict()["model"], "reasoner": "clue_chain"})
    folder = model_folder(tmp_path / "model", recipe=pruned, reasoner="clue_chain")
    prepared = prepared_test(tmp_path / "set", recipe=pruned)
    found = evaluate(
        pruned, model_folder=folder, prepared=[prepared], out=tmp_path / "out", progress=Silent, local=True
    )
    (results,) = found.values()
    model = load_model(folder)
    batch = model.collate([(PreparedSet(prepared).clip(key), PreparedSet(prepared).examples_of(key)) for key in
                           PreparedSet(prepared).clip_keys], seed=0, shuffle_options=False)  # fmt: skip
    counts = [max(1, int(0.2 * grid.tokens + 0.5)) for grid, row in zip(batch.grids, batch.clips) for _ in row]
    assert results["tokens"]["seen"] == pytest.approx(sum(counts) / len(counts))
    assert results["tokens"]["visual"] > results["tokens"]["seen"]
    (manifest,) = [read_manifest(one) for one in (tmp_path / "out").iterdir()]
    assert manifest["pruning"] == {"name": "two_pass", "keep": 0.2, "by": "clues", "layer": None, "seed": 0}
    assert _asking(manifest).pruning == {"name": "none"}  # diagnostics are of the whole video
