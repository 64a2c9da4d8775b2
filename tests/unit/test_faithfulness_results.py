"""`evaluate.faithfulness`: from records to results.json against plain loops, through files, report and terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console

from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.faithfulness import (
    NO_RECORDS,
    NONE_SHOWN,
    NOT_EXTRACTED,
    NOT_FOUND,
    faithfulness,
    stands_in_the_text,
)
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.results import summarise
from cluenet.metrics.faithfulness import headlines
from cluenet.model.interventions import NO_CLUES as READS_NONE
from cluenet.report.build import build_report
from cluenet.summary import score_tables
from helpers.evaluation import NO_CLUES, Silent, model_folder, prepared_test, recipe
from helpers.samples import sample

RECORD = {
    "order": [0], "importance": [0.75], "deletion": [0.9, 0.25], "insertion": [0.25, 0.9], "random": [0.25, 0.9],
    "swap": {"donor": "q9", "prediction": 1, "target": 1}, "edit": {"names": [["red", "blue"]], "prediction": 0, "target": 1},
    "noise": {"source": "q9", "words": ["_", "cyan"], "replaces": False, "after": 1, "through": 0, "kept": False},
    "text_only": 0,
}  # fmt: skip


def recorded(number: int, *, record: dict | None = None, **changes) -> dict:
    return sample(number, faithfulness={**RECORD, **(record or {})}, **changes)


def found(samples: list[dict], *, extracts: bool = True) -> tuple[dict, dict]:
    block, notes = faithfulness(samples, extracts=extracts, resamples=200)
    assert block is not None
    return block, notes


# ----------------------------------------------------------------------------------------------- from records


def test_flips_and_steers_are_shares_of_the_questions_that_were_steered() -> None:
    samples = [
        recorded(0, video="a"),
        recorded(1, video="a", record={"swap": {"donor": "q9", "prediction": 2, "target": None}}),
        recorded(2, video="b", record={"swap": {"donor": "q9", "prediction": 0, "target": 1}, "edit": None}),
        recorded(
            3,
            video="c",
            prediction=1,
            answer=0,
            record={"swap": None, "edit": {"names": [], "prediction": 2, "target": 2}},
        ),
    ]
    block, _ = found(samples)
    swap, edit = block["swap"], block["edit"]
    assert (swap["flip"]["value"], swap["flip"]["n"]) == (pytest.approx(2 / 3), 3)
    assert (swap["steer"]["value"], swap["steer"]["n"]) == (0.5, 2)
    assert (edit["flip"]["value"], edit["flip"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (edit["steer"]["value"], edit["steer"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (edit["from_right"]["value"], edit["from_right"]["n"]) == (0.0, 2)
    assert swap["flip"]["low"] < swap["flip"]["value"] <= swap["flip"]["high"]


def test_noise_against_loops() -> None:
    answers = [(0, 1, 0, True), (0, 0, 0, False), (1, 0, 1, True), (0, 2, 2, False), (2, 2, 0, True)]
    samples = [
        recorded(i, video=f"v{i % 3}", prediction=own, answer=0, record={"noise": {**RECORD["noise"], "after": after, "through": through, "kept": kept}})
        for i, (own, after, through, kept) in enumerate(answers)
    ]  # fmt: skip
    samples.append(recorded(9, answer=None))  # its answer is not known
    noise = found(samples)[0]["noise"]
    own, after, through = ([float(row[place] == 0) for row in answers] for place in range(3))
    assert {name: one["value"] for name, one in noise.items()} == pytest.approx({
        "own": fmean(own), "after": fmean(after), "through": fmean(through), "cost_after": fmean(own) - fmean(after),
        "cost_through": fmean(own) - fmean(through), "saved": fmean(through) - fmean(after), "kept": 3 / 5, "own_kept": 1.0,
    })  # fmt: skip
    assert {one["n"] for one in noise.values()} == {5}


def test_inputs_against_loops() -> None:
    samples = [
        recorded(0, record={"clue_only": 0, "frames_only": 1, "text_only": 0}),
        recorded(1, prediction=2, record={"clue_only": 0, "frames_only": 1, "text_only": 2}),
        recorded(2, prediction=1, true_clues=None, record={"clue_only": 1, "frames_only": 0, "text_only": 2}),
    ]
    inputs = found(samples)[0]["inputs"]
    values = {name: (one["value"], one["n"]) for name, one in inputs.items()}
    assert values == {
        "own": (pytest.approx(1 / 3), 3), "clue_only": (pytest.approx(2 / 3), 3), "frames_only": (pytest.approx(1 / 3), 3),
        "text_only": (pytest.approx(1 / 3), 3), "oracle": (1.0, 2), "oracle_uplift": (0.5, 2),  # labelled questions alone
    }  # fmt: skip


RIGHT = sample(0)["clues"][0]
LATE = {**RIGHT, "words": ["<t7>", *RIGHT["words"][1:]]}
OTHER = {**RIGHT, "words": ["<t1>", "cyan", "hits", "blue"]}
HIDDEN = {**RIGHT, "kept": False}
SECOND = {**sample(0)["true_clues"][0], "words": ["<t2>", "cyan", "moves", "_"]}


@pytest.mark.parametrize(
    ("clues", "needed", "exact", "words"),
    [
        ([RIGHT], 1, True, True), ([LATE], 1, False, True), ([OTHER], 1, False, False), ([HIDDEN], 1, False, False),
        ([OTHER, RIGHT], 1, True, True), ([], 1, False, False), ([RIGHT], 2, False, False), ([RIGHT, RIGHT], 2, False, False),
        ([{**RIGHT, "words": SECOND["words"]}, LATE], 2, False, True), ([RIGHT, {**RIGHT, "words": SECOND["words"]}], 2, True, True),
    ],
)  # fmt: skip
def test_needed_clues_stand_in_the_text_when_every_one_is_shown_word_for_word(
    clues: list, needed: int, exact: bool, words: bool
) -> None:
    one = sample(0, clues=clues, true_clues=[sample(0)["true_clues"][0], SECOND][:needed])
    assert (stands_in_the_text(one), stands_in_the_text(one, first=1)) == (exact, words)


def test_explained_right_answers() -> None:
    samples = [
        recorded(0), recorded(1, prediction=1), recorded(2, clues=[OTHER]), recorded(3, clues=[LATE]),
        recorded(4, clues=[], prediction=1), recorded(5, true_clues=[]), recorded(6, true_clues=None), recorded(7, answer=None),
    ]  # fmt: skip
    explained = found(samples)[0]["explained"]
    exact = {name: (one["value"], one["n"]) for name, one in explained["exact"].items()}
    assert exact == {
        "of_right": (pytest.approx(1 / 3), 3), "rate": (pytest.approx(2 / 5), 5), "accuracy_if": (0.5, 2),
        "accuracy_if_not": (pytest.approx(2 / 3), 3),
    }  # fmt: skip
    assert (explained["words"]["of_right"]["value"], explained["words"]["rate"]["n"]) == (pytest.approx(2 / 3), 5)


def test_questions_without_a_shown_clue_have_no_curve() -> None:
    none = {"order": [], "importance": [], "deletion": [0.4], "insertion": [0.4], "random": [0.4]}
    block, _ = found([recorded(0), recorded(1, record=none, clues=[])])
    assert block["comprehensiveness"]["mean"]["n"] == 1
    block, notes = found([recorded(1, record=none, clues=[])])
    assert "comprehensiveness" not in block
    assert notes["faithfulness.curves"] == NONE_SHOWN


def test_what_makes_a_clue_important_is_said() -> None:
    assert found([recorded(0)])[0]["importance"] == "gate"
    ungated = [{**RIGHT, "gate": None}]
    assert found([recorded(0, clues=ungated)])[0]["importance"] == "leave_one_out"


def test_what_found_nothing_is_absent_with_a_reason() -> None:
    block, notes = found([recorded(0, record={"swap": None, "edit": None, "noise": None}, true_clues=None)])
    assert not {"swap", "edit", "noise", "explained"} & set(block)
    assert {notes[f"faithfulness.{name}"] for name in ("swap", "edit", "noise", "explained")} < set(NOT_FOUND.values())
    block, notes = found([recorded(0)], extracts=False)
    assert "explained" not in block
    assert "oracle_uplift" not in block["inputs"]
    assert notes["faithfulness.explained"] == notes["faithfulness.oracle"] == NOT_EXTRACTED


def test_without_options_there_is_nothing() -> None:
    samples = [sample(0, faithfulness=None)]
    assert faithfulness(samples, extracts=True, resamples=100) == (None, {"faithfulness": NO_RECORDS})


# --------------------------------------------------------------------------------------- from models to pages


SETTINGS = {"questions_per_batch": 8, "bootstrap": 100, "faithfulness": True}
SECTIONS = {
    "evidence": {},
    "chain": {"reasoner": "clue_chain", "clue_filter": "keep_all"},
    "direct": NO_CLUES,
    "oracle": {"clue_extractor": "oracle", "clue_filter": "keep_all"},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_test(tmp_path_factory.mktemp("p") / "0123456789abcdef", recipe=recipe(), clips=6)


@pytest.fixture(scope="module", params=SECTIONS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("run")
    wanted = recipe(evaluate={**SETTINGS, "rows": ["own"]})
    model = model_folder(folder / "model", recipe=wanted, **SECTIONS[request.param])
    for out in (folder / "evaluation", folder / "again"):
        evaluate(wanted, model_folder=model, prepared=[prepared], out=out, progress=Silent, local=True)
    return request.param, folder


def test_a_second_run_has_the_same_bytes(run: tuple[str, Path]) -> None:
    _, folder = run
    for file in ("results.json", "samples.jsonl"):
        one, other = (folder / name / "fake-test" / file for name in ("evaluation", "again"))
        assert one.read_bytes() == other.read_bytes()


def test_the_block_follows_from_samples_jsonl(run: tuple[str, Path]) -> None:
    name, folder = run
    results = json.loads((folder / "evaluation/fake-test/results.json").read_text())
    samples = read_samples(folder / "evaluation/fake-test")
    extracts = name in ("evidence", "chain")
    again = summarise(samples, [], extracts=extracts, notes={}, resamples=100)
    assert again["faithfulness"] == results["faithfulness"]
    assert "oracle" in results["rows"] or name == "direct"  # measured though the recipe did not ask for it


def test_what_a_model_has_not_is_absent_and_said(run: tuple[str, Path]) -> None:
    name, folder = run
    results = json.loads((folder / "evaluation/fake-test/results.json").read_text())
    block, notes = results["faithfulness"], results["notes"]
    assert "text_only" in block["inputs"]
    assert ("clue_only" in block["inputs"]) is (name == "chain")
    assert ("frames_only" in block["inputs"]) is (name in ("chain", "direct"))
    assert ("comprehensiveness" in block) is (name != "direct")
    assert block.get("importance") == {"evidence": "gate", "chain": "leave_one_out", "oracle": "leave_one_out"}.get(
        name
    )
    for part in ("swap", "edit", "noise", "explained"):
        assert (part in block) != (f"faithfulness.{part}" in notes), part
    if name == "direct":
        assert notes["faithfulness.curves"] == READS_NONE


def test_report_and_terminal_show_every_headline(run: tuple[str, Path]) -> None:
    _, folder = run
    results = json.loads((folder / "evaluation/fake-test/results.json").read_text())
    page = build_report(folder).read_text()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(score_tables({"fake-test": results}))
    text = console.export_text()
    lines = list(headlines(results["faithfulness"]))
    assert len(lines) >= 2
    assert "fake-test: faithfulness" in page
    for words, _, estimate in lines:
        assert f'data-value="{estimate["value"]}"' in page
        assert words in text
        assert f"{100 * estimate['value']:.1f}" in text


def test_without_the_setting_nothing_is_added(tmp_path: Path, prepared: Path) -> None:
    plain = recipe(evaluate={**SETTINGS, "faithfulness": False})
    model = model_folder(tmp_path / "model", recipe=plain)
    found = evaluate(
        plain, model_folder=model, prepared=[prepared], out=tmp_path / "evaluation", progress=Silent, local=True
    )
    assert "faithfulness" not in found["fake-test"]
    assert not any("faithfulness" in line for line in read_samples(tmp_path / "evaluation/fake-test"))
    page = build_report(tmp_path).read_text()
    assert "<code>evaluate.faithfulness: true</code> measures it" in page
    assert "fake-test: faithfulness" not in page
