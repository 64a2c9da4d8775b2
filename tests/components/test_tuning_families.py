"""Adapters and gradient checkpointing on checkpoints of all five families, and 4-bit bases where bitsandbytes is installed."""

from __future__ import annotations

import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from cluenet.config.model import ModelSection
from cluenet.config.train import Stage1, Stage2, TrainSection
from cluenet.model import tuning
from cluenet.model.build import build_model
from cluenet.model.checkpoint import load_model, save_model
from cluenet.model.optimizers import optimizers_of
from cluenet.plugins import load_components
from helpers.checkpoints import FAMILIES, checkpoint
from helpers.models import clip, example

WHOLE = {"name": "lora", "r": 4, "projector": True, "vision": True}
PROJECTIONS = {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}


def tuned(family, how="lora", *, dtype="float32", **train):
    load_components()
    section = ModelSection.model_validate({
        "backbone": {"name": "hf_vlm", "path": str(checkpoint(family)), "dtype": dtype}, "clue_filter": "adaptive", "reasoner": "clue_chain",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
    })  # fmt: skip
    settings = TrainSection.model_validate({"tuning": how, **train})
    return build_model(section, checkpoint(family), seed=0, train=settings), section, settings


def batch_of(model):
    clips = [(clip(0), [example(0), example(1)]), (clip(1), [example(2)])]
    return model.collate(clips, seed=0, shuffle_options=False, chain=True)


def answers(model):
    batch = batch_of(model)
    return torch.cat([torch.tensor(answer.option_probabilities) for answer in model.predict(batch)])


def stirred(model):
    """With every trained weight of the backbone moved."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.vlm.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_in_the_language_model_alone_and_start_as_the_backbone(family):
    model, *_ = tuned(family)
    names = {name.partition(".lora_")[0] for name, p in model.vlm.hf.named_parameters() if p.requires_grad}
    pattern = r"model\.(language_model|text_model)\.layers\.\d+\.(self_attn|mlp)\.\w+"
    assert all(re.fullmatch(pattern, name) for name in names)
    layers = model.vlm.layers
    assert len(names) == 7 * layers
    assert {name.rpartition(".")[2] for name in names} == PROJECTIONS
    assert torch.equal(answers(model), answers(tuned(family, "full")[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_projector_and_tower_are_what_they_say(family):
    model, *_ = tuned(family, WHOLE)
    groups = {name: len(parameters) for name, parameters in tuning.groups_of(model).items()}
    assert min(groups.values()) > 0
    names = [name for name, p in model.vlm.hf.named_parameters() if p.requires_grad]
    own = [name for name in names if ".modules_to_save." in name]
    assert {re.sub(r"\.\d+$", "", name.partition(".modules_to_save.")[0]).rpartition(".")[2] for name in own} <= {
        "merger", "deepstack_merger_list", "multi_modal_projector", "connector",
    }  # fmt: skip
    whole = tuning.groups_of(tuned(family, "full")[0])
    assert groups["projector"] == len(whole["projector"]) - (
        family == "llava_onevision"
    )  # its image_newline is no module
    loss = model.train()(batch_of(model), stage=Stage1(), seed=0, progress=0.5)["loss"]
    loss.backward()
    assert all(
        any(bool(p.grad.any()) for p in tuning.groups_of(model)[g] if p.grad is not None)
        for g in ("projector", "vision", "text")
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_on_a_frozen_base_of_half_precision_is_in_fp32(family):
    model, *_ = tuned(family, WHOLE, dtype="bfloat16")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.vlm.parameters() if not p.requires_grad} == {torch.bfloat16}
    model.train()(batch_of(model), stage=Stage1(), seed=0, progress=0.5)["loss"].backward()  # without autocast
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert any(bool(p.grad.any()) for p in tuning.groups_of(model)["projector"])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family):
    found = []
    for recomputed in (False, True):
        model, *_ = tuned(family, WHOLE, gradient_checkpointing=recomputed)
        torch.manual_seed(0)
        model.train()(batch_of(model), stage=Stage2(), seed=0, progress=0.5)["loss"].backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_folder_gives_the_same_answers_and_peft_opens_it(family, tmp_path):
    model, section, settings = tuned(family, WHOLE)
    before, wanted = answers(model), answers(stirred(model.eval()))
    assert not torch.allclose(wanted, before, atol=1e-3)
    recipe = {"name": "x", "model": section.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    folder = save_model(model, tmp_path / "model", recipe=recipe, frame_policy={}, card={})
    assert torch.equal(answers(load_model(folder)), wanted)
    base = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    opened = PeftModel.from_pretrained(base, folder)
    ids = torch.tensor([model.vlm.ids("which one hits red ?")])
    with torch.no_grad():
        assert torch.equal(opened(input_ids=ids).logits, model.vlm.hf(input_ids=ids).logits)
        merged = opened.merge_and_unload()
        assert torch.allclose(merged(input_ids=ids).logits, model.vlm.hf(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_qlora_trains_and_is_loaded_as_it_was_trained(family, tmp_path):
    pytest.importorskip("bitsandbytes")
    how = {"name": "qlora", "r": 4, "projector": True}
    model, section, settings = tuned(family, how)
    held = {name for name, p in model.vlm.hf.named_parameters() if type(p).__name__ == "Params4bit"}
    assert len(held) == 7 * model.vlm.layers
    assert all(".layers." in name and name.startswith(model.vlm.family.text) for name in held)
    assert model.describe() == tuned(family, {**how, "name": "lora"})[0].describe()
    stage, losses = Stage2(lr=0.01), []
    optimizers = optimizers_of(model.train(), stage)
    for _ in range(4):
        torch.manual_seed(0)
        loss = model(batch_of(model), stage=stage, seed=0, progress=0.5)["loss"]
        losses.append(float(loss.detach()))
        optimizers.step(loss, factor=1.0)
    assert losses[-1] < losses[0] - 1
    recipe = {"name": "x", "model": section.model_dump(mode="json"), "train": settings.model_dump(mode="json")}
    folder = save_model(model, tmp_path / "model", recipe=recipe, frame_policy={}, card={})
    assert torch.equal(answers(load_model(folder)), answers(model.eval()))
