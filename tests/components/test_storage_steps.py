"""The steps after `prepare` with a store that is a URI: another machine trains and evaluates from it as from a disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluenet.data.features import make_features
from cluenet.decoding import FramePolicy
from cluenet.evaluate.evaluator import evaluate
from cluenet.features import EncodedSet, Tower
from cluenet.folders import building, write_manifest
from cluenet.prepared import store_folder
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.export import save_final_model
from cluenet.train.trainer import train_stage
from helpers.evaluation import Silent, prepared_test
from helpers.models import base_folder
from helpers.object_store import S3, running_s3
from helpers.prepared import prepared_set
from helpers.training import recipe, weights_of

STAGE = {"steps": 2, "clips_per_batch": 2}
SETTINGS = recipe(stage1=STAGE, stage2={"steps": 0}, validation={"every": 2}, report_to=[])


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as s3:
        yield s3


def filled(store: Path) -> Path:
    """A store with a base and four sets."""
    with building(store / "bases" / "base") as part:
        shutil.copytree(base_folder(), part, dirs_exist_ok=True)
        write_manifest(part, {})
    prepared_set(store / "prepared" / "train", clips=4)
    prepared_set(store / "prepared" / "more", clips=2, seed=50)
    prepared_set(store / "prepared" / "validation", clips=2, seed=100)
    prepared_test(store / "prepared" / "test", recipe=SETTINGS)
    return store


def mirror(s3: S3, folder: Path) -> Path:
    return store_folder(Recipe.from_dict({"store": s3.uri("store"), "mirror": str(folder)}))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def other(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store as a machine sees it that has nothing of it yet."""
    filled(mirror(s3, tmp_path_factory.mktemp("first")))
    return mirror(s3, tmp_path_factory.mktemp("other"))


def trained(store: Path, run: Path) -> tuple[bytes, bytes]:
    """Weights, and the answers to the test set."""
    base, sets = store / "bases" / "base", store / "prepared"
    checkpoint = train_stage(
        SETTINGS, "stage1", run=run, base=base, prepared={"train": [sets / "train", sets / "more"], "validation": [sets / "validation"]},
        init=None, address="a" * 20, say=lambda line: None, progress=Silent, local=True,
    )  # fmt: skip
    model = save_final_model(
        SETTINGS, run=run, base=base, checkpoint=checkpoint, address="c" * 20,
        frame_policy=FramePolicy.from_section(SETTINGS.data).to_dict(), validation=[sets / "validation"],
    )  # fmt: skip
    evaluate(SETTINGS, model_folder=model, prepared=[sets / "test"], out=run / "out", progress=Silent, local=True)
    (samples,) = (run / "out").glob("*/samples.jsonl")
    return weights_of(checkpoints.best_of(run / "stage1")), samples.read_bytes()


def test_another_machine_trains_and_evaluates_bit_for_bit_as_from_a_disk(local: Path, other: Path, tmp_path: Path):
    assert not other.exists()
    assert trained(other, tmp_path / "there") == trained(local, tmp_path / "here")


def test_features_are_made_once_for_every_machine(s3: S3, local: Path, other: Path, tmp_path: Path):
    def encoded(place: Path, **settings: str) -> EncodedSet:
        made, prepared = Recipe.from_dict(settings), place / "prepared" / "train"
        tower = Tower(place / "bases" / "base", {})
        return EncodedSet(prepared, make_features(made, prepared, tower, progress=Silent, local=True))

    uri = s3.uri("store")
    wanted = encoded(local, store=str(local))
    encoded(mirror(s3, tmp_path / "maker"), store=uri, mirror=str(tmp_path / "maker"))
    found = encoded(other, store=uri, mirror=str(other.parent))
    assert not list(found.features.glob("part-*"))
    for key in wanted.clip_keys:
        assert torch.equal(found.clip(key).tower.states, wanted.clip(key).tower.states)
    assert list(found.features.glob("part-*"))
