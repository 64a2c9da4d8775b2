"""Utilities recorded by the frozen model of stage 1: exact, complete, resumable, and all that stage 2 teaches its gate with."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from cluenet import fingerprint
from cluenet.errors import CheckpointError, CluenetError, DataError, StorageError
from cluenet.folders import finished, read_manifest
from cluenet.model import evidence
from cluenet.model.build import build_model
from cluenet.model.pipeline import ClueNet
from cluenet.model.utilities import exact_utilities, gate_term
from cluenet.planning import Plan
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train import checkpoints, offline, utility_parts
from cluenet.train.batches import TrainingBatches
from cluenet.train.group import Group
from cluenet.train.offline import record_utilities
from cluenet.train.trainer import train_stage
from cluenet.train.utility_parts import parts_of
from cluenet.train.utility_store import Asked, UtilityStore
from helpers.evaluation import Silent
from helpers.models import base_folder, example
from helpers.prepared import prepared_set
from helpers.training import lines_of, recipe, weights_of

ADDRESS = "u" * 20
COLOURS = ("red", "blue", "green", "cyan")


def settings(workers=1, **stage2) -> Recipe:
    """The gate alone is taught well; ranking needs no second measured clue, for all are."""
    loss = {"source": "offline", "utility": "mean", "distractors": 0.5, "ranking": 0.5, "temperature": 0.05}
    common = {"clips_per_batch": 2, "questions_per_clip": 2, "optimizer": "adamw", "lr": 1e-3}
    values = recipe(
        stage1={"steps": 2, **common}, stage2={"steps": 2, **common, "filter_loss": loss, **stage2},
        report_to=[], validation={"every": 2, "max_clips": 1}, workers=workers,
    ).to_dict()  # fmt: skip
    values["model"]["clue_extractor"]["slots"] = 3
    return Recipe.from_dict(values)


def question(number: int):
    """Every clip has questions with other clues, so that there are distractors; every fifth has no known answer."""
    colour, other = COLOURS[number % 4], COLOURS[(number + 1) % 4]
    clue = example().clues[0]
    other_clue = type(clue)(f"{colour} hits {other}", 0.0, 0.5, (), {"who": colour, "what": "hits", "whom": other})
    return example(number, clues=(other_clue,), answer=None if number % 5 == 4 else number % 3)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    train = [prepared_set(folder / "a", clips=5, questions=(3, 2), make=question),
             prepared_set(folder / "b", clips=2, seed=50, make=question)]  # fmt: skip
    return {"train": train, "validation": [prepared_set(folder / "v", clips=1, seed=100)]}


def train(sets, run, stage="stage1", recipe=None, **options):
    return train_stage(
        recipe or settings(), stage, run=run, base=base_folder(), prepared=sets, address=stage[-1] * 20,
        say=lambda line: None, local=True, **{"init": None, **options},
    )  # fmt: skip


def record(sets, run, first, *, recipe=None, local=True, address=ADDRESS):
    return record_utilities(
        recipe or settings(), run=run, base=base_folder(), train=[*sets["train"], sets["train"][0]], checkpoint=first,
        address=address, progress=Silent, local=local,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(sets, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    first = train(sets, run)
    return run, first, record(sets, run, first)


def model_of(first: Path, recipe: Recipe | None = None) -> ClueNet:
    model = build_model((recipe or settings()).model, base_folder(), seed=0)
    checkpoints.load_weights(model, first / checkpoints.WEIGHTS, with_filter=False)
    return model


def rows(folder: Path) -> list[dict]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


# ------------------------------------------------------------------------------------------------------- recording


def test_every_question_with_an_answer_is_recorded_and_the_accounts_add_up(recorded, sets):
    _, _, folder = recorded
    opened = [PreparedSet(path) for path in sets["train"]]
    wanted = {
        (one.folder.name, key, number, question.id)
        for one in opened
        for key in one.clip_keys
        for number, question in enumerate(one.examples_of(key))
        if question.answer is not None
    }
    found = [(row["set"], row["clip"], row["number"], row["id"]) for row in rows(folder)]
    assert sorted(found) == sorted(wanted)  # a set that is listed twice is recorded once
    manifest, clues = read_manifest(folder), [clue for row in rows(folder) for clue in row["clues"]]
    everything = sum(one.num_questions for one in opened)
    assert manifest["questions"] == {
        "all": everything, "recorded": len(found), "without_answer": everything - len(found)
    }  # fmt: skip
    stated = [clue for clue in clues if not clue["distractor"]]
    assert manifest["clues"] == {
        "stated": len(stated), "useful": sum(clue["utility"] > 0.02 for clue in stated),
        "distractors": len(clues) - len(stated),
    }  # fmt: skip
    assert len(stated) > 0
    assert manifest["questions"]["without_answer"] > 0
    assert Silent.last.done == Silent.last.total


def test_recorded_utilities_are_the_exact_ones_of_the_frozen_model(recorded, sets):
    _, first, folder = recorded
    model, found = model_of(first), {(row["set"], row["clip"], row["number"]): row for row in rows(folder)}
    prepared = PreparedSet(sets["train"][0])
    for key in prepared.clip_keys:
        asked = [(n, e) for n, e in enumerate(prepared.examples_of(key)) if e.answer is not None]
        batch = model.collate([(prepared.frames(key), [e for _, e in asked])], seed=0, shuffle_options=False)
        with model.inference():
            look = model.see(batch)
            own = evidence.unfiltered(model, look)
            utility = exact_utilities(model, batch, look.prefix, own.ids_BQKW, own.present_BQK, kind="mean")
        for q, (number, _) in enumerate(asked):
            clues = [clue for clue in found["a", key, number]["clues"] if not clue["distractor"]]
            slots = [clue["slot"] for clue in clues]
            assert slots == own.present_BQK[0, q].nonzero().flatten().tolist()
            assert [clue["ids"] for clue in clues] == own.ids_BQKW[0, q, slots].tolist()
            assert [clue["words"] for clue in clues] == [list(model.collator.vocabulary.decode(i)) for i in own.ids_BQKW[0, q, slots]]  # fmt: skip
            assert torch.allclose(torch.tensor([c["utility"] for c in clues]), utility[0, q, slots], atol=1e-4)


def test_distractors_are_clues_of_the_clips_other_questions_and_worth_nothing(monkeypatch, sets, tmp_path):
    """Of three slots the model states something in the first one only."""
    original = evidence.unfiltered

    def first_slot(model, look):
        own = original(model, look)
        own.present_BQK[:] = torch.tensor([True, False, False])
        return own

    monkeypatch.setattr("cluenet.model.evidence.unfiltered", first_slot)
    found = rows(record(sets, tmp_path, None))
    added = [(row, clue) for row in found for clue in row["clues"] if clue["distractor"]]
    assert added
    prepared = {path.name: PreparedSet(path) for path in sets["train"]}
    for row, clue in added:
        assert (clue["utility"], clue["slot"] > 0) == (0.0, True)
        texts = [" ".join(q.clues[0].concepts.values()) for q in prepared[row["set"]].examples_of(row["clip"])]
        said = " ".join(clue["words"][1:])
        assert said in texts
        assert said != texts[row["number"]]
    again = rows(record(sets, tmp_path / "again", None))
    assert again == found


def test_an_interrupted_recording_goes_on_with_what_is_there(recorded, sets, tmp_path, monkeypatch):
    _, first, folder = recorded
    monkeypatch.setattr(utility_parts, "BATCHES_PER_PART", 1)
    made: list[str] = []
    original = utility_parts.write_part

    def write(path, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        original(path, *rest)

    monkeypatch.setattr(utility_parts, "write_part", write)
    with pytest.raises(KeyboardInterrupt):
        record(sets, tmp_path, first)
    assert not finished(tmp_path / "utilities")
    monkeypatch.setattr(
        utility_parts, "write_part", lambda path, *rest: made.append(path.name) or original(path, *rest)
    )
    resumed = record(sets, tmp_path, first)
    assert sorted(made) == sorted(set(made)) == read_manifest(resumed)["parts"]
    assert len(made) > 2
    assert read_manifest(resumed)["clues"] == read_manifest(folder)["clues"]
    assert rows(resumed) == rows(folder)
    monkeypatch.setattr(offline, "PartRecorder", lambda job: pytest.fail("a finished folder was made again"))
    assert record(sets, tmp_path, first) == resumed
    with pytest.raises(CheckpointError, match="another recipe"):
        record(sets, tmp_path, first, address="x" * 20)


def test_a_part_of_another_recipe_is_made_again(recorded, sets, tmp_path):
    _, first, folder = recorded
    record(sets, tmp_path, None, address="x" * 20)
    (tmp_path / "utilities" / "manifest.json").unlink()
    assert rows(record(sets, tmp_path, first)) == rows(folder)


def test_parts_hold_whole_clips_once_and_at_most_so_many_questions(sets):
    opened = [PreparedSet(path) for path in sets["train"]]
    for most in (1, 4, 100):
        parts = list(parts_of(opened, most))
        keys = [(part.set, key) for part in parts for batch in part.batches for key in batch]
        assert keys == [(str(one.folder), key) for one in opened for key in one.clip_keys]
        for part in parts:
            sizes = [[len(PreparedSet(part.set).examples_of(key)) for key in batch] for batch in part.batches]
            assert all(sum(batch) <= most or len(batch) == 1 for batch in sizes)


def test_parts_that_do_not_arrive_are_missed(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(utility_parts, "write_part", lambda *_: None)
    with pytest.raises(StorageError, match=r"parts cannot be seen from here\. Set `runs=`"):
        record(sets, tmp_path, None)
    assert not finished(tmp_path / "utilities")


def test_two_workers_of_ray_record_the_same(recorded, sets, tmp_path, monkeypatch, ray_session):
    _, first, folder = recorded
    monkeypatch.setattr(utility_parts, "BATCHES_PER_PART", 2)
    assert rows(record(sets, tmp_path, first, recipe=settings(workers=2), local=False)) == rows(folder)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / checkpoints.WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="damaged"):
        record(sets, tmp_path / "other", damaged, local=False)


# --------------------------------------------------------------------------------------------------------- stage 2


def test_stage_2_takes_one_pass_of_the_reasoner_and_learns_from_the_recorded_clues(recorded, sets, monkeypatch):
    _, first, folder = recorded
    recipe, model = settings(), model_of(first)
    stage = recipe.train.stage2
    opened = [PreparedSet(path) for path in sets["train"]]
    store, group = UtilityStore(folder, model), Group(0, 1, "cpu")
    batches = TrainingBatches(model, opened, [1.0, 1.0], stage, group, name="stage2", seed=0, recorded=store)
    (batch,) = next(batches(0, 1))
    with torch.no_grad():  # another model than the one that recorded: the gate reads today's stem and confidence
        for weight in (*model.extractor.parameters(), *model.filter.parameters()):
            weight.add_(torch.randn_like(weight) * 0.1)
    passes, original = [], ClueNet.reason
    monkeypatch.setattr(ClueNet, "reason", lambda self, *given: passes.append(1) or original(self, *given))
    output = model.train()(batch, stage=stage, seed=0)
    assert len(passes) == 1
    with torch.no_grad():
        logits = model.gate_logits(model.see(batch, stage), batch.recorded.ids_BQKW)
    found = {(row["set"], row["id"]): row for row in rows(folder)}
    sets_of = {e.id: path.name for path in sets["train"] for e in PreparedSet(path).examples()}
    utility, pool = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    for b, clip in enumerate(batch.clips):
        for q, one in enumerate(clip):
            for clue in found.get((sets_of[one.id], one.id), {"clues": []})["clues"]:
                utility[b, q, clue["slot"]], pool[b, q, clue["slot"]] = clue["utility"], True
                assert batch.recorded.ids_BQKW[b, q, clue["slot"]].tolist() == clue["ids"]
    wanted = gate_term(logits, utility, pool, pool, stage.filter_loss)
    assert float(output["filter"].detach()) == pytest.approx(float(wanted), rel=1e-5)
    assert int(output["labels/filter"]) == int(pool.sum()) > 0
    output["filter"].backward()
    moved = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert moved
    assert all(name.startswith("filter.") for name in moved)


def test_the_stage_trains_on_them(recorded, sets, tmp_path):
    _, first, folder = recorded
    best = train(sets, tmp_path / "a", "stage2", init=first, utilities=folder)
    again = train(sets, tmp_path / "b", "stage2", init=first, utilities=folder)
    assert weights_of(best) == weights_of(again)
    assert all(line["labels/filter"] > 0 for line in lines_of(tmp_path / "a"))
    with pytest.raises(CluenetError, match="no utilities were recorded"):
        train(sets, tmp_path / "c", "stage2", init=first)


def test_a_question_that_was_not_recorded_as_it_stands_is_named(recorded, sets):
    _, first, folder = recorded
    store, prepared = UtilityStore(folder, model_of(first)), PreparedSet(sets["train"][0])
    key = prepared.clip_keys[0]
    one = prepared.examples_of(key)[0]
    assert store.of([[Asked("a", key, 0, one)]], 1).pool_BQK.shape == (1, 1, 3)
    for asked in (Asked("a", key, 7, one), Asked("a", key, 0, example(0, question="what colour ?"))):
        with pytest.raises(DataError, match=f"nothing recorded for question '{asked.example.id}'"):
            store.of([[asked]], 1)
    assert not store.of([[Asked("a", key, 7, example(0, answer=None))]], 1).pool_BQK.any()


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_part_is_named(recorded, sets, tmp_path, how):
    _, first, _ = recorded
    folder = record(sets, tmp_path, first)
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:50]) if how == "cut" else part.unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet: missing or damaged.*Delete the folder"):
        UtilityStore(folder, model_of(first))


# ----------------------------------------------------------------------------------------------- settings and plan


def test_stage_1_has_no_model_before_it():
    values = settings().to_dict()
    values["train"]["stage1"]["filter_loss"] = {"source": "offline"}
    with pytest.raises(CluenetError, match="for stage 2 only"):
        Recipe.from_dict(values)


def test_the_plan_has_the_step_where_it_is_wanted(tmp_path):
    def plan(recipe):
        made = Plan(recipe)
        made.__dict__.update(stage1="1" * 20, run=tmp_path)
        return made

    assert plan(settings()).records_utilities
    for other in (
        settings(steps=0), settings(losses={"filter": 0}), settings(filter_loss={}),
        with_model(clue_filter="keep_all"), with_model(clue_extractor="none"), with_model(clue_extractor="oracle"),
    ):  # fmt: skip
        assert not plan(other).records_utilities
    step = plan(settings())._utilities_step()
    assert (step.name, step.state, step.folder) == ("utilities", "new", tmp_path / "utilities")
    (tmp_path / "utilities").mkdir()
    (tmp_path / "utilities" / "part-00000.parquet").touch()
    step = plan(settings())._utilities_step()
    assert (step.state, step.what) == ("resumable", "measure what every clue is worth (1 parts are done)")


def with_model(**model) -> Recipe:
    values = settings().to_dict()
    values["model"] |= model
    return Recipe.from_dict(values)


def test_what_is_measured_makes_the_address():
    addresses = {
        fingerprint.utilities(settings(filter_loss={"source": "offline", **changed}), address)
        for changed in ({}, {"utility": "add_one"}, {"distractors": 0.3})
        for address in ("a", "b")
    }
    assert len(addresses) == 6
    same = fingerprint.utilities(settings(filter_loss={"source": "offline", "delta": 0.5, "budget": 2}), "a")
    assert same == fingerprint.utilities(settings(filter_loss={"source": "offline"}), "a")
