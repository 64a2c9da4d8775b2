"""Estimates against the model itself, at tiny sizes and on a CPU: parameters exactly, what autograd saves for the backward
pass within 12 %, operations as torch counts them within 5 %."""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.estimate import memory, parameters
from cluenet.estimate.activations import logits_bytes
from cluenet.estimate.clue_parts import clue_parts_cost
from cluenet.estimate.compute import step_operations
from cluenet.estimate.passes import work_of
from cluenet.estimate.sizes import sizes_of
from cluenet.model.build import assemble, build_model
from cluenet.model.families import FAMILIES
from cluenet.model.unloaded import unloaded_model
from cluenet.plugins import load_components
from cluenet.train.flops import counted
from helpers.checkpoints import checkpoint
from helpers.models import clip, example

SLOTS = {"name": "latent_slots", "slots": 2, "heads": 2}


class Case:
    """A model of a family, tuned, with a batch and what the estimate needs to know of them."""

    def __init__(self, family: str, train: dict | None = None, *, frames: int = 8, side: int = 48, **model):
        load_components()
        self.section = ModelSection.model_validate(
            {"backbone": "tiny", "clue_extractor": SLOTS, "clue_filter": "adaptive", **model}
        )
        self.train = TrainSection.model_validate(train or {})
        self.sizes = sizes_of(unloaded_model(checkpoint(family), texts=[], note=pytest.fail))
        self.model = build_model(self.section, checkpoint(family), seed=0, train=self.train).train()
        self.on_meta = copy.deepcopy(self.model).to("meta")
        clips = [(clip(i, frames=frames, height=side, width=side), [example(q) for q in range(3)]) for i in range(2)]
        self.batch = self.model.collate(clips, seed=0, shuffle_options=True, chain=True)

    def forward(self, stage):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.train.precision == "bf16"):
            return self.model(self.batch, stage=stage, seed=0, progress=0.0)["loss"]

    def saved(self, stage) -> int:
        """Bytes of the distinct storages that autograd holds after the forward pass, parameters and buffers left out."""
        own = {tensor.untyped_storage().data_ptr() for tensor in [*self.model.parameters(), *self.model.buffers()]}
        packed = []

        def pack(tensor):
            packed.append(weakref.ref(tensor))
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.forward(stage)
        alive = [found.untyped_storage() for reference in packed if (found := reference()) is not None]
        assert loss.requires_grad
        return sum({one.data_ptr(): one.nbytes() for one in alive if one.data_ptr() not in own}.values())

    def estimated(self, stage) -> int:
        """The same, as the estimate adds it up."""
        work, modes = work_of(self.model, self.batch, stage, self.sizes), memory.modes_of(self.model, self.train)
        kept = memory.kept_bytes(work, self.sizes, modes) + clue_parts_cost(self.on_meta, self.batch, stage).saved_bytes
        logits = sum(logits_bytes(scored, self.sizes.vocabulary) for scored in work.scored)
        return kept + logits + memory.copies_bytes(self.model, self.train, work, self.sizes, modes)

    def operations(self, stage) -> float:
        work, modes = work_of(self.model, self.batch, stage, self.sizes), memory.modes_of(self.model, self.train)
        return step_operations(work, self.sizes, modes) + clue_parts_cost(self.on_meta, self.batch, stage).operations


CASES = {
    **{family: (family, {}, {}) for family in FAMILIES},
    "larger": ("qwen3_vl", {}, {"frames": 16, "side": 64}),
    "smaller": ("internvl", {}, {"frames": 4, "side": 32}),
    "bf16": ("qwen2_5_vl", {"precision": "bf16"}, {}),
    "lora": ("qwen3_vl", {"tuning": "lora"}, {}),
    "lora of the tower, no dropout, bf16": (
        "llava_onevision", {"tuning": {"name": "lora", "dropout": 0, "vision": True}, "precision": "bf16"}, {},
    ),
    "frozen tower": ("smolvlm", {"tuning": {"name": "full", "vision": False}}, {}),
    "checkpointing": ("qwen3_vl", {"gradient_checkpointing": True}, {}),
    "lora, checkpointing": ("internvl", {"tuning": "lora", "gradient_checkpointing": True}, {}),
    "video in view": ("qwen2_5_vl", {}, {"reasoner": "clue_chain"}),
    "no clues, likelihoods": (
        "qwen3_vl", {}, {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": {"name": "direct", "scoring": "likelihood"}},
    ),
    "written clues": ("qwen3_vl", {}, {"clue_extractor": "generated"}),
    "clues without training": ("qwen3_vl", {}, {"clue_extractor": "logit_lens", "clue_filter": "keep_all"}),
    "other losses": (
        "qwen3_vl", {"stage2": {"losses": {"answer": 1, "filter": 1, "counterfactual": 1}, "filter_loss": {"utility": "mean"}}}, {},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    family, train, model = CASES[request.param]
    return Case(family, train, **model)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_what_autograd_saves(case: Case, stage: str):
    settings = getattr(case.train, stage)
    assert case.estimated(settings) == pytest.approx(case.saved(settings), rel=0.12)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_operations_are_those_that_torch_counts(case: Case, stage: str):
    settings = getattr(case.train, stage)
    found = counted(lambda: case.forward(settings).backward())
    assert case.operations(settings) == pytest.approx(found, rel=0.05)


def test_parameters_are_those_of_the_model(case: Case):
    """From config.json alone, by part."""
    vlm = unloaded_model(checkpoint(case.model.vlm.config.model_type), texts=[], note=pytest.fail)
    with torch.device("meta"):
        made = assemble(vlm, case.section, seed=0, train=case.train)
    parts = parameters.parts_of(made, case.train)
    assert parts == parameters.parts_of(case.model, case.train)
    total = parameters.whole(parts)
    assert total.total == sum(p.numel() for p in case.model.parameters())
    assert total.trained == sum(p.numel() for p in case.model.parameters() if p.requires_grad)
    assert total.weight_bytes == sum(p.numel() * p.element_size() for p in case.model.parameters())
    assert parts["embeddings"].total == 2 * case.sizes.vocabulary * case.sizes.decoder.width  # not tied
    assert all(parts[name].total for name in ("language model", "vision tower", "projector"))
    assert bool(parts["clue parts"].total) == (case.section.reasoner.name != "direct")
    assert bool(parts["adapters"].total) == (case.train.tuning.name == "lora")
