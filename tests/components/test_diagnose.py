"""`cluenet diagnose` on real tiny models: its numbers against plain Python, its figures as files, the same bytes for a seed."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from cluenet.cli import app
from cluenet.diagnose import attention, build, lens, looking
from cluenet.diagnose.build import diagnose
from cluenet.diagnose.findings import tables
from cluenet.diagnose.questions import chosen, source_of
from cluenet.errors import CheckpointError, DataError
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.model.checkpoint import load_model
from cluenet.prepared import PreparedSet
from cluenet.records import Box, Clue
from helpers.evaluation import NO_CLUES, Silent, model_folder, prepared_test, recipe
from helpers.models import COLOURS, example

FIGURES = {"attention", "looking", "lens", "space"}
SEES_VIDEO = {**NO_CLUES, "reasoner": {"name": "direct", "scoring": "likelihood"}}


def asked(number: int):
    """Two boxes in two blocks for every second question, so that regions differ."""
    boxes = (Box(0.1, 0.0, 0.0, 0.34, 0.5), Box(0.9, 0.4, 0.2, 0.9, 0.8))[: 1 + number % 2]
    words = {"who": COLOURS[number % 4], "what": "hits", "whom": COLOURS[(number + 1) % 4]}
    clue = Clue(" ".join(words.values()), 0.0, 0.5, boxes, words)
    return example(number, clues=(clue,))


def evaluated(run: Path, make=asked, **section) -> Path:
    settings = recipe(evaluate={"questions_per_batch": 8, "bootstrap": 100, "rows": ["own"]})
    model = model_folder(run / "model", recipe=settings, **section)
    test = prepared_test(run / "0123456789abcdef", recipe=settings, clips=6, make=make)
    evaluate(settings, model_folder=model, prepared=[test], out=run / "evaluation", progress=Silent, local=True)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("run"), clue_extractor={"name": "latent_slots", "slots": 2, "heads": 2}, clue_filter="keep_all")  # fmt: skip


@pytest.fixture(scope="module")
def found(run):
    folder, data = diagnose(run, progress=Silent)
    return folder, data


@pytest.fixture(scope="module")
def direct(tmp_path_factory):
    """A backbone without clues: the attention is the answer's, and the labelled clues stand in the map."""
    run = evaluated(tmp_path_factory.mktemp("direct"), **SEES_VIDEO)
    return run, diagnose(run, progress=Silent)[1]


# ------------------------------------------------------------------------------------------------------ attention


def cells(row, touches):
    """Tokens of the boxes by `touches(box, r, rows, c, cols)`, each box in the block nearest to its time."""
    blocks, rows, cols = row["shape"]
    found = set()
    for box in row["boxes"]:
        block = min(range(blocks), key=lambda b: abs(row["seconds"][b] - box["seconds"]))
        found |= {
            (block * rows + r) * cols + c for r in range(rows) for c in range(cols) if touches(box, r, rows, c, cols)
        }
    return found


def overlaps(box, r, rows, c, cols):
    return box["x1"] < (c + 1) / cols and c / cols < box["x2"] and box["y1"] < (r + 1) / rows and r / rows < box["y2"]


def points_at(box, r, rows, c, cols):
    centre = box["x1"] <= (c + 0.5) / cols <= box["x2"] and box["y1"] <= (r + 0.5) / rows <= box["y2"]
    x, y = (box["x1"] + box["x2"]) / 2, (box["y1"] + box["y2"]) / 2
    return centre or (int(x * cols) == c and int(y * rows) == r)


@pytest.mark.parametrize("fixture", ["found", "direct"])
def test_pointing_and_energy_of_the_examples_in_plain_python(fixture, request):
    _, data = request.getfixturevalue(fixture)
    examples = data["attention"]["examples"]
    assert len(examples) == 2 * attention.EACH
    for row, look in ((one, look) for one in examples for look in one["looks"]):
        inside, aim, heat = cells(row, overlaps), cells(row, points_at), look["heat"]
        if look["energy"] is not None:  # of two clues that are stated, one alone is paired with the labelled one
            assert look["energy"] == pytest.approx(sum(heat[i] for i in inside) / sum(heat), abs=1e-5)
            assert look["energy_chance"] == pytest.approx(len(inside) / len(heat), abs=1e-6)
        assert look["pointing"] is (heat.index(max(heat)) in aim)
        assert look["pointing_chance"] == pytest.approx(len(aim) / len(heat), abs=1e-6)
    assert all(any(look["energy"] is not None for look in row["looks"]) for row in examples)


def test_scores_are_means_over_all_looks(found):
    _, data = found
    looks, scores = data["attention"]["looks"], data["attention"]["scores"]
    for verdict, name in ((True, "right"), (False, "wrong")):
        mine = [look for look in looks if look["correct"] is verdict]
        for measure, key in (("pointing", "pointing"), ("energy_in_box", "energy")):
            values = [float(look[key]) for look in mine if look[key] is not None]
            assert scores[measure][name]["n"] == len(values) > 0
            assert scores[measure][name]["value"] == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_heat_is_the_attention_of_the_clue_it_names(run, found):
    _, data = found
    model, prepared = load_model(run / "model"), PreparedSet(run / "0123456789abcdef")
    for row in data["attention"]["examples"]:
        (question,) = [one for one in prepared.examples_of(row["clip"]) if one.id == row["question"]]
        batch = model.collate([(prepared.clip(row["clip"]), [question])], seed=0, shuffle_options=False)
        (answer,) = model.predict(batch)
        stated = [(clue.text, np.round(clue.attention_N, 4).tolist()) for clue in answer.clues if clue.kept]
        assert [(look["text"], np.round(look["heat"], 4).tolist()) for look in row["looks"]] == stated[
            : attention.MOST_LOOKS
        ]


def test_attention_of_an_answer_is_the_eager_forward_pass_of_its_last_token(direct):
    run, data = direct
    assert (data["attention"]["of"], data["attention"]["layer"]) == ("answer", 2)
    model, prepared, row = (
        load_model(run / "model"),
        PreparedSet(run / "0123456789abcdef"),
        data["attention"]["examples"][0],
    )
    (question,) = [one for one in prepared.examples_of(row["clip"]) if one.id == row["question"]]
    batch = model.collate([(prepared.clip(row["clip"]), [question])], seed=0, shuffle_options=False)
    weights = []
    attend = model.vlm.text.layers[1].self_attn
    attend.register_forward_hook(lambda module, args, output: weights.append(output[1]))
    model.vlm.text.set_attn_implementation("eager")
    with model.inference():
        look = model.look(batch)
        weights.clear()
        model.reason(batch, look.prefix, model.own_evidence(batch, look).embeds_BQKWD)
    last = int(batch.answer.answer_index_BQ[0, 0])
    columns = batch.prefix.visual_index_BN[0].tolist()
    assert row["looks"][0]["heat"] == pytest.approx(
        [float(weights[0][0, :, last, c].mean()) for c in columns], abs=1e-5
    )


# ------------------------------------------------------------------------------------------------------- the lens


def test_ccr_by_layer_against_loops(run, found):
    _, data = found
    model, prepared = load_model(run / "model"), PreparedSet(run / "0123456789abcdef")
    hits, tokens = {}, {}
    for clip in prepared.clip_keys:
        examples = prepared.examples_of(clip)
        batch = model.collate([(prepared.clip(clip), examples)], seed=0, shuffle_options=False)
        with torch.no_grad():
            logits = torch.stack(model.vlm.read_layers(batch.prefix, model.vlm.head))[:, 0].tolist()
        grid = batch.grids[0]
        shape = {"shape": [grid.blocks, grid.rows, grid.cols], "seconds": grid.seconds}
        for question in examples:
            boxes = [vars(box) for box in question.clues[0].boxes]
            region = cells({**shape, "boxes": boxes}, overlaps)
            for word, (layer, rows), k in itertools.product(
                question.clues[0].concepts.values(), enumerate(logits, 1), (1, 5)
            ):
                wanted = model.vlm.word_id(word)
                has = [wanted in sorted(range(len(rows[n])), key=lambda i: -rows[n][i])[:k] for n in region]
                hits.setdefault((layer, k), []).append(any(has))
                tokens.setdefault((layer, k), []).append(sum(has) / len(has))
    assert data["lens"]["layers"] == model.vlm.layers
    assert {(row["layer"], row["k"]) for row in data["lens"]["ccr"]} == set(hits)
    for row in data["lens"]["ccr"]:
        at = row["layer"], row["k"]
        assert row["rate"]["value"] == pytest.approx(np.mean(hits[at]), abs=1e-5)
        assert row["tokens"]["value"] == pytest.approx(np.mean(tokens[at]), abs=1e-5)


def test_words_of_the_layers_are_words_of_the_model(run, found):
    _, data = found
    tokenizer = load_model(run / "model").vlm.tokenizer
    known = {tokenizer.decode([i]).strip() or tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))}
    for row in data["lens"]["words"]:
        for side in ("inside", "outside"):
            assert {word for word, _ in row[side]} <= known
            assert 0 < sum(share for _, share in row[side]) <= 1 + 1e-6
    assert len(data["lens"]["examples"]) == lens.EXAMPLES


# -------------------------------------------------------------------------------------------------------- the map


def test_vectors_are_means_of_input_embeddings_and_visual_tokens(run):
    source = source_of(run, None)
    looker = looking.Looker(source)
    model, rows = looker.model, looker.model.vlm.embeddings_VD.tolist()
    (parts, *_) = chosen(source.prepared, 4, 0)
    for one in looker(parts):
        ids = model.vlm.ids(one.sample["question"])
        plain = [sum(column) / len(ids) for column in zip(*(rows[i] for i in ids))]
        assert one.vectors.question_D.tolist() == pytest.approx(plain, abs=1e-5)
        frames = source.prepared.frames(one.sample["clip"])
        grid = model.vlm.grid(frames.frames_THWC, frames.seconds_T)
        with torch.no_grad():
            visual_ND = model.vlm.visual_tokens(model.vlm.pixels(frames.frames_THWC, grid), [grid]).numpy()
        inside = sorted(cells({"shape": [grid.blocks, grid.rows, grid.cols], "seconds": grid.seconds, "boxes": [vars(b) for c in one.clues for b in c.boxes]}, overlaps))  # fmt: skip
        assert one.vectors.inside_D == pytest.approx(visual_ND[inside].mean(0), abs=1e-4)
        assert any(np.allclose(one.vectors.inside_ND[0], row, atol=1e-4) for row in visual_ND[inside])


def test_options_keep_their_stored_order(run):
    """The model meets them shuffled."""
    source = source_of(run, None)
    looker = looking.Looker(source)
    rows = looker.model.vlm.embeddings_VD.detach()
    for one in looker(chosen(source.prepared, 12, 0)[0]):
        for text, vector in zip(one.sample["options"], one.vectors.options_AD, strict=True):
            assert vector == pytest.approx(rows[looker.model.vlm.ids(f" {text}")].mean(0).numpy(), abs=1e-6)


# ------------------------------------------------------------------------------------------------------ the files


def test_the_figures_are_there_in_both_formats(found):
    folder, data = found
    assert {Path(name).stem for name in data["files"]} == FIGURES
    assert sorted(path.name for path in folder.iterdir()) == sorted([*data["files"], "diagnostics.json"])
    for name in FIGURES:
        assert np.asarray(Image.open(folder / f"{name}.png").convert("L")).std() > 5, "an empty picture"
    drawn = (folder / "looking.svg").read_text()
    for label in ("attention inside the labelled box (%)", "wrong answers", "even attention"):
        assert f">{label}" in drawn, "text is text"
    assert ">after decoder layer<" in (folder / "lens.svg").read_text()


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_clips(run, found):
    folder, data = found
    before = {name: (folder / name).read_bytes() for name in ("diagnostics.json", *data["files"])}
    diagnose(run, progress=Silent)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert json.loads(before["diagnostics.json"]) == data
    prepared = PreparedSet(run / "0123456789abcdef")
    first, again, other = (chosen(prepared, 5, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert sum(part.last - part.first for batch in first for part in batch) == 5


def test_answers_are_those_of_the_evaluation(run, found):
    _, data = found
    samples = {one["id"]: one for one in read_samples(run / "evaluation/fake-test")}
    looks = data["attention"]["looks"]
    assert {look["question"] for look in looks} == set(samples)
    assert all(look["correct"] is samples[look["question"]]["correct"] for look in looks)
    assert data["questions"] == {
        "asked": len(samples), "right": sum(one["correct"] for one in samples.values()),
        "wrong": sum(not one["correct"] for one in samples.values()), "unknown": 0,
    }  # fmt: skip


def test_a_backbone_without_clues_has_every_figure(direct):
    _, data = direct
    assert {Path(name).stem for name in data["files"]} == FIGURES
    assert data["space"]["clues"] == "labelled"
    assert data["space"]["nearest"] is None
    assert data["notes"] == {}


def test_without_boxes_what_needs_them_is_left_out_and_said(tmp_path):
    run = evaluated(tmp_path, make=lambda i: example(i, clues=(Clue("red hits blue"),)))
    folder, data = diagnose(run, progress=Silent)
    assert data["notes"] == {"attention.scores": attention.NO_BOXES, "lens": lens.NO_BOXES}
    assert {Path(name).stem for name in data["files"]} == FIGURES - {"looking", "lens"}
    assert data["lens"] is None
    assert "clue_inside" not in data["space"]["proximity"]
    assert sorted(path.stem for path in folder.glob("*.png")) == ["attention", "space"]


def test_figures_of_before_do_not_stay(tmp_path):
    for name in ("old.png", "mine.png"):
        (tmp_path / name).write_bytes(b"x")
    build._clear(tmp_path)
    (tmp_path / "diagnostics.json").write_text(json.dumps({"files": ["old.png", "gone.svg"]}))
    build._clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


# ------------------------------------------------------------------------------------------------- how to call it


def test_the_command_prints_what_it_found_and_where(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    done = CliRunner().invoke(app, ["diagnose", str(copy), "--questions", "6"])
    assert done.exit_code == 0, done.output
    for text in (
        "fake-test: 6 questions",
        "CCR@1",
        "clue – right option",
        "diagnostics/attention.svg",
        "diagnostics.json",
    ):
        assert text in done.output


def test_of_a_model_without_clues_it_speaks_of_answers(direct):
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(tables(direct[1]))
    text = console.export_text()
    assert "the peak of the answer's attention lies on a labelled box" in text
    assert "attention of the answer inside labelled boxes" in text
    assert "a clue's attention" not in text


def test_a_run_without_evaluation_and_an_unknown_set_are_explained(run, tmp_path):
    with pytest.raises(DataError, match=r"no evaluated test set.*cluenet evaluate"):
        diagnose(tmp_path, progress=Silent)
    with pytest.raises(DataError, match=r"--set fake-tset: .*Did you mean 'fake-test'\? Evaluated: fake-test"):
        diagnose(run, name="fake-tset", progress=Silent)


def test_a_model_that_is_gone_is_named(tmp_path):
    run = evaluated(tmp_path)
    (run / "model").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="is not there any more"):
        diagnose(run, progress=Silent)
