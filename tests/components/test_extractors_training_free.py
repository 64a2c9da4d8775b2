"""Extractors without training: what they state, and where, against plain recomputation on a tiny backbone."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.errors import RecipeError
from cluenet.evaluate.evaluator import evaluate
from cluenet.folders import read_manifest
from cluenet.model.attention_map import attention_map
from cluenet.model.sight import Sight
from cluenet.model.vlm import Grid
from cluenet.plugins import load_components
from cluenet.registry import register
from cluenet.train.export import save_final_model
from cluenet_components.clue_extractors._words import STOP_WORDS
from cluenet_components.clue_extractors.attention import peaks
from cluenet_components.clue_extractors.logit_lens import surest
from helpers.evaluation import Silent, prepared_test, recipe
from helpers.models import base_folder, clip, example, tiny_model

TRAINING_FREE = ("attention", "logit_lens")
QUESTIONS = [example(0), example(1, question="why does it move ?")]


def model_of(name, **settings):
    return tiny_model(clue_extractor={"name": name, "slots": 2, **settings}, clue_filter="keep_all").eval()


def batch_of(model, clips=2, questions=QUESTIONS):
    return model.collate([(clip(i), questions) for i in range(clips)], seed=0, shuffle_options=False)


def sight_of(model, batch):
    layer = model.extractor.layer
    prefix = model.vlm.prefix(batch.prefix, layer=layer, whole=False)
    return Sight(model.vlm, model.collator.vocabulary, batch, prefix, layer)


def test_these_are_the_registered_ones():
    load_components()
    assert {name for name in register.clue_extractor if register.clue_extractor[name].training_free} == set(
        TRAINING_FREE
    )


# ------------------------------------------------------------------------------------------------ words


def test_content_words_name_something_and_give_their_token_again():
    vocabulary = model_of("logit_lens").collator.vocabulary
    mask = vocabulary.content_words(STOP_WORDS)
    words = {vocabulary.decode([i])[0] for i in mask.nonzero()[:, 0].tolist()}
    assert {"red", "blue", "hits", "square", "colour"} <= words
    assert not words & {"which", "it", "none", "_", "?", "<t0>", "<pad>", "(a)"}
    assert all(vocabulary.recode([vocabulary.decode([i])[0]]) == [i] for i in mask.nonzero()[:, 0].tolist())
    assert "which" in {
        vocabulary.decode([i])[0] for i in vocabulary.content_words(frozenset()).nonzero()[:, 0].tolist()
    }


def test_top_words_against_the_lens_token_by_token():
    model = model_of("logit_lens", layer=0.7)
    batch = batch_of(model)
    with torch.no_grad():
        sight = sight_of(model, batch)
        sure, words = sight.top_words(3, excluded=STOP_WORDS)
        mask = model.collator.vocabulary.content_words(STOP_WORDS)
        for b, n in itertools.product(range(2), range(0, sight.visual_BND.shape[1], 5)):
            normed = model.vlm.hf.model.language_model.norm(sight.visual_BND[b, n])
            probability = (normed @ model.vlm.embeddings_VD.T).softmax(-1).tolist()
            ranked = sorted((i for i in range(len(probability)) if mask[i]), key=lambda i: -probability[i])[:3]
            assert words[b, n].tolist() == ranked
            assert sure[b, n].tolist() == pytest.approx([probability[i] for i in ranked], rel=1e-4)


def plain_surest(sure, words, slots):
    tokens, regions, used = [], [], set()
    for token in sorted(range(len(sure)), key=lambda n: -sure[n]):
        if sure[token] > 0 and words[token] not in used and len(tokens) < slots:
            used.add(words[token])
            same = [value if word == words[token] else 0.0 for value, word in zip(sure, words)]
            tokens.append(token)
            regions.append([value / sum(same) for value in same])
    missing = slots - len(tokens)
    return tokens + [-1] * missing, regions + [[0.0] * len(sure)] * missing


@pytest.mark.parametrize("slots", [1, 3, 6])
def test_surest_words_against_plain_python(slots):
    generator = torch.Generator().manual_seed(slots)
    sure = torch.rand(12, generator=generator)
    sure[9:] = 0  # padding
    words = torch.randint(0, 4, (12,), generator=generator)
    tokens, regions = surest(sure, words, slots)
    wanted_tokens, wanted_regions = plain_surest(sure.tolist(), words.tolist(), slots)
    assert tokens.tolist() == wanted_tokens
    assert torch.allclose(regions, torch.tensor(wanted_regions), atol=1e-6)


def test_logit_lens_states_words_times_and_places_alike_for_all_questions_of_a_clip():
    model = model_of("logit_lens")
    batch = batch_of(model)
    one, same, other, _ = model.predict(batch)
    assert one.clues == same.clues
    assert one.clues != other.clues
    assert one.clues
    for clue in one.clues:
        assert clue.words[0] in ("<t0>", "<t1>")
        assert 0 <= clue.start_seconds < clue.end_seconds <= 1.0
        assert sum(clue.attention_N) == pytest.approx(1, abs=1e-5)
        first_words = torch.tensor(clue.attention_N).argmax() // 6  # 2 x 3 tokens per block
        assert clue.words[0] == f"<t{int(first_words)}>"
    assert len({clue.words[1] for clue in one.clues}) == len(one.clues)


# -------------------------------------------------------------------------------------------- attention


def test_the_attention_map_is_that_of_the_whole_sequence():
    """Against Hugging Face's own weights, without cache and prefix, prompt and question in one row."""
    model = model_of("attention", layer=1.0)
    vlm, batch = model.vlm, batch_of(model, clips=1, questions=[QUESTIONS[1]])
    rows, count = batch.extraction, int(batch.stem_index_BQ[0, 0]) + 1
    ids, positions = rows.ids_BL[:, :count], rows.positions_BL[:, :count]
    causal = torch.ones(1, count, count, dtype=torch.bool).tril()
    embeds = F.embedding(ids, vlm.embeddings_VD)
    with torch.no_grad():
        prefix = vlm.prefix(batch.prefix, layer=3, whole=False)
        visual, _ = vlm.encode(batch.prefix.pixels, batch.prefix.grid_B3)
        prompt = F.embedding(batch.prefix.ids_BP, vlm.embeddings_VD)
        prompt = prompt.masked_scatter((batch.prefix.ids_BP == vlm.placeholder)[..., None], visual)
        whole = torch.cat([prompt, embeds], dim=1)
        length = whole.shape[1]
        mask = torch.full((length, length), torch.finfo(torch.float).min).triu(1)[None, None]
        text_positions = positions[None].expand(3, -1, -1)
        vlm.text.set_attn_implementation("eager")
        reference = vlm.text(
            inputs_embeds=whole, attention_mask=mask, output_attentions=True,
            position_ids=torch.cat([batch.prefix.positions_3BP, text_positions], dim=-1),
        ).attentions  # fmt: skip
        vlm.text.set_attn_implementation("sdpa")
        for layer in (1, 2, 3):
            got = attention_map(vlm, embeds, positions, causal, prefix=prefix, layer=layer)
            assert torch.allclose(got, reference[layer - 1].mean(1)[:, -count:], atol=1e-5)
            assert torch.allclose(got.sum(-1), torch.ones(1, count), atol=1e-5)
    assert vlm.text.config._attn_implementation == "sdpa"


def test_a_question_packed_with_others_looks_as_if_it_were_alone():
    model = model_of("attention")
    batch = batch_of(model)
    with torch.no_grad():
        sight = sight_of(model, batch)
        asked = sight.attention_of_questions(layer=1)
        for q, question in enumerate(QUESTIONS):
            alone = sight.attention_of(question.question, layer=1)
            assert torch.allclose(asked[:, q], alone, atol=1e-6)
        assert not torch.allclose(asked[:, 0], asked[:, 1], atol=1e-6)


def plain_peaks(values, grid, slots, radius):
    left = {
        (t, r, c): values[(t * grid.rows + r) * grid.cols + c]
        for t in range(grid.blocks) for r in range(grid.rows) for c in range(grid.cols)
    }  # fmt: skip
    tokens = []
    for _ in range(slots):
        place = max(left, key=lambda p: left[p])
        if left[place] <= 0:
            tokens.append(-1)
            continue
        tokens.append((place[0] * grid.rows + place[1]) * grid.cols + place[2])
        for p in left:
            if p[0] == place[0] and abs(p[1] - place[1]) <= radius and abs(p[2] - place[2]) <= radius:
                left[p] = 0
    return tokens


@pytest.mark.parametrize(("slots", "radius"), [(1, 0), (4, 1), (3, 0), (12, 2)])
def test_peaks_against_plain_python(slots, radius):
    grid = Grid(3, 4, 5, (0.0, 1.0, 2.0))
    values = torch.rand(64, generator=torch.Generator().manual_seed(slots))
    values[60:] = 0  # padding of a shorter clip
    tokens, regions = peaks(values, grid, slots, radius)
    assert tokens.tolist() == plain_peaks(values.tolist(), grid, slots, radius)
    assert regions.sum(-1).tolist() == pytest.approx([float(token >= 0) for token in tokens])
    assert (regions > 0).sum(0).max() <= 1  # no token is in two regions
    for token, region in zip(tokens.tolist(), regions):
        assert token < 0 or region[token] == region.max()


def test_attention_follows_the_question_and_the_prompt_it_is_compared_with():
    model = model_of("attention")
    one, other, _, _ = model.predict(batch_of(model))
    assert [clue.attention_N for clue in one.clues] != [clue.attention_N for clue in other.clues]
    compared = model_of("attention", prompt="red is square")
    again, *_ = compared.predict(batch_of(compared))
    assert [clue.attention_N for clue in again.clues] != [clue.attention_N for clue in one.clues]


def test_attention_above_the_clue_layer_is_refused():
    section = {"clue_extractor": {"name": "attention", "layer": 0.5, "attention_layer": 0.9}}
    with pytest.raises(RecipeError, match=r"model\.clue_extractor: .*attention_layer 0\.9 is above layer 0\.5"):
        recipe(model=section)


# ------------------------------------------------------------------------------------- without training


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_clips_of_other_sizes_and_numbers_of_questions_change_nothing(name):
    model = model_of(name)
    rows = [(clip(0), QUESTIONS[:1]), (clip(1, frames=8, height=64), QUESTIONS)]
    together = model.predict(model.collate(rows, seed=0, shuffle_options=False))
    apart = [answer for row in rows for answer in model.predict(model.collate([row], seed=0, shuffle_options=False))]
    for a, b in zip(together, apart, strict=True):
        assert [clue.words for clue in a.clues] == [clue.words for clue in b.clues]
        assert a.option_logprobs == pytest.approx(b.option_logprobs, abs=1e-4)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_more_slots_than_regions_leave_the_rest_empty(name):
    model = model_of(name, slots=40)
    answers = model.predict(batch_of(model, clips=1))
    assert all(0 < len(answer.clues) < 40 for answer in answers)


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_nothing_teaches_it_and_its_words_reach_the_reasoner_as_they_are(name):
    model = model_of(name)
    assert model.slot_embedding_KWD.abs().sum() == 0
    out = model.train()(
        batch_of(model), seed=0,
        stage=Stage1(steps=1, losses=Losses(answer=1, concept=1, attention=1, span=1, presence=1)),
    )  # fmt: skip
    assert not {"concept", "attention", "span", "presence"} & set(out)
    batch = batch_of(model)
    own, text, none = ([a.option_logprobs for a in model.predict(batch, clues=row)] for row in ("own", "text", "none"))
    assert own == text
    assert own != none


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_a_reasoner_can_be_trained_on_its_clues(name):
    model = model_of(name).train()
    model(batch_of(model), stage=Stage2(steps=1, losses=Losses(answer=1)), seed=0)["loss"].backward()
    assert float(model.slot_embedding_KWD.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", TRAINING_FREE)
def test_a_recipe_without_any_training_step_evaluates(name, tmp_path):
    """The way of `cluenet run` and `cluenet evaluate` with `steps: 0` in both stages: base, model folder, results."""
    section = {"backbone": "tiny", "clue_extractor": name, "clue_filter": "keep_all"}
    no_steps = {"stage1": {"steps": 0}, "stage2": {"steps": 0}}
    settings = recipe(model=section, train=no_steps, evaluate={"questions_per_batch": 8, "bootstrap": 100})
    test_set = prepared_test(tmp_path / "set", recipe=settings, clips=3)
    policy = read_manifest(test_set)["policy"]
    folder = save_final_model(
        settings, run=tmp_path / "run", base=base_folder(), checkpoint=None, frame_policy=policy, address="x"
    )
    found = evaluate(
        settings, model_folder=folder, prepared=[test_set], out=tmp_path / "out", progress=Silent, local=True
    )
    (result,) = found.values()
    assert result["counts"]["rows"] == Silent.last.done
    assert result["clues"]["stated"]["exact"]["stated"] >= result["counts"]["rows"]  # at least one per question
    assert result["rows"]["own"]["overall"]["n"] == result["rows"]["none"]["overall"]["n"] == result["counts"]["rows"]
