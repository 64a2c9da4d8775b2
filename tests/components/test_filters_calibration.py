"""From validation clips to the threshold in the model folder: which clips, what is judged, what is stored and refused."""

import numpy as np
import pytest
import torch

from cluenet.contracts import Judged
from cluenet.errors import RecipeError
from cluenet.model import conformal
from cluenet.model.checkpoint import load_model, read_card
from cluenet.model.utilities import exact_utilities
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.train import calibration
from cluenet.train.export import save_final_model
from cluenet.train.trainer import train_stage
from helpers import training
from helpers.models import base_folder, example
from helpers.prepared import prepared_set

CONFORMAL = {"name": "adaptive", "threshold": "conformal", "alpha": 0.2, "calibration_clips": 12}


def recipe(clue_filter=CONFORMAL, **changes):
    values = training.recipe(validation={"every": 4, "max_clips": 3}).to_dict()
    values["model"]["clue_filter"] = clue_filter
    values["train"]["stage2"]["filter_loss"]["delta"] = 0.0
    return Recipe.from_dict({**values, **changes})


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    def make(number):
        return example(number, answer=None) if number % 7 == 0 else example(number)

    folder = tmp_path_factory.mktemp("prepared")
    return [prepared_set(folder / "v", clips=9, make=make), prepared_set(folder / "w", clips=6, seed=40)]


def speaking(model):
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    torch.nn.init.normal_(model.filter.gate.mlp[2].weight, std=1.0)
    return model


@pytest.fixture
def speaks(monkeypatch):
    """An exported model states clues without training."""
    from cluenet.train import export

    original = export.build_model
    monkeypatch.setattr(export, "build_model", lambda *args, **kwargs: speaking(original(*args, **kwargs)))


def export(settings, run, validation):
    return save_final_model(
        settings, run=run, base=base_folder(), checkpoint=None, frame_policy={}, address="a" * 20, validation=validation
    )


def test_the_model_folder_has_the_calibrated_threshold_and_its_card_says_what_it_promises(speaks, validation, tmp_path):
    folder = export(recipe(), tmp_path, validation)
    model, card = load_model(folder), read_card(folder)
    assert float(model.filter.threshold_shift) < 1e3
    assert card["clue threshold"].startswith("keeps a useful clue with probability 0.8 at least; calibrated on ")
    assert card["calibration clips that also chose the checkpoint"] == "0 of 12"
    assert f"| clue threshold | {card['clue threshold']} |" in (folder / "README.md").read_text()
    wanted = conformal.calibrate(list(_judged_one_by_one(model, validation)), alpha=0.2, seed=0)
    assert float(model.filter.threshold_shift) == pytest.approx(wanted.shift, abs=1e-4)
    assert model.filter.threshold_weights.tolist() == pytest.approx(wanted.weights.tolist(), abs=1e-3)


def _judged_one_by_one(model, validation):
    """Every clip and question on its own; the three clips that validation uses in training are not among them."""
    places = [(PreparedSet(folder), key) for folder in validation for key in PreparedSet(folder).clip_keys]
    unseen = [place for index, place in enumerate(places) if index not in (0, 5, 10)]
    for prepared, key in unseen:
        rows = []
        for question in prepared.examples_of(key):
            if question.answer is None:
                continue
            batch = model.collate([(prepared.frames(key), [question])], seed=0, shuffle_options=False)
            look = model.look(batch)
            own = model.own_evidence(batch, look)
            with model.inference():
                found = exact_utilities(model, batch, look[0], own.ids_BQKW, own.present_BQK, kind="leave_one_out")
            rows.append((own.gate_BQK[0, 0].numpy(), own.present_BQK[0, 0].numpy(), (found[0, 0] > 0).numpy()))
        yield Judged(*(np.stack(part) for part in zip(*rows)))


def test_clips_that_chose_the_checkpoint_come_last(validation):
    sets = [PreparedSet(folder) for folder in validation]
    keys = [(prepared, key) for prepared in sets for key in prepared.clip_keys]
    seen = [keys[index] for index in (0, 5, 10)]
    for most, wanted in ((4, 0), (12, 0), (14, 2), (99, 3)):
        clips, again = calibration._choose(sets, most, 3)
        assert (len(clips), again) == (min(most, 15), wanted)
        assert len({key for _, key in clips}) == len(clips)
        assert sum(place in seen for place in clips) == wanted
        assert not any(place in seen for place in clips[: len(clips) - wanted])
    assert calibration._choose(sets, 99, None)[1] == 15


def test_a_stage_before_the_calibration_saves_its_checkpoint_and_its_filter_keeps_everything(validation, tmp_path):
    """Checkpoints refuse numbers that are not finite."""
    stage = {"steps": 1, "clips_per_batch": 2, "questions_per_clip": 2, "optimizer": "adamw", "lr": 1e-3}
    values = training.recipe(stage1=stage, validation={"every": 1, "max_clips": 1}, report_to=[]).to_dict()
    values["model"]["clue_filter"] = CONFORMAL
    settings = Recipe.from_dict(values)
    sets = {"train": validation, "validation": validation[:1]}
    best = train_stage(
        settings, "stage1", run=tmp_path, base=base_folder(), prepared=sets, init=None, address="1" * 20,
        say=lambda line: None, local=True,
    )  # fmt: skip
    assert best is not None
    clue_filter = settings.model.clue_filter.build(width=64, words=4)
    gate, present = torch.rand(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool)
    assert clue_filter.keep(gate, present, seeds_BQ=torch.zeros(1, 2, dtype=torch.long)).all()


def test_a_filter_with_a_fixed_threshold_is_not_calibrated(speaks, validation, tmp_path):
    folder = export(recipe("adaptive"), tmp_path, validation)
    assert not any("calibration" in name or "threshold" in name for name in read_card(folder))


def test_calibration_without_validation_data_is_refused_before_training(tmp_path):
    settings = recipe()
    bare = settings.model_copy(update={"data": settings.data.model_copy(update={"validation": ()})})
    with pytest.raises(
        RecipeError, match=r"model\.clue_filter: .*'adaptive'.*data\.validation is empty.*fixed threshold"
    ):
        train_stage(
            bare,
            "stage1",
            run=tmp_path,
            base=base_folder(),
            prepared={"train": []},
            init=None,
            address="a" * 20,
            local=True,
        )
    with pytest.raises(RecipeError, match=r"data\.validation is empty"):
        export(bare, tmp_path, [])
    assert not (tmp_path / "model").exists()


def test_a_model_that_states_no_clues_of_its_own_needs_no_calibration(validation, tmp_path):
    values = recipe().to_dict()
    values["model"]["clue_extractor"] = {"name": "oracle", "slots": 2}
    folder = export(Recipe.from_dict(values), tmp_path, validation)
    assert "clue threshold" not in read_card(folder)
