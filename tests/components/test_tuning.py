"""What each tuning trains, that adapters start as the backbone, learn and come off again, and what a checkpoint must hold."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten
from transformers.modeling_layers import GradientCheckpointingLayer

from cluenet.config.model import ModelSection
from cluenet.config.train import Stage1, Stage2, TrainSection
from cluenet.errors import RecipeError
from cluenet.model import quantization, tuning
from cluenet.model.build import build_model, check_tuning
from cluenet.model.optimizers import optimizers_of
from cluenet.plugins import load_components
from cluenet.recipe import Recipe
from cluenet.run import Run
from helpers.models import base_folder, clip, example

PROJECTIONS = {f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")}
TUNINGS = {
    "full": "full",
    "frozen tower": {"name": "full", "vision": False},
    "frozen tower and projector": {"name": "full", "vision": False, "projector": False},
    "lora": "lora",
    "lora and projector": {"name": "lora", "projector": True},
    "lora in the tower": {"name": "lora", "vision": True},
}


SECTION = {
    "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}, "clue_filter": "adaptive", "reasoner": "clue_chain",
}  # fmt: skip


def tuned(how="lora", *, reasoner="clue_chain", seed=0, **train):
    load_components()
    section = ModelSection.model_validate({**SECTION, "reasoner": reasoner})
    settings = TrainSection.model_validate({"tuning": how, **train})
    return build_model(section, base_folder(), seed=seed, train=settings)


def batch_of(model):
    clips = [(clip(0), [example(0), example(1)]), (clip(1), [example(2)])]
    return model.collate(clips, seed=0, shuffle_options=False, chain=True)


def loss_of(model, stage=None, seed=0):
    torch.manual_seed(seed)
    return model(batch_of(model), stage=stage or Stage2(), seed=0, progress=0.5)["loss"]


def scores_of(model):
    with model.inference():
        return torch.tensor([answer.option_probabilities for answer in model.predict(batch_of(model))[:1]])


# ------------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("full", {"gate", "clues", "projector", "vision", "text"}),
        ("frozen tower", {"gate", "clues", "projector", "text"}),
        ("frozen tower and projector", {"gate", "clues", "text"}),
        ("lora", {"gate", "clues", "text"}),
        ("lora and projector", {"gate", "clues", "projector", "text"}),
        ("lora in the tower", {"gate", "clues", "vision", "text"}),
    ],
)
def test_what_is_trained(name, trained):
    model = tuned(TUNINGS[name])
    groups = tuning.groups_of(model)
    assert {group for group, parameters in groups.items() if parameters} == trained
    assert sum(map(len, groups.values())) == sum(p.requires_grad for p in model.parameters())
    loss_of(model.train(), Stage1()).backward()
    moved = {group for group, parameters in groups.items() if any(p.grad is not None for p in parameters)}
    assert moved == trained - {"gate"}  # stage 1 does not teach it
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_full_tuning_is_what_a_model_without_settings_trains():
    plain = build_model(
        ModelSection.model_validate({"clue_extractor": {"name": "latent_slots", "heads": 2}}), base_folder(), seed=0
    )
    assert all(p.requires_grad for p in plain.parameters())
    assert all(p.requires_grad for p in tuned("full").parameters())


def test_adapters_are_in_the_language_model_alone():
    model = tuned()
    names = {name for name, p in model.vlm.hf.named_parameters() if p.requires_grad}
    assert all(
        re.fullmatch(r"model\.language_model\.layers\.\d\..*\.lora_[AB]\.default\.weight", name) for name in names
    )
    assert {name.split(".")[5] for name in names} == PROJECTIONS
    assert len(names) == 3 * 7 * 2  # layers, projections, factors


def test_adapters_in_the_tower_leave_the_projector_alone():
    model = tuned(TUNINGS["lora in the tower"])
    names = [name for name, p in model.vlm.hf.named_parameters() if p.requires_grad and ".visual." in name]
    assert {name.split(".")[4] for name in names} == {"attn", "mlp"}
    assert not any("merger" in name for name in names)


def test_trained_and_all_parameters_are_counted():
    full, lora, both = (tuned(TUNINGS[name]).describe() for name in ("full", "lora", "lora and projector"))
    assert full["trainable_parameters"] == full["backbone_parameters"] + full["clue_parameters"]
    added = sum(p.numel() for name, p in tuned().named_parameters() if ".lora_" in name)
    assert lora["backbone_parameters"] == full["backbone_parameters"] + added
    assert lora["trainable_parameters"] == lora["clue_parameters"] + added
    merger = sum(p.numel() for p in tuned("full").vlm.hf.model.visual.merger.parameters())
    assert both["trainable_parameters"] == lora["trainable_parameters"] + merger
    assert both["backbone_parameters"] == lora["backbone_parameters"]


# -------------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("name", ["lora", "lora and projector", "lora in the tower"])
def test_adapters_start_as_the_backbone_and_learn(name):
    model, plain = tuned(TUNINGS[name]), tuned("full")
    assert torch.equal(scores_of(model), scores_of(plain))
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    stage = Stage2(lr=0.01)
    optimizers, losses = optimizers_of(model.train(), stage), []
    for _ in range(5):
        loss = loss_of(model, stage)
        losses.append(float(loss.detach()))
        optimizers.step(loss, factor=1.0)
    assert losses[-1] < losses[0] - 1
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert not torch.equal(scores_of(model), scores_of(plain))


@pytest.mark.parametrize("name", ["lora", "lora and projector", "lora in the tower"])
def test_without_its_adapter_it_is_the_backbone(name):
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    model, plain = tuned(TUNINGS[name]), tuned("full")
    with torch.no_grad():
        for part, parameter in model.vlm.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(part))) * 0.1)
    assert not torch.allclose(scores_of(model), scores_of(plain), atol=1e-3)
    for module in model.modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            module.enable_adapters(False)
    assert torch.equal(scores_of(model), scores_of(plain))


def test_the_adapters_start_depends_on_the_seed_alone():
    def factors(**changes):
        return torch.cat([p.flatten() for name, p in tuned(**changes).named_parameters() if ".lora_A." in name])

    assert torch.equal(factors(), factors(reasoner="evidence"))
    assert not torch.equal(factors(), factors(seed=1))


# --------------------------------------------------------------------------------------------------------- targets


def targets(wanted, **settings):
    model = tuned("full").vlm
    chosen = TrainSection.model_validate({"tuning": {"name": "lora", "targets": wanted, **settings}}).tuning
    return tuning.targets_of(model.hf, model.family, chosen)


def test_targets_by_names_and_by_regular_expression():
    assert {name.rpartition(".")[2] for name in targets(["q_proj", "v_proj"])} == {"q_proj", "v_proj"}
    assert len(targets(["q_proj", "v_proj"])) == 6
    assert targets(r".*layers\.[01]\.mlp\.up_proj") == [f"model.language_model.layers.{n}.mlp.up_proj" for n in (0, 1)]
    assert targets(["layers.2.self_attn.o_proj"]) == ["model.language_model.layers.2.self_attn.o_proj"]
    assert len(targets("model.visual.*qkv", vision=True)) == 1
    assert len(targets(None)) == 21


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ["q_proj", "v_prj"],
            r"'v_prj' matches no linear layer. Did you mean 'v_proj'\? Layers are called: down_proj, ",
        ),
        (
            r".*layers\.9\.mlp\.up_proj",
            r"'.*' matches no linear layer. Did you mean 'model.language_model.layers.0.mlp.up_proj'",
        ),
        ("q_proj", "'q_proj' matches no linear layer"),  # a regular expression matches whole names
        (["lm_head"], "'lm_head' matches no linear layer"),
        (
            ["qkv"],
            "'qkv' matches 1 layers of the vision tower, such as model.visual.blocks.0.attn.qkv, and none of the language",
        ),
    ],
)
def test_targets_that_match_nothing_are_refused_without_weights(wanted, message, monkeypatch):
    train = TrainSection.model_validate({"tuning": {"name": "lora", "targets": wanted}})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(RecipeError, match=f"my.yaml: 1 problem\n  train.tuning.targets: {message}"):
        check_tuning(train, base_folder(), file="my.yaml")


def test_targets_that_match_pass_the_check():
    for how in TUNINGS.values():
        check_tuning(TrainSection.model_validate({"tuning": how}), base_folder(), file="my.yaml")


# ---------------------------------------------------------------------------------------------- learning rates, muon


def rates(model, stage):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (type(optimizer).__name__, group["lr"])
        for optimizer in optimizers_of(model, stage).all for group in optimizer.param_groups for p in group["params"]
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rates_reach_their_groups(optimizer):
    model = tuned("full")
    lrs = {"gate": 0.4, "clues": 0.3, "projector": 0.2, "vision": 0.1}
    found = rates(model, Stage2(optimizer=optimizer, lr=0.02, adamw_lr=0.05, lrs=lrs))
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, (kind, rate) in found.items():
        group = {"filter": "gate", "extractor": "clues", "slot_embedding_KWD": "clues"}.get(name.split(".")[0])
        if group is None:
            group = "projector" if ".merger." in name else "vision" if ".visual." in name else "text"
        if group == "text":
            matrix = optimizer == "muon" and ".layers." in name and name.endswith("_proj.weight")
            assert (kind, rate) == (("Muon", 0.02) if matrix else ("AdamW", 0.05 if optimizer == "muon" else 0.02)), (
                name
            )
        else:
            assert (kind, rate) == ("AdamW", lrs[group]), name


def test_with_muon_adapters_are_adamws_and_whole_matrices_are_not():
    found = rates(tuned(TUNINGS["lora and projector"]), Stage2(optimizer="muon", lr=0.02, adamw_lr=0.05))
    assert {kind for name, kind in found.items() if ".lora_" in name} == {("AdamW", 0.05)}
    merger = {name: kind for name, kind in found.items() if ".merger." in name and name.endswith("fc1.weight")}
    assert list(merger.values()) == [("Muon", 0.02)]
    assert not any("base_layer" in name or "original_module" in name for name in found)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train": {"tuning": "lora", "stage1": {"lrs": {"vision": 0.1}}}}, "train.stage1.lrs.vision: is 0.1, but train.tuning.vision is false"),
        ({"train": {"tuning": {"name": "full", "projector": False}, "stage2": {"lrs": {"projector": 0.1}}}},
         "train.stage2.lrs.projector: is 0.1, but train.tuning.projector is false"),
        ({"train": {"stage2": {"lrs": {"gate": 0.1}}}}, "train.stage2.lrs.gate: is 0.1, but the clue filter 'keep_all' has no gate"),
        ({"model": {"clue_filter": "adaptive"}, "train": {"stage1": {"lrs": {"gate": 0.1}}}}, "train.stage1.lrs.gate: .* is 0"),
        ({"model": {"reasoner": "direct"}, "train": {"stage1": {"lrs": {"clues": 0.1}}}},
         "train.stage1.lrs.clues: is 0.1, but the reasoner 'direct' reads no clues"),
    ],
)  # fmt: skip
def test_a_rate_for_what_is_not_trained_is_refused(changes, problem):
    with pytest.raises(RecipeError, match=problem):
        Recipe.from_dict(changes)


def test_a_rate_without_parameters_never_reaches_an_optimizer():
    with pytest.raises(ValueError, match="nothing is trained in vision"):
        optimizers_of(tuned(), Stage2(lrs={"vision": 0.1}))


# -------------------------------------------------------------------------------------------- gradient checkpointing


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
@pytest.mark.parametrize("stage", [Stage1(), Stage2()], ids=["stage1", "stage2"])
@pytest.mark.parametrize("name", ["full", "lora and projector"])
def test_gradient_checkpointing_gives_the_same_gradients(name, stage, reasoner):
    found = []
    for recomputed in (False, True):
        model = tuned(TUNINGS[name], reasoner=reasoner, gradient_checkpointing=recomputed).train()
        loss = loss_of(model, stage)
        loss.backward()
        found.append((float(loss.detach()), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (plain_loss, plain), (loss, gradients) = found
    assert loss == plain_loss
    assert set(gradients) == set(plain)
    assert all(torch.equal(gradients[n], plain[n]) for n in plain)


def test_gradient_checkpointing_runs_layers_again_in_training_only():
    model = tuned(gradient_checkpointing=True).train()
    calls = []
    model.vlm.text.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append("decoder"))
    model.vlm.hf.model.visual.blocks[0].mlp.register_forward_pre_hook(lambda *_: calls.append("tower"))
    loss = loss_of(model, Stage1())
    before = {part: calls.count(part) for part in ("decoder", "tower")}
    loss.backward()
    assert calls.count("decoder") == 2 * before["decoder"] > 0
    assert (before["tower"], calls.count("tower")) == (1, 1)  # it is frozen, so backward does not reach it
    calls.clear()
    scores_of(model)
    assert calls.count("decoder") == before["decoder"] > 0


def kept_bytes(model):
    """What one step holds for its backward pass: what autograd saves, and the inputs of layers that are run again."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(value):
        if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in weights:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            layer.register_forward_pre_hook(
                lambda _, args, kwargs: [keep(v) for v in tree_flatten((args, kwargs))[0]] and None, with_kwargs=True
            )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss_of(model.train(), Stage1())
    return sum(value.untyped_storage().nbytes() for value in kept.values())


@pytest.mark.parametrize("name", ["full", "lora"])
def test_gradient_checkpointing_keeps_less(name):
    plain, recomputed = (kept_bytes(tuned(TUNINGS[name], gradient_checkpointing=on)) for on in (False, True))
    assert recomputed < plain / 3


# ---------------------------------------------------------------------------------------------- checkpoints, 4 bits


def test_a_checkpoint_holds_all_or_what_differs_from_the_base():
    assert tuning.saved_names(tuned("full")) is None
    model = tuned(TUNINGS["lora and projector"])
    names = tuning.saved_names(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= names <= set(model.state_dict())
    assert names - trained == {name for name in names if not name.startswith("vlm.")} - trained
    other = tuned(TUNINGS["lora and projector"], seed=1)
    assert not torch.equal(scores_of(other), scores_of(model))
    other.load_state_dict({name: value for name, value in model.state_dict().items() if name in names}, strict=False)
    assert torch.equal(scores_of(other), scores_of(model))


def test_qlora_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    train = TrainSection.model_validate({"tuning": "qlora"})
    message = r"my.yaml: 1 problem\n  train.tuning: qlora needs bitsandbytes, .* pip install cluenet\[qlora\], or set it to lora"
    with pytest.raises(RecipeError, match=message):
        check_tuning(train, base_folder(), file="my.yaml")
    with pytest.raises(RecipeError, match="qlora needs bitsandbytes"):
        tuned("qlora")


def test_qlora_holds_the_language_model_in_4_bits_and_nothing_else():
    """Which modules transformers would convert, by its own rule."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    train = TrainSection.model_validate(
        {"tuning": {"name": "qlora", "quantization": "fp4", "double_quantization": False}}
    )
    config = quantization.config_of(train.tuning, bf16=True)
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "fp4", False)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization.config_of(train.tuning, bf16=False).bnb_4bit_compute_dtype == torch.float32
    hf = tuned("full").vlm.hf
    linear = [name for name, module in hf.named_modules() if isinstance(module, nn.Linear)]
    held = {name for name in linear if should_convert_module(name, config.llm_int8_skip_modules)}
    assert held == {name for name in linear if ".language_model.layers." in name}
    assert len(held) == 21


def test_a_run_checks_the_tuning_before_any_worker_starts(monkeypatch, tmp_path):
    run = Run(Recipe.from_dict({"name": "mine", "train": {"tuning": {"name": "lora", "targets": ["nothing"]}}}))
    vars(run)["base"], vars(run)["prepared"], vars(run.plan)["run"] = base_folder(), {}, tmp_path
    monkeypatch.setattr(type(run.plan), "address", lambda *_: "a" * 20)
    monkeypatch.setattr(Run, "_share", lambda *_: None)
    monkeypatch.setattr(Run, "_connect", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(
        RecipeError, match=r"mine: 1 problem\n  train\.tuning\.targets: 'nothing' matches no linear layer"
    ):
        run._stage("stage1", None)
