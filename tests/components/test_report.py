"""The report of a really evaluated run: parses, needs no network, says what results.json says, has what was asked of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cluenet.cli import call
from cluenet.errors import DataError
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import json_lines
from cluenet.folders import read_manifest, write_manifest
from cluenet.report.build import build_report
from cluenet.report.comparison import context
from cluenet.report.sources import read_run
from helpers.evaluation import Silent, prepared_test, recipe
from helpers.models import clip
from helpers.prepared import prepared_set
from helpers.reports import SETTINGS, Page, evaluated_runs, invented_run, samples_of, training_log

LOADS = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
SET = "evaluation/fake-test"
PARTS = ["summary", "accuracy", "clues", "faithfulness", "filter", "diagnostics", "training", "efficiency", "data", "examples", "run"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(build_report(folder / "run", folder / "base").read_text())


@pytest.fixture(scope="module")
def results(folder: Path) -> dict:
    return json.loads((folder / "run" / SET / "results.json").read_text())


def copied(folder: Path, target: Path, **manifest: object) -> Path:
    """The run's evaluation in another run folder, with other entries in its manifest."""
    target = target / SET
    target.mkdir(parents=True)
    for name in ("samples.jsonl", "results.json"):
        (target / name).write_text((folder / "run" / SET / name).read_text())
    write_manifest(target, {**read_manifest(folder / "run" / SET), **manifest})
    return target


def without_faithfulness(evaluation: Path) -> None:
    lines = [json.loads(line) for line in (evaluation / "samples.jsonl").read_text().splitlines()]
    bare = [{k: v for k, v in line.items() if k not in ("faithfulness", "diagnostics")} for line in lines]
    (evaluation / "samples.jsonl").write_text(json_lines(bare))
    results = json.loads((evaluation / "results.json").read_text())
    kept = {k: v for k, v in results.items() if k not in ("faithfulness", "biases", "filter")}
    (evaluation / "results.json").write_text(json.dumps(kept))


# ---------------------------------------------------------------------------------------------------- the page


def test_nothing_is_loaded_from_anywhere(folder: Path, page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        assert not (tag == "script" and attrs)
        for name in LOADS & set(attrs):
            assert (attrs[name] or "").startswith(("data:image/", "#")), (tag, attrs[name])
    text = (folder / "run/report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|fetch\(|XMLHttpRequest", text)


def test_every_part_is_in_the_table_of_contents(page: Page) -> None:
    assert [attrs["id"] for attrs in page.find("section")] == PARTS
    links = [attrs["href"] for attrs in page.find("a") if attrs.get("class") != "skip"]
    assert links == [f"#{name}" for name in PARTS]


def test_numbers_are_those_of_results_json(page: Page, results: dict) -> None:
    accuracy = results["accuracy"]
    expected = [accuracy["overall"], accuracy["all"], *(block["overall"] for block in results["rows"].values()),
                results["pointing"]["rate"], *(results["clues"]["stated"]["timed"][name] for name in ("precision", "recall", "f1")),
                results["faithfulness"]["swap"]["flip"], results["filter"]["useful_kept"]]  # fmt: skip
    for estimate in expected:
        assert estimate["value"] in page.values
        assert f"{100 * estimate['value']:.1f}" in page.text
    assert f"{100 * accuracy['overall']['low']:.1f} – {100 * accuracy['overall']['high']:.1f}" in page.text
    assert f"guessing: {100 * results['chance']:.1f} %" in page.text
    known = {value for block in _numbers(results) for value in block}
    assert set(page.values) <= known  # and no number that is not there


def _numbers(value):
    if isinstance(value, dict):
        yield {item for item in value.values() if isinstance(item, float)}
        for item in value.values():
            yield from _numbers(item)


def test_charts_name_their_axes_and_are_told_in_words(page: Page) -> None:
    charts = page.find("svg", role="img")
    titles = {(attrs["aria-label"] or "").split(". ")[0] for attrs in charts}
    assert titles >= {
        "Accuracy by question type", "Deletion of clues", "Insertion of clues", "Swapped, renamed and foreign clues",
        "Clues that the filter keeps", "Gate and utility of every clue", "Is the gate calibrated?", "Accuracy against tokens kept",
        "Labelled words among a region's top words", "loss, stage1", "concept, stage2", "validation/accuracy, stage1", "lr, stage1",
    }  # fmt: skip
    assert len(page.find("text", cls="axis")) >= 2 * len(charts) - 5  # dot plots have no vertical axis
    for words in (
        "optimiser step",
        "questions answered right, %",
        "probability of the answer, %",
        "utility (leave-one-out), nats",
    ):
        assert words in page.text


def test_accuracy_stands_beside_baseline_oracle_noise_and_no_clues(page: Page, results: dict) -> None:
    for words in (
        "baseline (base)",
        "with ground-truth clues (oracle)",
        "with a foreign clue (noise)",
        "without clues",
    ):
        assert words in page.text
    noise = results["faithfulness"]["noise"]["after"]
    assert f"{100 * noise['value']:.1f} % [{100 * noise['low']:.1f} % .. {100 * noise['high']:.1f} %]" in str(page.tags)


def test_the_baseline_is_beside_it_with_paired_differences(page: Page, folder: Path) -> None:
    ours, theirs = ({s["id"]: s["correct"] for s in samples_of(folder / name)} for name in ("run", "base"))
    difference = 100 * (sum(ours.values()) - sum(theirs.values())) / len(ours)
    assert f"{difference:+.1f} points against base" in page.text
    alone = Page(build_report(folder / "run", look="never").read_text())
    assert "points against" not in alone.text
    assert "No baseline was given" in alone.text


def test_the_settings_that_differ_are_listed(folder: Path, tmp_path: Path) -> None:
    for name, changes in (
        ("a", {}),
        ("b", {"train": {"stage1": {"lr": 0.5}}, "data": {"size": {"height": 64, "width": 64}}}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(recipe(**changes).to_yaml())
        (tmp_path / name / "logging.jsonl").write_text(json_lines(training_log()[:1]))
    text = re.sub(r"\s+", " ", Page(build_report(tmp_path / "b", tmp_path / "a").read_text()).text)
    assert "train.stage1.lr" in text
    assert "data.size.width 48" in text or "data.size.width" in text
    assert "train.stage2.lr" not in text
    assert "has the same settings" in Page(build_report(tmp_path / "a", tmp_path / "a").read_text()).text


def test_accounts_of_the_data(page: Page, folder: Path) -> None:
    assert "missing 2" in page.text
    assert "fake test" in page.text
    answers = [s["options"][s["answer"]] for s in samples_of(folder / "run")]
    most = max(answers.count(words) for words in set(answers)) / len(answers)
    assert f"{100 * most:.1f}" in page.text
    assert "uniform (frames 4)" in page.text


# ------------------------------------------------------------------------------------------------------ examples


def test_examples_show_frames_boxes_clues_and_probabilities(folder: Path, page: Page) -> None:
    shown = page.find("article", cls="example")
    picked = samples_of(folder / "run")
    assert sorted(attrs["data-id"] for attrs in shown) == [s["id"] for s in picked]  # few enough for all of them
    rights = [attrs["data-verdict"] for attrs in shown]
    assert rights == ["right"] * sum(s["correct"] for s in picked) + ["wrong"] * sum(not s["correct"] for s in picked)
    frames = [attrs for attrs in page.find("img") if "Frame at" in (attrs["alt"] or "")]
    assert len(frames) == len(picked) * 4  # every clip has four frames
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in frames)
    stated = [clue for s in picked for clue in s["clues"]]
    assert len(page.find("button", cls="clue true")) == len(page.find("i", cls="box true")) == len(picked)
    assert len(page.find("button", cls="clue kept")) == sum(clue["kept"] for clue in stated)
    assert len(page.find("button", cls="clue dropped")) == sum(not clue["kept"] for clue in stated)
    for s in picked:
        assert s["question"] in page.text
        for logprob in s["option_logprobs"]:
            assert f"{100 * np.exp(logprob):.1f}" in page.text


def test_every_stated_clue_has_its_heat_and_its_column(folder: Path, page: Page) -> None:
    stated = [clue for s in samples_of(folder / "run") for clue in s["clues"]]
    hot = [attrs for attrs in page.find("button", cls="clue") if attrs.get("data-heat")]
    assert len(hot) == len(stated) > 0
    heads = [attrs["data-clue"] for attrs in page.find("th") if attrs.get("data-clue")]
    assert len(heads) == len(stated)
    text = re.sub(r"\s+", " ", page.text)
    assert text.count(" nats ") + text.count(" nats\n") >= len(stated)


def test_the_model_need_not_be_asked(folder: Path) -> None:
    page = Page(build_report(folder / "run", look="never").read_text())
    assert not [attrs for attrs in page.find("button", cls="clue") if attrs.get("data-heat")]
    assert "The model was not asked again, because of --look never." in page.text


def test_another_model_in_the_folder_is_not_taken_for_the_evaluated_one(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "run", model_address="another")
    page = Page(build_report(tmp_path / "run").read_text())
    assert "another model than was evaluated" in page.text
    assert not [attrs for attrs in page.find("button", cls="clue") if attrs.get("data-heat")]


def test_a_model_that_is_gone_is_said(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "run", model=str(tmp_path / "gone"))
    assert "The model is not there any more" in Page(build_report(tmp_path / "run").read_text()).text


def test_the_same_run_gives_the_same_page(folder: Path) -> None:
    assert build_report(folder / "run").read_bytes() == build_report(folder / "run").read_bytes()


def test_words_of_a_dataset_cannot_break_the_page(folder: Path, tmp_path: Path, page: Page) -> None:
    evil = "<script>alert('x')</script> & \"quotes\""
    target = copied(folder, tmp_path / "run")
    lines = [{**s, "question": evil, "type": evil, "chain": evil} for s in samples_of(folder / "run")]
    for line in lines:
        line["clues"] = [{**clue, "text": evil} for clue in line["clues"]]
    (target / "samples.jsonl").write_text(json_lines(lines))
    broken = Page(build_report(tmp_path / "run").read_text())
    assert len(broken.find("script")) == len(page.find("script")) == 1
    assert evil in broken.text


def test_a_large_run_stays_small(tmp_path: Path) -> None:
    """Many questions about a clip that compresses badly: noise, as large as a report shows frames."""
    noise = prepared_set(
        tmp_path / "set", clips=1, questions=(1,), make_clip=lambda i: clip(i, frames=16, height=160, width=160)
    )
    run = invented_run(tmp_path / "run", questions=600, clips=1, prepared=noise)
    path = build_report(run)
    assert path.read_text().count("<article") == 60
    assert 5_000_000 < path.stat().st_size < 15_000_000


# ---------------------------------------------------------------------------------------- cluenet diagnose


def test_what_diagnose_left_is_shown(folder: Path, tmp_path: Path) -> None:
    without_faithfulness(copied(folder, tmp_path / "run"))
    target = tmp_path / "run/diagnostics"
    target.mkdir()
    (target / "attention.png").write_bytes(b"picture")
    rate = {"value": 0.25, "low": 0.2, "high": 0.3, "n": 9}
    lens = {"ccr": [{"layer": n, "k": 1, "rate": rate, "chance": 0.01} for n in (1, 2)],
            "words": [{"layer": 1, "inside": [["crimson", 0.5]], "outside": []}]}  # fmt: skip
    points = [
        {"role": role, "text": f"a {role}", "count": 1, "pca": [0.1, 0.2], "tsne": [3, 4]}
        for role in ("question", "clue")
    ]
    space = {"points": points, "explained": [0.5, 0.25], "proximity": {"clue_question": {"right": rate, "wrong": rate}}}
    data = {"set": "fake-test", "questions": {"asked": 9, "right": 5, "wrong": 4}, "files": ["attention.png"], "lens": lens, "space": space,
            "notes": {"attention.scores": "no boxes here"}}  # fmt: skip
    (target / "diagnostics.json").write_text(json.dumps(data))
    page = Page(build_report(tmp_path / "run", look="never").read_text())
    assert "9 questions, of which 5 were answered right and 4 wrong" in page.text
    assert "crimson 50.0 %" in page.text
    assert "no boxes here" in page.text
    assert "a clue" in str(page.find("g", cls="series"))
    assert "layer 2: 25.0 % [20.0 % .. 30.0 %]" in str(page.find("g", cls="series"))
    assert page.find("img", src="data:image/png;base64,cGljdHVyZQ==")
    (target / "diagnostics.json").write_text("{}")
    with pytest.raises(DataError, match=r"diagnostics\.json: cannot be read.*cluenet diagnose"):
        build_report(tmp_path / "run", look="never")


def test_without_it_the_command_is_said(page: Page, folder: Path) -> None:
    assert f"cluenet diagnose {folder / 'run'}" in page.text


# ---------------------------------------------------------------------------------------- what may be missing


def test_a_model_without_clues(folder: Path) -> None:
    page = Page(build_report(folder / "base").read_text())
    assert "the model reads no clues" in page.text.lower()
    assert "Nothing was trained in this run." in page.text
    assert "optimiser step" not in page.text
    assert "No clue of the model passed a filter." in page.text
    assert len(page.find("article", cls="example")) == len(samples_of(folder / "base"))


def test_an_evaluation_without_faithfulness_says_how_to_get_it(folder: Path, tmp_path: Path) -> None:
    without_faithfulness(copied(folder, tmp_path / "run"))
    page = Page(build_report(tmp_path / "run", look="never").read_text())
    assert page.text.count("evaluate.faithfulness: true") == 2  # answers, and what clues are worth
    assert "with a foreign clue" not in page.text


def test_a_deleted_store_is_said_and_the_rest_is_shown(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "run", prepared=str(tmp_path / "gone"))
    page = Page(build_report(tmp_path / "run").read_text())
    assert f"No frames: {tmp_path / 'gone'}: the folder is missing" in page.text
    assert page.find("img") == []
    assert len(page.find("article", cls="example")) == len(samples_of(folder / "run"))


def test_a_baseline_with_other_questions_is_shown_without_differences(folder: Path, tmp_path: Path) -> None:
    settings = recipe(evaluate=SETTINGS)
    for name, split in (("base", "test"), ("third", "ood")):
        prepared = prepared_test(tmp_path / f"other-{name}", recipe=settings, clips=2, split=split)
        evaluate(
            settings,
            model_folder=folder / "base/model",
            prepared=[prepared],
            out=tmp_path / name / "evaluation",
            progress=Silent,
            local=True,
        )
    page = Page(build_report(folder / "run", tmp_path / "base", look="never").read_text())
    assert "No differences: the two runs did not answer the same questions" in page.text
    page = Page(build_report(folder / "run", tmp_path / "third", look="never").read_text())
    assert "was not evaluated on this test set" in page.text


def test_a_run_that_is_only_trained(tmp_path: Path) -> None:
    (tmp_path / "logging.jsonl").write_text(json.dumps(training_log()[0]) + "\n" + '{"stage": "stage1", "st')
    page = Page(build_report(tmp_path).read_text())
    assert "Not evaluated." in page.text
    assert len(page.find("svg", role="img")) == 6  # three terms, and how the optimiser went


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="without a finished evaluation or a training log, so there is nothing to report"
    ):
        build_report(tmp_path)
    with pytest.raises(DataError, match="nowhere: missing"):
        build_report(tmp_path / "nowhere")
    (tmp_path / "logging.jsonl").write_text("{}\nnonsense\n")
    with pytest.raises(DataError, match=r"logging\.jsonl:2: not JSON"):
        read_run(tmp_path)


# ---------------------------------------------------------------------------------------------------- comparisons


def test_compare_writes_a_page_too(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "comparison.html"
    assert call(["compare", str(folder / "base"), str(folder / "run"), "--html", str(target), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["rows"][0]["result"]
    page = Page(target.read_text())
    assert f"{100 * found['difference']['value']:+.1f} points" in page.text
    assert f"{100 * found['accuracy_b']:.1f} % against {100 * found['accuracy_a']:.1f} %" in re.sub(
        r"\s+", " ", page.text
    )
    assert "Settings that differ" in page.text
    titles = {(attrs["aria-label"] or "").split(". ")[0] for attrs in page.find("svg", role="img")}
    assert titles == {"Difference to base", "Accuracy by question type"}


def test_more_runs_than_colours_get_more_charts(folder: Path) -> None:
    row = {
        "test_set": "s",
        "type": "all types",
        "questions": 4,
        "videos": 2,
        "p_holm": None,
        "family": "all types",
        "tests": 5,
    }
    result = {"accuracy_a": 0.25, "accuracy_b": 0.5, "difference": {"value": 0.25, "low": 0.1, "high": 0.4, "n": 4}, "p_value": 0.01,
              "power": {"minimum_detectable": None}}  # fmt: skip
    arms = [{"name": f"arm{i}", "runs": [str(folder / "run")]} for i in range(5)]
    rows = [{**row, "run": arm["name"], "result": result} for arm in arms]
    base = {"name": "base", "runs": [str(folder / "base")]}
    (found,) = context({"base": base, "runs": arms, "resamples": 10, "rows": rows})["sets"]
    assert [[series.name for series in chart.series] for chart in found["charts"]] == [
        ["arm0", "arm1", "arm2", "arm3"], ["base (base)", "arm0", "arm1", "arm2", "arm3"], ["arm4"], ["base (base)", "arm4"]
    ]  # fmt: skip
