"""A stage in this process, with the real loop: what it writes, which checkpoint it hands on, and what validation counts."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from cluenet import fingerprint
from cluenet.errors import CheckpointError, DataError
from cluenet.folders import read_manifest
from cluenet.model.checkpoint import load_model
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import Answer
from cluenet.train import checkpoints, validation
from cluenet.train.batches import prefetch
from cluenet.train.export import save_final_model
from cluenet.train.group import Group
from helpers.models import base_folder, example
from helpers.prepared import prepared_set
from helpers.stages import Quiet, scores_of, train
from helpers.training import lines_of, recipe, weights_of


def test_the_stage_hands_on_the_checkpoint_with_the_best_validation(both):
    _, run, first, second, _ = both
    for stage, best in (("stage1", first), ("stage2", second)):
        lines = [line for line in lines_of(run) if line["stage"] == stage]
        scores = {line["step"]: line["validation/accuracy"] for line in lines if "validation/accuracy" in line}
        manifest = read_manifest(run / stage)
        top = min(step for step, score in scores.items() if score == max(scores.values()))
        assert best == run / stage / f"checkpoint-{top:06d}"
        assert (manifest["best"], manifest["best_value"]) == (best.name, max(scores.values()))
        assert set(scores) == set(range(2, len(lines) + 1, 2))
        assert {line["validation/questions"] for line in lines if "validation/questions" in line} == {8}
        assert json.loads((run / stage / "state.json").read_text())["best"] == best.name


def test_stage_2_starts_from_the_best_weights_of_stage_1(both, sets, tmp_path):
    settings, run, first, _, _ = both
    values = settings.to_dict()
    values["train"]["stage2"] |= {"steps": 1, "lr": 1e-30, "adamw_lr": 1e-30, "weight_decay": 0}
    still = train(Recipe.from_dict(values), sets, tmp_path, stage="stage2", init=first)
    before, after = (load_file(folder / checkpoints.WEIGHTS) for folder in (first, still))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_manifest(tmp_path / "stage2")["init"] == str(first / checkpoints.WEIGHTS)
    assert weights_of(first) != weights_of(run / "stage2" / read_manifest(run / "stage2")["best"])


def test_the_model_folder_holds_the_best_checkpoint(both, sets):
    settings, run, _, second, folder = both
    model = load_model(folder)
    weights = load_file(second / checkpoints.WEIGHTS)
    state = model.state_dict()
    assert set(weights) <= set(state)
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    card = (folder / "README.md").read_text()
    assert f"stage2/{second.name}" in card
    assert read_manifest(folder)["checkpoint"] == f"stage2/{second.name}"
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    save_final_model(settings, run=run, base=base_folder(), checkpoint=second, frame_policy={}, address="c" * 20)
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp  # found again
    prepared = PreparedSet(sets["validation"][0])
    clip = [(prepared.frames(key), prepared.examples_of(key)) for key in prepared.clip_keys[:2]]
    answers = model.predict(model.collate(clip, seed=0, shuffle_options=False))
    assert [answer.example_id for answer in answers] == [e.id for _, examples in clip for e in examples]


def test_an_untrained_model_can_be_saved_too(both, tmp_path):
    settings, *_ = both
    folder = save_final_model(
        settings, run=tmp_path, base=base_folder(), checkpoint=None, frame_policy={}, address="d" * 20
    )
    assert "| training | none |" in (folder / "README.md").read_text()
    load_model(folder)


def test_a_finished_stage_returns_at_once_and_another_recipe_is_refused(both, sets):
    settings, run, first, *_ = both
    size = (run / "logging.jsonl").stat().st_size
    assert train(settings, sets, run) == first
    assert (run / "logging.jsonl").stat().st_size == size
    with pytest.raises(CheckpointError, match=r"another recipe \(address a{20}, now z{20}\)"):
        train(settings, sets, run, address="z" * 20)


def test_a_changed_recipe_has_another_address_and_one_of_the_machine_has_not():
    base = recipe()
    addresses = [fingerprint.stage1(changed, "base", ["t"], ["v"]) for changed in (
        base, recipe(stage1={"lr": 0.01}), recipe(stage1={"losses": {"answer": 2}}), recipe(precision="bf16"))]  # fmt: skip
    assert len(set(addresses)) == 4
    for same in (recipe(workers=2), recipe(checkpoint={"every": 7}), recipe(stage2={"lr": 1e-3}), recipe(report_to=[])):
        assert fingerprint.stage1(same, "base", ["t"], ["v"]) == addresses[0]


def test_a_stage_without_steps_is_skipped(sets, tmp_path):
    settings = recipe(stage1={"steps": 0})
    assert train(settings, sets, tmp_path / "run") is None
    assert train(settings, sets, tmp_path / "run", init=Path("/somewhere")) == Path("/somewhere")
    assert not (tmp_path / "run").exists()


def test_the_progress_display_follows(sets, tmp_path):
    train(recipe(), sets, tmp_path)
    steps = [done for done, _ in Quiet.shown]
    assert steps == sorted(set(steps))  # a look shows the newest of what was written since the last one
    assert steps[-1] == 8
    assert Quiet.shown[-1][1]["loss"] == lines_of(tmp_path)[-1]["loss"]
    assert any("accuracy" in values for _, values in Quiet.shown)


def test_patience_stops_early_and_the_best_one_is_kept(sets, tmp_path, monkeypatch):
    scores_of(monkeypatch, [0.2, 0.6, 0.5, 0.6, 0.9])
    settings = recipe(stage1={"steps": 20}, validation={"every": 2, "patience": 2}, checkpoint={"every": 1, "keep": 1})
    best = train(settings, sets, tmp_path)
    manifest = read_manifest(tmp_path / "stage1")
    assert (best.name, manifest["steps"], manifest["stopped_early"]) == ("checkpoint-000004", 8, True)
    assert checkpoints.steps_of(tmp_path / "stage1") == [4, 8]


def test_only_the_newest_and_the_best_checkpoints_are_kept(sets, tmp_path, monkeypatch):
    scores_of(monkeypatch, [0.9, 0.1, 0.2, 0.3])
    train(recipe(validation={"every": 2}, checkpoint={"every": 1, "keep": 2}), sets, tmp_path)
    assert checkpoints.steps_of(tmp_path / "stage1") == [2, 7, 8]


def test_without_validation_the_last_checkpoint_is_handed_on(sets, tmp_path):
    best = train(recipe(stage1={"steps": 2}), {"train": sets["train"], "validation": []}, tmp_path)
    assert best.name == "checkpoint-000002"
    assert read_manifest(tmp_path / "stage1")["best_value"] is None


def test_bf16_trains(sets, tmp_path):
    train(recipe(stage1={"steps": 2}, precision="bf16"), sets, tmp_path / "bf16")
    train(recipe(stage1={"steps": 2}), sets, tmp_path / "fp32")
    half, full = (lines_of(tmp_path / name)[-1]["loss"] for name in ("bf16", "fp32"))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


def test_accumulation_changes_the_memory_and_not_the_mathematics(sets, tmp_path):
    """On fully labelled examples of one size the mean of the parts is the mean of the whole, but for the option order."""
    unshuffled = {"options": ("red", "blue", "green", "cyan"), "answer": 2}
    fixed = prepared_set(tmp_path / "fixed", clips=4, questions=(2,), make=lambda number: example(number, **unshuffled))
    losses = {"answer": 0, "chain": 1, "concept": 2, "attention": 0.5}  # these do not see the order of the options
    results = []
    for parts in (1, 2, 4):
        settings = recipe(stage1={"steps": 1, "accumulate": parts, "losses": losses, "optimizer": "adamw"})
        train(settings, {"train": [fixed, fixed], "validation": []}, tmp_path / str(parts))
        results.append(lines_of(tmp_path / str(parts))[0])
    for line in results[1:]:
        for name in ("concept", "attention"):
            assert line[name] == pytest.approx(results[0][name], rel=1e-4)
        assert line["labels/concept"] == results[0]["labels/concept"] == 8


def test_validation_counts_what_an_independent_count_finds(both, sets):
    """The line of the last step of stage 2, where the last checkpoint is that step's."""
    settings, run, *_ = both
    from cluenet.model.build import build_model

    model = build_model(settings.model, base_folder(), seed=0)
    checkpoints.load_weights(model, run / "stage2" / checkpoints.name_of(4) / checkpoints.WEIGHTS)
    prepared = PreparedSet(sets["validation"][0])
    keys = [prepared.clip_keys[i] for i in (0, 1, 3)]  # 3 of 5, evenly
    for row, name in (("own", "validation/accuracy"), ("oracle", "validation/oracle_accuracy")):
        right = []
        for key in keys:
            batch = model.collate([(prepared.frames(key), prepared.examples_of(key))], seed=0, shuffle_options=False)
            right += [
                answer.prediction == e.answer for e, answer in zip(batch.examples, model.predict(batch, clues=row))
            ]
        assert lines_of(run)[-1][name] == pytest.approx(sum(right) / len(right))


def test_validation_counts_right_answers_and_never_those_that_are_hidden(tmp_path):
    """Closed, hidden and open questions; `metrics.accuracy.is_right` says what right means."""
    made = [example(0), example(1, answer=None), example(2, options=(), answer="Red  Ball")]
    folder = prepared_set(tmp_path / "set", clips=1, questions=[3], make=lambda number: made[number])
    given = {"own": [0, 1, "red ball"], "oracle": [1, 1, "red balls"]}

    class Model:
        def collate(self, clips, **_):
            return SimpleNamespace(examples=[e for _, row in clips for e in row], to=lambda device: self.collate(clips))

        def predict_rows(self, batch, rows):
            return {row: [Answer(e.id, p, ()) for e, p in zip(batch.examples, given[row], strict=True)] for row in rows}

    validator = validation.Validator(
        [PreparedSet(folder)], ["accuracy", "oracle_accuracy"], Group(0, 1, "cpu"), max_clips=None, clips_per_batch=1
    )
    assert validator.count(Model()).tolist() == [2.0, 0.0, 2.0]


def test_prefetching_keeps_order_passes_errors_on_and_ends():
    assert list(prefetch(iter(range(50)))) == list(range(50))

    def failing():
        yield 1
        raise DataError("broken part")

    items = prefetch(failing())
    assert next(items) == 1
    with pytest.raises(DataError, match="broken part"):
        next(items)

    made: list[int] = []
    endless = prefetch((made.append(i) or i for i in iter(int, 1)), size=2)
    next(endless)
    endless.close()
    time.sleep(0.05)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    assert len(made) <= 5  # bounded
