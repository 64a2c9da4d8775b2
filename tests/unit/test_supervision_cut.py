"""Clue labels that find no room in the model's slots: counted as the model itself cuts them, told, and kept in manifests."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cluenet.config.model import ModelSection
from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.folders import read_manifest
from cluenet.plugins import load_components
from cluenet.recipe import Recipe
from cluenet.records import CONCEPT_ROLES, Clue, Example
from cluenet.train.cut_labels import Cut, cut_by, cut_of
from cluenet.train.job import StageJob, Worker
from cluenet.train.loop import run_stage
from cluenet.train.supervision import supervise, supervision_of, uses_clue_labels
from helpers.evaluation import NO_CLUES
from helpers.models import base_folder, clip, example, tiny_model
from helpers.prepared import prepared_set

WORDS = ("red", "hits", "blue", "green", "cyan", "square")


def clue(rng: random.Random) -> Clue:
    roles = [role for role in CONCEPT_ROLES if rng.random() < 0.6]
    if roles:
        return Clue("a clue", concepts={role: rng.choice(WORDS) for role in roles})
    return Clue(" ".join(rng.choices(WORDS, k=rng.randint(1, 6))))


def labelled(number: int) -> Example:
    """0 to 5 clues; every seventh question is not labelled."""
    rng = random.Random(number)
    clues = tuple(clue(rng) for _ in range(rng.randint(0, 5)))
    return example(number, clues=None if number % 7 == 0 else clues)


def model(**extractor) -> ModelSection:
    load_components()
    return ModelSection.model_validate({"clue_extractor": {"name": "latent_slots", **extractor}})


@pytest.mark.parametrize(
    ("slots", "words", "cut"),
    [(3, 4, Cut(0, 0, 0)), (2, 4, Cut(1, 1, 0)), (1, 4, Cut(1, 2, 0)), (3, 3, Cut(0, 0, 2)), (2, 2, Cut(1, 1, 2))],
)
def test_one_question(slots: int, words: int, cut: Cut) -> None:
    clues = [
        Clue("red hits blue", concepts={"who": "red", "what": "hits", "whom": "blue"}),
        Clue("it moves itself"),
        Clue("red", concepts={"who": "red"}),
    ]
    assert cut_by(clues, slots, words) == cut
    assert cut_by(clues, None, None) == Cut()


def says_nothing_more(net, item: Clue, grid) -> bool:
    """Whether the words that the model is taught are all that the clue says."""
    taught = net.collator.vocabulary.encode(item, grid)[1:]
    said = [item.concepts.get(role, "_") for role in CONCEPT_ROLES] if item.concepts else item.text.split()
    ids = [net.vlm.word_id(word) for word in said]
    while ids and ids[-1] == net.collator.vocabulary.absent:
        ids.pop()
    return taught[: len(ids)] == ids and len(taught) >= len(ids)


@pytest.mark.parametrize(("slots", "words"), [(1, 2), (2, 3), (3, 4), (5, 7)])
def test_it_counts_what_the_model_cuts(slots: int, words: int) -> None:
    net = tiny_model(clue_extractor={"name": "latent_slots", "slots": slots, "words": words, "heads": 2})
    asked = [labelled(number) for number in range(60)]
    batch = net.collate([(clip(), asked)], seed=0, shuffle_options=False)
    none = net.collator.vocabulary.none
    taught = batch.labels.words_BQKW[0].ne(none).any(-1).sum(-1).tolist()
    clues = [item.clues or () for item in asked]
    missing = [len(found) - count for found, count in zip(clues, taught, strict=True)]
    shortened = sum(not says_nothing_more(net, item, batch.grids[0]) for found in clues for item in found[:slots])
    expected = Cut(sum(count > 0 for count in missing), sum(missing), shortened)
    assert sum((cut_by(found, slots, words) for found in clues), Cut()) == expected
    assert (expected == Cut()) == (slots == 5)


def test_it_is_told_before_training_and_counted_over_all_sets(tmp_path: Path) -> None:
    sets = [prepared_set(tmp_path / name, clips=10, make=labelled) for name in ("a", "b")]
    clues = [labelled(number).clues or () for number in range(25)] * 2
    section = model(slots=2, words=3)
    more = [len(found) - 2 for found in clues if len(found) > 2]
    cut = cut_of(section.clue_extractor, sets)
    assert (cut.questions, cut.clues) == (len(more), sum(more))
    assert cut.shortened > 0
    recipe = Recipe.from_dict({"model": section.model_dump(mode="json")})
    found = supervision_of(recipe, "stage1", sets)
    assert found.cut == cut
    for line in (
        f"stage1: {len(more)} questions have more than 2 clues, the later ones ({sum(more)}) are not taught; "
        "model.clue_extractor.slots makes room",
        f"stage1: {cut.shortened} clues have more than 2 words, the later ones are not taught; "
        "model.clue_extractor.words makes room",
    ):
        assert line in found.lines()
    assert found.to_dict()["cut"] == {"questions": cut.questions, "clues": cut.clues, "shortened": cut.shortened}


def test_nothing_is_said_where_everything_fits(tmp_path: Path) -> None:
    folder = prepared_set(tmp_path / "set", clips=10, make=labelled)
    section = model(slots=5, words=7)
    assert cut_of(section.clue_extractor, [folder]) == Cut()
    recipe = Recipe.from_dict({"model": section.model_dump(mode="json")})
    assert not any("makes room" in line for line in supervision_of(recipe, "stage1", [folder]).lines())


def test_unlabelled_sets_are_not_even_read(tmp_path: Path) -> None:
    labels = {"answer": 25, "chain": 0, "clues": 0, "times": 0, "boxes": 0, "concepts": 0}
    folder = prepared_set(tmp_path / "set", clips=10, labels=labels)
    for part in (folder / "questions").iterdir():
        part.unlink()
    assert cut_of(model(slots=1).clue_extractor, [folder]) == Cut()


@pytest.mark.parametrize(
    ("stage", "section", "uses"),
    [
        (Stage1(), {}, True),
        (Stage1(losses=Losses(answer=1)), {}, True),  # the reasoner reads ground truth
        (Stage2(losses=Losses(answer=1)), {}, False),
        (Stage2(losses=Losses(answer=1), truth_share=(0.5, 0.0)), {}, True),
        (Stage2(losses=Losses(answer=1, concept=1)), {}, True),
        (Stage2(losses=Losses(answer=1)), {"clue_extractor": "oracle"}, True),
        (Stage1(), NO_CLUES, False),
    ],
)
def test_it_is_counted_only_where_labels_are_used(stage, section: dict, uses: bool) -> None:
    load_components()
    assert uses_clue_labels(stage, ModelSection.model_validate(section)) is uses


def test_an_extractor_without_such_settings_has_no_known_limit() -> None:
    load_components()
    section = ModelSection.model_validate(NO_CLUES)
    labels = dict.fromkeys(("answer", "chain", "clues", "times", "boxes", "concepts"), 3)
    manifest = {"rows": {"in": 3, "ready": 3, "quarantined": 0}, "labels": labels}
    assert cut_of(section.clue_extractor, []) == Cut()
    assert supervise("stage1", Stage1(), section, [manifest]).notes == ()


def test_the_manifest_of_a_stage_says_what_was_cut(tmp_path: Path) -> None:
    folder = prepared_set(tmp_path / "set", clips=6, make=labelled)
    stage = {"steps": 1, "clips_per_batch": 2, "questions_per_clip": 2}
    recipe = Recipe.from_dict({
        "data": {"train": ["clueworld"]},
        "model": {"clue_extractor": {"name": "latent_slots", "slots": 1, "words": 2, "heads": 2}},
        "train": {"stage1": stage},
    })  # fmt: skip
    run = tmp_path / "run"
    run_stage(
        StageJob(recipe.to_dict(), "stage1", str(run), str(base_folder()), None, (str(folder),), (), "a"), Worker()
    )
    said = read_manifest(run / "stage1")["supervision"]
    assert said == supervision_of(recipe, "stage1", [folder]).to_dict()
    assert said["cut"]["questions"] > 0
    assert {term["name"]: term["state"] for term in said["terms"]}["concept"] == "taught"
