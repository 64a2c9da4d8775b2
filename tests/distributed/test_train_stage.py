"""Stages in this process, with the real loop: what they write, choose, refuse and resume."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluenet import fingerprint
from cluenet.config.train import Losses
from cluenet.errors import CheckpointError, CluenetError, DataError, RecipeError, StorageError, SupervisionError
from cluenet.folders import finished, read_manifest
from cluenet.model.checkpoint import load_model
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.records import Answer
from cluenet.train import checkpoints, validation
from cluenet.train.batches import TrainingBatches, prefetch
from cluenet.train.export import save_final_model
from cluenet.train.group import Group
from cluenet.train.trackers import Follower, JsonLines, read_lines
from cluenet.train.trainer import train_stage
from helpers.models import base_folder, example
from helpers.prepared import prepared_set
from helpers.training import lines_of, optimizer_of, recipe, weights_of


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=7), prepared_set(folder / "b", clips=4, seed=50)]
    return {"train": train, "validation": [prepared_set(folder / "v", clips=5, seed=100)]}


class Quiet:
    """A progress display that remembers what it was shown."""

    shown: list[tuple[int, dict[str, float]]]
    total: int

    def __init__(self, title, total, unit):
        type(self).shown, type(self).total, self.title = [], total, title

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, done, **values):
        self.shown.append((done, values))


def train(settings: Recipe, sets, run: Path, *, stage="stage1", init=None, address="a" * 20, said=None, pause_at=None):
    return train_stage(
        settings, stage, run=run, base=base_folder(), prepared=sets, init=init, address=address, progress=Quiet,
        say=[].append if said is None else said.append, local=True, pause_at=pause_at,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory, sets):
    """A run of both stages and its final model."""
    run = tmp_path_factory.mktemp("run")
    settings = recipe(stage1={"steps": 6}, stage2={"steps": 4, "accumulate": 2}, validation={"every": 2})
    first = train(settings, sets, run)
    second = train(settings, sets, run, stage="stage2", init=first, address="b" * 20)
    policy = {"sampler": {"name": "uniform"}}
    model = save_final_model(
        settings, run=run, base=base_folder(), checkpoint=second, frame_policy=policy, address="c" * 20
    )
    return settings, run, first, second, model


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


def test_the_log_has_a_line_per_step_of_each_stage(both):
    _, run, *_ = both
    lines = read_lines(run / "logging.jsonl")
    assert [(line["stage"], line["step"]) for line in lines] == [("stage1", i) for i in range(1, 7)] + [
        ("stage2", i) for i in range(1, 5)
    ]
    for line in lines:
        terms = Losses(answer=1, chain=1 if line["stage"] == "stage1" else 0.5, concept=2, attention=0.5, filter=0.2)
        weights = terms.model_dump() if line["stage"] == "stage2" else {**terms.model_dump(), "filter": 0}
        wanted = sum(weight * line[name] for name, weight in weights.items() if weight and name in line)
        assert line["samples_per_second"] == pytest.approx(8 / line["seconds"], rel=0.05)
        if line["stage"] == "stage1":
            assert line["loss"] == pytest.approx(wanted, rel=1e-4)
            assert line["labels/answer"] == line["labels/concept"] == 8
    assert lines[0]["lr"] < lines[1]["lr"] > lines[5]["lr"]
    assert read_manifest(run / "stage1")["labels"] == {"answer": 48, "chain": 48, "concept": 48, "attention": 48}


def test_what_a_step_waited_for_its_batch_is_in_the_log(sets, tmp_path, monkeypatch):
    read = TrainingBatches._clip

    def slowly(*args):
        time.sleep(0.1)
        return read(*args)

    monkeypatch.setattr(TrainingBatches, "_clip", slowly)
    train(recipe(stage1={"steps": 1}, stage2={"steps": 1}), sets, tmp_path)
    (line,) = read_lines(tmp_path / "logging.jsonl")
    assert line["data_seconds"] >= 0.4  # four clips, and nothing was made before


def test_tensorboard_has_every_number_of_the_log(both):
    _, run, *_ = both
    events = EventAccumulator(str(run / "tensorboard" / "stage1"))
    events.Reload()
    lines = [line for line in read_lines(run / "logging.jsonl") if line["stage"] == "stage1"]
    for name in ("loss", "answer", "chain", "concept", "attention", "lr", "validation/accuracy"):
        scalars = [(scalar.step, scalar.value) for scalar in events.Scalars(name)]
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert [step for step, _ in scalars] == [step for step, _ in logged]
        assert [value for _, value in scalars] == pytest.approx([value for _, value in logged], rel=1e-5)


def test_without_trackers_there_is_no_tensorboard(sets, tmp_path):
    train(recipe(stage1={"steps": 1}, report_to=[]), sets, tmp_path)
    assert not (tmp_path / "tensorboard").exists()


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


def test_an_unfinished_stage_of_another_recipe_is_refused(sets, tmp_path):
    interrupted(recipe(checkpoint={"every": 1}), sets, tmp_path, after=2)
    with pytest.raises(CheckpointError, match="made by another recipe"):
        train(recipe(), sets, tmp_path, address="z" * 20)


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


# ------------------------------------------------------------------------------------------- stopping, resuming


def interrupted(settings, sets, run, *, after, stage="stage1"):
    """Ctrl-C in the step after `after`."""
    original = JsonLines.write

    def write(self, line):
        if line["step"] > after:
            raise KeyboardInterrupt
        original(self, line)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(JsonLines, "write", write)
        train(settings, sets, run, stage=stage)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_ctrl_c_leaves_a_run_that_resumes_exactly(sets, tmp_path, stage):
    settings = recipe(stage1={"steps": 6}, stage2={"steps": 6})
    whole = train(settings, sets, tmp_path / "whole", stage=stage)
    interrupted(
        settings, sets, tmp_path / "cut", after=4, stage=stage
    )  # checkpoints are those of steps 3 and, if best, 4
    assert not finished(tmp_path / "cut" / stage)
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    cut = train(settings, sets, tmp_path / "cut", stage=stage)
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")
    assert cut.name == whole.name
    assert weights_of(cut) == weights_of(whole)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_paused_stage_goes_on_to_the_same_weights(sets, tmp_path, stage):
    """Pauses at a checkpoint, at none, and after a validation; the last step is no pause."""
    settings = recipe(stage1={"steps": 8}, stage2={"steps": 8}, validation={"every": 4}, report_to=[])
    whole = train(settings, sets, tmp_path / "whole", stage=stage)
    for pause in (3, 5, 6):
        assert train(settings, sets, tmp_path / "cut", stage=stage, pause_at=pause) is None
        assert not finished(tmp_path / "cut" / stage)
        assert (checkpoints.steps_of(tmp_path / "cut" / stage)[-1], len(lines_of(tmp_path / "cut"))) == (pause, pause)
        assert (Quiet.total, Quiet.shown[-1][0]) == (pause, pause)
    cut = train(settings, sets, tmp_path / "cut", stage=stage, pause_at=8)
    assert cut.name == whole.name
    last = [tmp_path / run / stage / "checkpoint-000008" for run in ("whole", "cut")]
    assert weights_of(last[0]) == weights_of(last[1])
    assert optimizer_of(last[0]) == optimizer_of(last[1])
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "cut")


def test_a_stage_that_ends_before_its_pause_is_finished(sets, tmp_path, monkeypatch):
    scores_of(monkeypatch, [0.2, 0.9])
    settings = recipe(stage1={"steps": 20, "until": 0.8}, validation={"every": 2})
    best = train(settings, sets, tmp_path, pause_at=6)
    assert (best.name, read_manifest(tmp_path / "stage1")["steps"]) == ("checkpoint-000004", 4)


def test_the_progress_display_follows(sets, tmp_path):
    train(recipe(), sets, tmp_path)
    steps = [done for done, _ in Quiet.shown]
    assert steps == sorted(set(steps))  # a look shows the newest of what was written since the last one
    assert steps[-1] == 8
    assert Quiet.shown[-1][1]["loss"] == lines_of(tmp_path)[-1]["loss"]
    assert any("accuracy" in values for _, values in Quiet.shown)


def scores_of(monkeypatch, values):
    """Validation that gives these accuracies, one after another."""
    given = iter(values)
    answers = {"accuracy": 0.0, "oracle_accuracy": 0.0, "questions": 1}
    monkeypatch.setattr(
        validation.Validator, "scores", lambda self, counts: {**answers, "accuracy": next(given)}, raising=True
    )


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


# ------------------------------------------------------------------------------------------------------- refusals


def test_nothing_to_learn_from_is_said_before_the_model_is_built(tmp_path, sets, monkeypatch):
    bare = prepared_set(tmp_path / "bare", clips=4, labels={"answer": 0, "chain": 0, "clues": 0, "boxes": 0})
    monkeypatch.setattr("cluenet.train.loop.build_model", lambda *_, **__: pytest.fail("a worker was started"))
    with pytest.raises(SupervisionError, match="stage1 has nothing to learn from"):
        train(recipe(), {**sets, "train": [bare, bare]}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_taught_is_said(sets, tmp_path):
    said: list[str] = []
    train(recipe(stage1={"steps": 1}), sets, tmp_path, said=said)
    assert said[0] == "stage1: answer x 1: 27 of 27 questions have labels"


def test_an_unknown_metric_is_refused(sets, tmp_path):
    with pytest.raises(
        RecipeError, match=r"train\.validation\.metric: 'acuracy' is not measured.*Did you mean 'accuracy'"
    ):
        train(recipe(validation={"metric": "acuracy"}), sets, tmp_path)


def test_a_loss_that_is_no_number_stops_the_stage(sets, tmp_path):
    with pytest.raises(
        CluenetError, match=r"stage1: \w+ is nan at step \d+; .* Lower train\.stage1\.lr \(now 1e\+30\)"
    ):
        train(recipe(stage1={"lr": 1e30, "optimizer": "adamw", "warmup_steps": 0}), sets, tmp_path)
    assert all(line["loss"] == line["loss"] for line in read_lines(tmp_path / "logging.jsonl"))


def test_a_damaged_prepared_set_is_named(tmp_path, sets):
    damaged = prepared_set(tmp_path / "damaged", clips=3)
    (damaged / "clips" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"damaged/clips/part-00000\.parquet"):
        train(recipe(), {**sets, "train": [damaged, sets["train"][1]]}, tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "how"), [(checkpoints.WEIGHTS, "missing"), (checkpoints.OPTIMIZER, "cut"), (checkpoints.STATE, "cut")]
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(sets, tmp_path, file, how):
    settings = recipe(checkpoint={"every": 2, "keep": 2})
    interrupted(settings, sets, tmp_path, after=4)
    victim = tmp_path / "stage1" / "checkpoint-000004" / file
    if how == "cut":
        victim.write_bytes(victim.read_bytes()[:50])
    else:
        victim.unlink()
    with pytest.raises(CheckpointError, match=rf"checkpoint-000004/{file}.*Delete .*checkpoint-000004 and run"):
        train(settings, sets, tmp_path)
    for path in victim.parent.iterdir():
        path.unlink()
    victim.parent.rmdir()
    train(settings, sets, tmp_path)
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 9))


def test_weights_of_another_model_are_refused(sets, tmp_path, both):
    _, _, first, *_ = both
    values = recipe().to_dict()
    values["model"]["clue_extractor"]["slots"] = 3
    with pytest.raises(CheckpointError, match="does not fit the model of the recipe"):
        train(Recipe.from_dict(values), sets, tmp_path, init=first)


@pytest.mark.parametrize("target", ["save_file", "torch.save"])
def test_a_full_disk_is_said_and_leaves_no_half_checkpoint(sets, tmp_path, monkeypatch, target):
    def full(*_):
        raise RuntimeError(
            "[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0: No space left on device"
        )

    monkeypatch.setattr(f"cluenet.train.checkpoints.{target}", full)
    with pytest.raises(
        StorageError, match=r"checkpoint-000003: the disk is full.*run the same command again to resume"
    ):
        train(recipe(), sets, tmp_path)
    assert list((tmp_path / "stage1").iterdir()) == []


# -------------------------------------------------------------------------------------------------- small parts


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


def test_a_follower_reads_each_line_once_and_starts_again_on_a_new_file(tmp_path):
    path = tmp_path / "logging.jsonl"
    follower = Follower(path)
    assert follower.new_lines() == []
    log = JsonLines(path, stage="stage1", resume_step=0)
    for step in (1, 2):
        log.write({"stage": "stage1", "step": step})
    assert [line["step"] for line in follower.new_lines()] == [1, 2]
    with path.open("a") as file:
        file.write('{"stage": "stage1", "st')  # killed while writing
    assert follower.new_lines() == []
    JsonLines(path, stage="stage1", resume_step=1).write({"stage": "stage1", "step": 2, "again": True})
    assert follower.new_lines() == [{"stage": "stage1", "step": 1}, {"stage": "stage1", "step": 2, "again": True}]


def test_a_resumed_log_keeps_the_other_stage(tmp_path):
    path = tmp_path / "logging.jsonl"
    log = JsonLines(path, stage="stage1", resume_step=0)
    log.write({"stage": "stage1", "step": 1})
    log = JsonLines(path, stage="stage2", resume_step=0)
    log.write({"stage": "stage2", "step": 1})
    JsonLines(path, stage="stage2", resume_step=0)
    assert read_lines(path) == [{"stage": "stage1", "step": 1}]
