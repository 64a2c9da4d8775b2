"""The report of a really evaluated run: parses, needs no network, says what results.json says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cluenet.errors import DataError
from cluenet.evaluate.evaluator import evaluate
from cluenet.folders import read_manifest, write_manifest
from cluenet.report.build import build_report
from cluenet.report.examples import choose, data_uri
from cluenet.report.figures import MOST_POINTS, Bar, average, bar, frame_numbers, panels, percent, ticks
from cluenet.report.sources import Evaluation, read_run
from helpers.evaluation import NO_CLUES, Silent, model_folder, prepared_test, recipe
from helpers.samples import sample

VOID = {"meta", "img", "br", "line", "circle", "polyline", "link", "input"}
LOADS = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class Page(HTMLParser):
    """Checks nesting, and collects attributes, text and the numbers in `data-value`."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> in {self.open[-3:]}, line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of tags whose attribute (class for cls) contains the wanted words."""
        names = {"cls": "class"}
        return [
            attrs for name, attrs in self.tags
            if name == tag and all(word in (attrs.get(names.get(key, key)) or "").split() for key, word in wanted.items())
        ]  # fmt: skip

    @property
    def values(self) -> list[float]:
        return [float(value) for _, attrs in self.tags if (value := attrs.get("data-value")) not in (None, "None")]


SETTINGS = {"questions_per_batch": 8, "bootstrap": 100, "shuffles": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a baseline, a store; the run's log has two stages."""
    folder, settings = tmp_path_factory.mktemp("report"), recipe(evaluate=SETTINGS)
    prepared = prepared_test(folder / "store/prepared/abc", recipe=settings, clips=9, lost=2)
    for name, section in (("run", {}), ("base", NO_CLUES)):
        model = model_folder(folder / name / "model", recipe=settings, **section)
        evaluate(
            settings,
            model_folder=model,
            prepared=[prepared],
            out=folder / name / "evaluation",
            progress=Silent,
            local=True,
        )
    (folder / "run/recipe.yaml").write_text(settings.to_yaml())
    (folder / "base/recipe.yaml").write_text(settings.to_yaml().replace("name: tiny", "name: base", 1))
    (folder / "run/logging.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _log()))
    return folder


def _log() -> list[dict]:
    lines = []
    for stage, steps in (("stage1", 300), ("stage2", 12)):
        for step in range(1, steps + 1):
            line = {"stage": stage, "step": step, "loss": 3 / step, "answer": 1.0, "concept": 2 / step, "lr": 0.01, "grad_norm": 1.0,
                    "labels/answer": 96, "seconds": 0.5, "samples_per_second": 190.0}  # fmt: skip
            scores = {"validation/accuracy": step / 1000, "validation/questions": 60} if step % 6 == 0 else {}
            lines.append({**line, **scores})
    return lines


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(build_report(folder / "run", folder / "base").read_text())


@pytest.fixture(scope="module")
def results(folder: Path) -> dict:
    return json.loads((folder / "run/evaluation/fake-test/results.json").read_text())


# ---------------------------------------------------------------------------------------------------- the page


def test_nothing_is_loaded_from_anywhere(folder: Path, page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in LOADS & set(attrs):
            assert (attrs[name] or "").startswith(("data:image/", "#")), (tag, attrs[name])
    text = (folder / "run/report.html").read_text()
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(text) < 15_000_000


def test_numbers_are_those_of_results_json(page: Page, results: dict) -> None:
    accuracy = results["accuracy"]
    expected = [accuracy["overall"], accuracy["all"], *(block["overall"] for block in results["rows"].values()),
                results["pointing"]["rate"], *(results["clues"]["stated"]["timed"][name] for name in ("precision", "recall", "f1"))]  # fmt: skip
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


def test_ten_examples_five_of_each(folder: Path, page: Page) -> None:
    shown = page.find("article", cls="example")
    assert len(shown) == 10
    by_id = {s["id"]: s for s in _samples(folder)}
    right = [by_id[attrs["data-id"]]["correct"] for attrs in shown]
    assert right == [True] * 5 + [False] * 5
    assert len(page.find("article", cls="right")) == len(page.find("article", cls="wrong")) == 5
    for attrs in shown:
        assert by_id[attrs["data-id"]]["question"] in page.text


def _samples(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run/evaluation/fake-test/samples.jsonl").read_text().splitlines()]


def test_examples_show_frames_boxes_and_clues(folder: Path, page: Page) -> None:
    images = page.find("img")
    assert len(images) == 10 * 4  # every clip has four frames
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in images)
    shown = {attrs["data-id"] for attrs in page.find("article", cls="example")}
    picked = [s for s in _samples(folder) if s["id"] in shown]
    stated = [clue for s in picked for clue in s["clues"]]
    assert len(page.find("i", cls="true")) == 2 * len(picked)  # one label each: its box, and its time line
    assert len(page.find("i", cls="kept")) == 2 * sum(clue["kept"] for clue in stated)
    for s in picked:
        for logprob in s["option_logprobs"]:
            assert f"{100 * np.exp(logprob):.1f} %" in page.text


def test_every_loss_term_of_every_stage_has_a_curve(page: Page) -> None:
    labels = [attrs["aria-label"] for attrs in page.find("svg")]
    assert labels == [
        f"{name} of {stage}"
        for stage in ("stage1", "stage2")
        for name in ("loss", "answer", "concept", "validation/accuracy")
    ]


def test_accounts_of_the_data(page: Page) -> None:
    assert "missing 2" in page.text
    assert "fake test" in page.text


def test_the_baseline_is_beside_it_with_paired_differences(page: Page, folder: Path) -> None:
    ours, theirs = ({s["id"]: s["correct"] for s in _of(folder / name)} for name in ("run", "base"))
    difference = 100 * (sum(ours.values()) - sum(theirs.values())) / len(ours)
    assert f"{difference:+.1f} points against base" in page.text
    alone = Page(build_report(folder / "run").read_text())
    assert "points against" not in alone.text


def _of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "evaluation/fake-test/samples.jsonl").read_text().splitlines()]


def test_the_same_run_gives_the_same_page(folder: Path) -> None:
    assert build_report(folder / "run").read_bytes() == build_report(folder / "run").read_bytes()


def test_words_of_a_dataset_cannot_break_the_page(folder: Path, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & \"quotes\""
    target = tmp_path / "run/evaluation/fake-test"
    target.mkdir(parents=True)
    source = folder / "run/evaluation/fake-test"
    lines = [{**s, "question": evil, "type": evil, "chain": evil} for s in _samples(folder)]
    (target / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (target / "results.json").write_text((source / "results.json").read_text())
    write_manifest(target, read_manifest(source))
    page = Page(build_report(tmp_path / "run").read_text())
    assert page.find("script") == []
    assert evil in page.text


# ---------------------------------------------------------------------------------------- what may be missing


def test_a_model_without_clues(folder: Path) -> None:
    page = Page(build_report(folder / "base").read_text())
    assert "the model reads no clues" in page.text
    assert "Nothing was trained in this run." in page.text
    assert page.find("svg") == []
    assert len(page.find("article", cls="example")) == 10


def test_a_deleted_store_is_said_and_the_rest_is_shown(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "run/evaluation/fake-test"
    target.mkdir(parents=True)
    source = folder / "run/evaluation/fake-test"
    for name in ("samples.jsonl", "results.json"):
        (target / name).write_text((source / name).read_text())
    write_manifest(target, {**read_manifest(source), "prepared": str(tmp_path / "gone")})
    page = Page(build_report(tmp_path / "run").read_text())
    assert f"No frames: {tmp_path / 'gone'}: the folder is missing" in page.text
    assert (len(page.find("img")), len(page.find("article", cls="example"))) == (0, 10)


def test_a_baseline_with_other_questions_is_shown_without_differences(folder: Path, tmp_path: Path) -> None:
    settings = recipe(evaluate=SETTINGS)
    prepared = prepared_test(tmp_path / "other", recipe=settings, clips=2)
    evaluate(
        settings,
        model_folder=folder / "base/model",
        prepared=[prepared],
        out=tmp_path / "base/evaluation",
        progress=Silent,
        local=True,
    )
    page = Page(build_report(folder / "run", tmp_path / "base").read_text())
    assert "No differences: the two runs did not answer the same questions" in page.text
    ood = prepared_test(tmp_path / "ood", recipe=settings, clips=2, split="ood")
    evaluate(
        settings,
        model_folder=folder / "base/model",
        prepared=[ood],
        out=tmp_path / "third/evaluation",
        progress=Silent,
        local=True,
    )
    page = Page(build_report(folder / "run", tmp_path / "third").read_text())
    assert "was not evaluated on this test set" in page.text


def test_a_run_that_is_only_trained(tmp_path: Path) -> None:
    (tmp_path / "logging.jsonl").write_text(json.dumps(_log()[0]) + "\n" + '{"stage": "stage1", "st')
    page = Page(build_report(tmp_path).read_text())
    assert "Not evaluated." in page.text
    assert len(page.find("svg")) == 3


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


# ------------------------------------------------------------------------------------------- examples, figures


def _evaluation(name: str, rights: str, **changes) -> Evaluation:
    lines = [
        sample(i, prediction=0 if r == "r" else 1, answer=None if r == "?" else 0, **changes)
        for i, r in enumerate(rights)
    ]
    return Evaluation(name, {}, lines, {})


def test_fewer_of_one_kind_are_made_up_by_the_other() -> None:
    def count(rights: str) -> tuple[int, int]:
        chosen = [item.sample["correct"] for item in choose([_evaluation("a", rights)])]
        return chosen.count(True), chosen.count(False)

    assert count("r" * 20 + "w" * 20) == (5, 5)
    assert count("r" * 20 + "ww" + "???") == (8, 2)
    assert count("r" + "w" * 20) == (1, 9)
    assert count("rrw") == (2, 1)
    assert count("?") == (0, 0)


def test_every_type_and_set_has_its_turn_and_the_choice_repeats() -> None:
    sets = [_evaluation("a", "r" * 30 + "w" * 30, type="who"), _evaluation("b", "rw", type="count")]
    chosen = choose(sets)
    assert [(item.evaluation.name, item.sample["correct"]) for item in chosen].count(("b", True)) == 1
    assert [item.sample["id"] for item in chosen] == [item.sample["id"] for item in choose(sets)]
    moved = Evaluation("a", {}, sets[0].samples[::-1], {})
    assert [item.sample["id"] for item in choose([moved, sets[1]])] == [item.sample["id"] for item in chosen]


def test_pictures_are_small_and_their_pixels_right() -> None:
    import base64
    import io

    from PIL import Image

    frame = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    kind, _, code = data_uri(frame).partition(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))), frame)
    kind, _, code = data_uri(np.zeros((1080, 1920, 3), np.uint8)).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(code))).size == (200, 113)


def test_long_curves_are_averaged_and_keep_their_mean() -> None:
    points = [(float(step), float(step % 7)) for step in range(1, 1201)]
    few = average(points, MOST_POINTS)
    assert len(few) == 240
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))
    assert average(points[:3], MOST_POINTS) == points[:3]


def test_a_curve_spans_its_panel() -> None:
    (curve,) = panels([{"stage": "s", "step": step, "loss": float(10 - step)} for step in (1, 2, 3)])["s"]
    assert curve.line == "40.0,8.0 176.0,78.0 312.0,148.0"
    assert (curve.first, curve.last, len(curve.dots)) == (9.0, 7.0, 3)
    (long,) = panels([{"stage": "s", "step": step, "loss": 1.0 * step} for step in range(1, 1201)])["s"]
    assert (long.averaged, len(long.line.split()), long.dots) == (5, 240, ())
    assert "1000" in [tick.label for tick in long.x_ticks]
    (flat,) = panels([{"stage": "s", "step": 1, "loss": 1.0}])["s"]
    assert flat.line == "176.0,78.0"
    assert [tick.label for tick in (*flat.x_ticks, *flat.y_ticks)] == ["1", "1"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (1, 400, [200, 400]),
        (0.3, 3.1, [1, 2, 3]),
        (-0.5, 0.5, [-0.5, 0, 0.5]),
        (7e-5, 9e-5, [7e-5, 8e-5, 9e-5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(expected)


def test_bars_stay_on_their_track() -> None:
    assert bar(1, 2, 0, 4) == Bar(25.0, 25.0)
    assert bar(4, 4, 0, 4) == Bar(98.5, 1.5)  # an instant at the end is still seen
    assert bar(-1, 9, 0, 4) == Bar(0.0, 100.0)
    assert percent(1.5) == 100.0
    assert (frame_numbers(3, 8), frame_numbers(16, 8)) == ([0, 1, 2], [0, 2, 4, 6, 9, 11, 13, 15])
