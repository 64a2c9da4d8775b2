"""Evaluation in this process, with the real tiny model: files, bytes, addresses, frame policies, zero-shot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluenet.contracts import Dataset
from cluenet.errors import CheckpointError, DataError
from cluenet.evaluate.batches import Part, plan_batches
from cluenet.evaluate.benchmark import NO_METRICS
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.reliability import NO_YES_NO
from cluenet.evaluate.results import NO_CLUES as WHY_NO_CLUES
from cluenet.evaluate.results import NO_LABELS
from cluenet.evaluate.sets import model_address
from cluenet.evaluate.zero_shot import zero_shot_folder
from cluenet.folders import read_manifest, write_manifest
from cluenet.records import Clue, Example
from cluenet.registry import register
from cluenet.verdicts import accuracy_share
from helpers.evaluation import NO_CLUES, Silent, model_folder, prepared_test, recipe
from helpers.models import base_folder, example

SETTINGS = {"questions_per_batch": 5, "bootstrap": 100}
STORED = {**SETTINGS, "shuffles": 0}
RECIPE = recipe(evaluate=SETTINGS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("m") / "model", recipe=RECIPE)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_test(tmp_path_factory.mktemp("p") / "0123456789abcdef", recipe=RECIPE, lost=2)


def _evaluate(model: Path, *prepared: Path, out: Path, recipe=RECIPE, **options):
    return evaluate(recipe, model_folder=model, prepared=prepared, out=out, progress=Silent, local=True, **options)


# --------------------------------------------------------------------------------------------------- batches


def test_batches_hold_whole_clips_and_at_most_so_many_questions() -> None:
    sizes = [("a", 2), ("b", 3), ("c", 1), ("d", 5), ("e", 12), ("f", 1)]
    batches = list(plan_batches(sizes, 5))
    assert batches == [
        [Part("a", 0, 2), Part("b", 0, 3)], [Part("c", 0, 1)], [Part("d", 0, 5)], [Part("e", 0, 5)], [Part("e", 5, 10)],
        [Part("e", 10, 12), Part("f", 0, 1)],
    ]  # fmt: skip
    assert list(plan_batches([], 5)) == []


# ----------------------------------------------------------------------------------------------------- files


def test_results_follow_from_the_samples(model: Path, prepared: Path, tmp_path: Path) -> None:
    found = _evaluate(model, prepared, out=tmp_path)
    assert list(found) == ["fake-test"]
    results, samples = found["fake-test"], read_samples(tmp_path / "fake-test")
    assert results == json.loads((tmp_path / "fake-test" / "results.json").read_text())
    assert (results["dataset"], results["split"]) == ("fake", "test")
    assert [sample["id"] for sample in samples] == sorted(sample["id"] for sample in samples)
    assert len(samples) == results["counts"]["asked"] == 12
    assert results["counts"]["quarantined"] == 2
    assert results["accuracy"]["overall"]["value"] == pytest.approx(sum(s["correct"] for s in samples) / 12, abs=1e-6)
    assert results["accuracy"]["all"]["value"] == pytest.approx(sum(s["correct"] for s in samples) / 14, abs=1e-6)
    assert list(results["rows"]) == ["own", "oracle", "none", "text"]
    assert results["clues"]["stated"]["exact"]["true"] == 12
    assert results["pointing"]["rate"]["n"] == sum(len(s["clues"]) for s in samples)
    assert results["tokens"]["seen"] == 0  # the evidence reasoner sees no video
    assert Silent.last.done == Silent.last.total == 12


def test_a_benchmark_brings_its_own_metrics_and_result_files(
    model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fake(Dataset):
        @classmethod
        def measures(cls, verdicts):
            return [accuracy_share("acc", verdicts)]

        @classmethod
        def result_files(cls, verdicts):
            return {"answers.json": json.dumps({one.id: one.prediction for one in verdicts})}

    monkeypatch.setitem(register.dataset._classes, "fake", Fake)
    found = _evaluate(model, prepared, out=tmp_path)["fake-test"]
    samples = read_samples(tmp_path / "fake-test")
    right = sum(sample["correct"] for sample in samples)
    numbers = {name: (block["acc"]["value"], block["acc"]["n"]) for name, block in found["benchmark"].items()}
    assert numbers == {
        "all": (pytest.approx(right / 14, abs=1e-6), 14),
        "answered": (pytest.approx(right / 12, abs=1e-6), 12),
    }
    answers = json.loads((tmp_path / "fake-test" / "official" / "answers.json").read_text())
    lost = dict.fromkeys(set(answers) - {sample["id"] for sample in samples})
    assert answers == {sample["id"]: sample["prediction"] for sample in samples} | lost
    assert len(lost) == 2


def test_predictions_are_the_models_own(model: Path, prepared: Path, tmp_path: Path) -> None:
    """One question at a time gives what batches gave, apart from rounding of padded sums."""
    from cluenet.model.checkpoint import load_model
    from cluenet.prepared import PreparedSet

    _evaluate(model, prepared, out=tmp_path, recipe=recipe(evaluate=STORED))
    by_id = {sample["id"]: sample for sample in read_samples(tmp_path / "fake-test")}
    network, data = load_model(model), PreparedSet(prepared)
    for clip in data.clip_keys:
        for item in data.examples_of(clip):
            batch = network.collate([(data.frames(clip), [item])], seed=0, shuffle_options=False)
            (answer,) = network.predict(batch)
            assert answer.option_logprobs == pytest.approx(by_id[item.id]["option_logprobs"], abs=2e-5)
            assert [clue.text for clue in answer.clues] == [clue["text"] for clue in by_id[item.id]["clues"]]


def test_labels_reach_no_answer_but_that_of_the_oracle(model: Path, tmp_path: Path) -> None:
    """Ground-truth clues of a test set, such as STAR's situations, must not enter the prompt."""

    def relabelled(number: int) -> Example:
        clue = Clue("green stops", 0.0, 0.5, concepts={"who": "green", "what": "stops"})
        return replace(example(number), clues=(clue,), chain="Green stops.", distractors=(), meta={"answer": "green"})

    found = []
    for make in (example, relabelled):
        prepared = prepared_test(tmp_path / make.__name__ / "0123", recipe=RECIPE, make=make)
        _evaluate(model, prepared, out=tmp_path / make.__name__)
        found.append(read_samples(tmp_path / make.__name__ / "fake-test"))
    for one, other in zip(*found, strict=True):
        assert one["true_clues"] != other["true_clues"]
        for name in ("prediction", "option_logprobs"):
            assert one[name] == other[name]
            assert all(one["rows"][row][name] == other["rows"][row][name] for row in ("none", "text"))
        assert [clue["words"] for clue in one["clues"]] == [clue["words"] for clue in other["clues"]]
    assert any(one["rows"]["oracle"] != other["rows"]["oracle"] for one, other in zip(*found))


def test_a_second_run_gives_the_same_bytes(model: Path, prepared: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        _evaluate(model, prepared, out=tmp_path / name)
    for file in ("results.json", "samples.jsonl"):
        assert (tmp_path / "one/fake-test" / file).read_bytes() == (tmp_path / "two/fake-test" / file).read_bytes()


def test_a_finished_set_is_read_and_a_changed_recipe_or_model_is_not(
    model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _evaluate(model, prepared, out=tmp_path)
    monkeypatch.setattr("cluenet.evaluate.evaluator.BatchEvaluator", lambda *_, **__: pytest.fail("evaluated again"))
    assert _evaluate(model, prepared, out=tmp_path) == first
    with pytest.raises(pytest.fail.Exception, match="evaluated again"):
        _evaluate(model, prepared, out=tmp_path, recipe=recipe(evaluate={**SETTINGS, "bootstrap": 101}))
    other = model_folder(tmp_path / "other", recipe=RECIPE, seed=1)
    assert model_address(other) != model_address(model)
    with pytest.raises(pytest.fail.Exception, match="evaluated again"):
        _evaluate(other, prepared, out=tmp_path)


def test_only_what_is_not_finished_is_done(model: Path, prepared: Path, tmp_path: Path) -> None:
    _evaluate(model, prepared, out=tmp_path)
    before = (tmp_path / "fake-test/manifest.json").stat().st_mtime_ns
    other = prepared_test(tmp_path / "other", recipe=RECIPE, clips=2, split="ood")
    assert list(_evaluate(model, prepared, other, out=tmp_path)) == ["fake-test", "fake-ood"]
    assert Silent.last.total == 5
    assert (tmp_path / "fake-test/manifest.json").stat().st_mtime_ns == before


def test_the_address_of_a_model_is_its_manifests_or_its_contents(model: Path, tmp_path: Path) -> None:
    copy = model_folder(tmp_path / "copy", recipe=RECIPE)
    assert model_address(copy) == model_address(model)
    write_manifest(copy, {"address": "abc"})
    assert model_address(copy) == "abc"


def test_two_sets_of_one_name_are_told_apart_and_one_given_twice_is_one(model: Path, tmp_path: Path) -> None:
    sets = [
        prepared_test(tmp_path / name, recipe=RECIPE, clips=1, seed=i)
        for i, name in enumerate(("aaaabbbb1", "ccccdddd2"))
    ]
    sets.append(prepared_test(tmp_path / "x", recipe=RECIPE, clips=1, split="ood"))
    assert list(_evaluate(model, *sets, sets[0], out=tmp_path / "out")) == [
        "fake-test-aaaabbbb",
        "fake-test-ccccdddd",
        "fake-ood",
    ]


# ---------------------------------------------------------------------------------------- what a model cannot show


def test_a_model_without_clues_has_only_its_own_row_and_says_why(prepared: Path, tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", recipe=RECIPE, **NO_CLUES)
    results = _evaluate(model, prepared, out=tmp_path / "out")["fake-test"]
    assert list(results["rows"]) == ["own"]
    assert results["clues"] is None
    assert results["notes"] == {
        **dict.fromkeys(("rows.oracle", "rows.none", "rows.text", "clues", "pointing"), WHY_NO_CLUES),
        "hallucination": NO_YES_NO,
        "benchmark": NO_METRICS,
    }
    assert results["tokens"]["seen"] == results["tokens"]["visual"] == 12
    assert read_samples(tmp_path / "out/fake-test")[0]["rows"] == {}


def test_a_set_without_labels_has_no_oracle_row(model: Path, tmp_path: Path) -> None:
    def unlabelled(number: int) -> Example:
        return replace(example(number), clues=None, chain=None)

    prepared = prepared_test(tmp_path / "p", recipe=RECIPE, clips=2, make=unlabelled, labels={"answer": 5, "clues": 0})
    results = _evaluate(model, prepared, out=tmp_path / "out")["fake-test"]
    assert list(results["rows"]) == ["own", "none", "text"]
    assert results["notes"]["rows.oracle"] == results["notes"]["clues"] == NO_LABELS


def test_open_and_unanswered_questions(model: Path, tmp_path: Path) -> None:
    def mixed(number: int) -> Example:
        if number % 3 == 0:
            return replace(example(number), options=(), answer="red square", type="open")
        return example(number) if number % 3 == 1 else replace(example(number), answer=None)

    prepared = prepared_test(tmp_path / "p", recipe=RECIPE, clips=3, questions=(3,), make=mixed)
    results = _evaluate(model, prepared, out=tmp_path / "out")["fake-test"]
    assert (results["counts"]["asked"], results["counts"]["answered"]) == (9, 6)
    assert set(results["accuracy"]["by_type"]) == {"open", "who"}
    assert results["chance"] == pytest.approx((1 / 4 + 1 / 3 + 1 / 4 + 3 * 0) / 6, abs=1e-6)
    answers = {sample["id"]: sample["prediction"] for sample in read_samples(tmp_path / "out/fake-test")}
    assert isinstance(answers["p/0"], str)
    assert isinstance(answers["p/1"], int)


def test_an_open_question_without_a_public_answer_is_written_and_counts_nowhere(model: Path, tmp_path: Path) -> None:
    def described(number: int) -> Example:
        return replace(example(number), options=(), answer=None) if number == 0 else example(number)

    prepared = prepared_test(tmp_path / "p", recipe=RECIPE, clips=2, make=described)
    results = _evaluate(model, prepared, out=tmp_path / "out")["fake-test"]
    assert (results["counts"]["asked"], results["counts"]["answered"]) == (5, 4)
    written, *others = read_samples(tmp_path / "out/fake-test")
    assert (type(written["prediction"]), written["correct"], written["target"]) == (str, None, None)
    assert results["accuracy"]["overall"]["value"] == pytest.approx(sum(one["correct"] for one in others) / 4, abs=1e-6)


# ---------------------------------------------------------------------------------------------------- errors


def test_other_frames_than_in_training_are_refused_and_named(model: Path, tmp_path: Path) -> None:
    other = recipe(
        evaluate=SETTINGS, data={"size": {"height": 32, "width": 64}, "sampler": {"name": "uniform", "frames": 8}}
    )
    prepared = prepared_test(tmp_path / "p", recipe=other, clips=1)
    with pytest.raises(CheckpointError) as error:
        _evaluate(model, prepared, out=tmp_path / "out")
    assert 'data.sampler: the model was trained with {"name": "uniform", "frames": 4}, prepared with' in str(
        error.value
    )
    assert "data.size" in str(error.value)
    assert "data.codec" not in str(error.value)
    results = _evaluate(model, prepared, out=tmp_path / "out", allow_policy_mismatch=True)
    assert results["fake-test"]["counts"]["asked"] == 2
    manifest = read_manifest(tmp_path / "out/fake-test")
    assert manifest["policy_fingerprint"] != manifest["policy_of_model"]


def test_another_reader_gives_the_same_frames_and_is_allowed(model: Path, tmp_path: Path) -> None:
    data = {
        "reader": "pyav",
        "fallback_reader": None,
        "size": {"height": 32, "width": 48},
        "sampler": {"name": "uniform", "frames": 4},
    }
    prepared = prepared_test(tmp_path / "p", recipe=recipe(data=data), clips=1)
    assert _evaluate(model, prepared, out=tmp_path / "out")["fake-test"]["counts"]["asked"] == 2


def test_a_damaged_set_is_named(model: Path, tmp_path: Path) -> None:
    damaged = prepared_test(tmp_path / "p", recipe=RECIPE, clips=2)
    part = damaged / "clips/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DataError, match=r"part-00000\.parquet: missing or damaged"):
        _evaluate(model, damaged, out=tmp_path / "out")
    assert not (tmp_path / "out/fake-test").exists()


def test_no_test_set_no_model_and_a_damaged_result(model: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test is empty"):
        _evaluate(model, out=tmp_path)
    with pytest.raises(CheckpointError, match="not a ClueNet model folder"):
        _evaluate(tmp_path / "nowhere", prepared, out=tmp_path)
    _evaluate(model, prepared, out=tmp_path)
    (tmp_path / "fake-test/results.json").write_text("{")
    with pytest.raises(DataError, match=r"results\.json: cannot be read: .* evaluate again"):
        _evaluate(model, prepared, out=tmp_path)


# -------------------------------------------------------------------------------------------------- zero-shot


def test_a_plain_checkpoint_is_evaluated_without_training(prepared: Path, tmp_path: Path) -> None:
    folder = zero_shot_folder(RECIPE, base_folder(), tmp_path / "model")
    results = _evaluate(folder, prepared, out=tmp_path / "out")["fake-test"]
    assert list(results["rows"]) == ["own"]
    assert results["counts"]["answered"] == 12
    written = (folder / "cluenet.safetensors").stat().st_mtime_ns
    assert zero_shot_folder(RECIPE, base_folder(), tmp_path / "model") == folder
    assert (folder / "cluenet.safetensors").stat().st_mtime_ns == written
    changed = recipe(data={"size": {"height": 32, "width": 48}, "sampler": {"name": "uniform", "frames": 8}})
    zero_shot_folder(changed, base_folder(), tmp_path / "model")
    assert json.loads((folder / "frame_policy.json").read_text())["sampler"]["frames"] == 8


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(CheckpointError, match="not a checkpoint in Hugging Face layout"):
        zero_shot_folder(RECIPE, tmp_path / "base", tmp_path / "model")
    assert not (tmp_path / "model" / "manifest.json").exists()
