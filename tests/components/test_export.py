"""Model folders with an adapter, and what `cluenet export` makes of them: the same answers, and clear words when it cannot."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from cluenet import cli
from cluenet.config.model import ModelSection
from cluenet.config.train import TrainSection
from cluenet.errors import CheckpointError
from cluenet.model import quantization
from cluenet.model.build import build_model
from cluenet.model.checkpoint import load_model, save_model
from cluenet.model.vlm import VisionLanguageModel
from cluenet.plugins import load_components
from helpers.checkpoints import FAMILIES, checkpoint
from helpers.models import clip, example

TRAINED = {"name": "lora", "r": 4, "projector": True}
ATOL = 1e-5


def saved(folder, *, family="qwen3_vl", tuning=TRAINED, base=None):
    """A run folder with a model whose trained weights were moved, and that model."""
    load_components()
    base = base or checkpoint(family)
    section = ModelSection.model_validate({
        "backbone": {"name": "hf_vlm", "path": str(base)}, "clue_filter": "adaptive", "reasoner": "clue_chain",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
    })  # fmt: skip
    train = TrainSection.model_validate({"tuning": tuning})
    model = build_model(section, base, seed=0, train=train)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    recipe = {"name": "x", "model": section.model_dump(mode="json"), "train": train.model_dump(mode="json")}
    card = {"tuning": train.tuning.name, **model.describe()}
    save_model(model, folder / "model", recipe=recipe, frame_policy={}, card=card)
    return model.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, saved(run)


@pytest.fixture
def call(capsys):
    def run(*arguments):
        return cli.call([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


def states(hf, vlm):
    """Logits of words alone, and the embeddings of a clip: what is left of the projector."""
    frames = clip(0)
    grid = vlm.grid(frames.frames_THWC, frames.seconds_T)
    mine = VisionLanguageModel(hf, vlm.tokenizer, vlm.files)
    with torch.no_grad():
        logits = hf(input_ids=torch.tensor([vlm.ids("which one hits red ?")])).logits
        return logits, mine.encode(vlm.pixels(frames.frames_THWC, grid), vlm.grid_thw([grid]))[0]


def answers(model):
    batch = model.collate([(clip(0), [example(0), example(1)])], seed=0, shuffle_options=False)
    return torch.cat([torch.tensor(answer.option_probabilities) for answer in model.predict(batch)])


# ---------------------------------------------------------------------------------------------------- model folders


def test_an_adapters_folder_holds_no_copy_of_the_backbone(trained):
    run, model = trained
    folder = run / "model"
    assert {path.name for path in folder.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "cluenet.safetensors", "model_config.json", "frame_policy.json",
        "README.md", "recipe.yaml",
    }  # fmt: skip
    names = list(load_file(folder / "adapter_model.safetensors"))
    assert all(".lora_" in name or "merger" in name for name in names)
    assert not any(name.startswith("vlm.") for name in load_file(folder / "cluenet.safetensors"))
    config = json.loads((folder / "model_config.json").read_text())
    assert config["base"]["folder"] == str(checkpoint("qwen3_vl"))
    assert (
        json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == config["base"]["folder"]
    )
    card = (folder / "README.md").read_text()
    assert f"| trainable_parameters | {model.describe()['trainable_parameters']} |" in card
    assert config["base"]["folder"] in card


def test_full_tuning_keeps_its_folder_as_it_was(tmp_path):
    saved(tmp_path, tuning="full")
    folder = tmp_path / "model"
    assert (folder / "backbone" / "model.safetensors").is_file()
    assert not list(folder.glob("adapter*"))
    assert set(json.loads((folder / "model_config.json").read_text())) == {"model", "plugins", "card"}


def copy_of(tmp_path):
    base = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "base")
    saved(tmp_path, base=base)
    return base, tmp_path / "model"


def test_a_base_that_is_gone_or_another_one_is_named(tmp_path):
    base, folder = copy_of(tmp_path)
    weights = load_file(base / "model.safetensors")
    save_file(
        {name: value + 1e-3 for name, value in weights.items()}, base / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(
        CheckpointError, match=rf"{base} \(hash \w{{20}}\), but what is there now is another one \(hash"
    ):
        load_model(folder)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{base} \(hash \w{{20}}\), which is not there"):
        load_model(folder)


def test_a_base_that_moved_may_be_named_again(tmp_path):
    base, folder = copy_of(tmp_path)
    wanted = answers(load_model(folder))
    base.rename(tmp_path / "elsewhere")
    config = json.loads((folder / "model_config.json").read_text())
    config["base"]["folder"] = str(tmp_path / "elsewhere")
    (folder / "model_config.json").write_text(json.dumps(config))
    assert torch.equal(answers(load_model(folder)), wanted)


def test_an_adapter_that_is_not_whole_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained[0] / "model", tmp_path / "model")
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    left = dict(list(weights.items())[1:])
    save_file(left, file)
    with pytest.raises(
        CheckpointError, match=f"{file}: does not fit the recorded tuning: 1 weights differ, such as model"
    ):
        load_model(folder)
    save_file({name: value[:1] for name, value in weights.items()}, file)
    with pytest.raises(CheckpointError, match=f"{file}: does not fit the recorded tuning: "):
        load_model(folder)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{file}: cannot be read"):
        load_model(folder)


def test_a_4_bit_model_without_its_library_says_what_to_do(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained[0] / "model", tmp_path / "model")
    config = json.loads((folder / "model_config.json").read_text())
    config["train"]["tuning"]["name"] = "qlora"
    (folder / "model_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(
        CheckpointError, match=r"qlora needs bitsandbytes.*pip install cluenet\[qlora\], or make a checkpoint"
    ):
        load_model(folder)


# ----------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_export_is_a_plain_checkpoint_with_the_same_logits(family, tmp_path, call):
    model = saved(tmp_path, family=family)
    out = tmp_path / "plain"
    code, printed, said = call("export", tmp_path, "--merge", "--out", out)
    assert (code, printed) == (0, f"Files:\n  {out}\n")
    assert "the clue filter and the slot embeddings are not" in said
    assert str(tmp_path / "model") in said
    plain = AutoModelForImageTextToText.from_pretrained(out)
    assert not any("lora" in name or "modules_to_save" in name for name in plain.state_dict())
    untrained = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    for mine, merged, before in zip(*(states(hf, model.vlm) for hf in (model.vlm.hf, plain.eval(), untrained.eval()))):
        assert torch.allclose(mine, merged, atol=ATOL)
        assert not torch.allclose(mine, before, atol=1e-2)
    text = "which one hits red ?"
    assert AutoTokenizer.from_pretrained(out)(text).input_ids == model.vlm.tokenizer(text).input_ids
    assert VisionLanguageModel.load(out).files == model.vlm.files
    assert "the clue filter and the slot embeddings are not" in (out / "README.md").read_text()


def test_an_exported_adapter_is_opened_by_peft(trained, tmp_path, call):
    run, model = trained
    out = tmp_path / "adapter"
    assert call("export", run / "model", "--adapter-only", "--out", out)[0] == 0
    assert {path.name for path in out.iterdir()} == {"adapter_model.safetensors", "adapter_config.json", "README.md"}
    opened = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(checkpoint("qwen3_vl")), out)
    for mine, theirs in zip(states(model.vlm.hf, model.vlm), states(opened.base_model.model.eval(), model.vlm)):
        assert torch.equal(mine, theirs)


def test_a_model_trained_whole_is_exported_as_it_is_and_has_no_adapter(tmp_path, call):
    saved(tmp_path, tuning="full")
    assert call("export", tmp_path, "--merge", "--out", tmp_path / "plain")[0] == 0
    for file in (tmp_path / "model" / "backbone").iterdir():
        assert (tmp_path / "plain" / file.name).read_bytes() == file.read_bytes()
    code, _, said = call("export", tmp_path, "--adapter-only", "--out", tmp_path / "adapter")
    assert (code, said) == (2, f"error: {tmp_path / 'model'}: its backbone was trained whole (train.tuning: full), so there is no "
                               "adapter. Export it with --merge.\n")  # fmt: skip
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("flags", [(), ("--merge", "--adapter-only")])
def test_one_of_the_two_forms_must_be_chosen(trained, tmp_path, call, flags):
    code, _, said = call("export", trained[0], *flags, "--out", tmp_path / "out")
    assert code == 2
    assert "give one of the two" in said


def test_nothing_is_overwritten_and_what_is_no_model_is_named(trained, tmp_path, call):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    code, _, said = call("export", trained[0], "--merge", "--out", tmp_path / "out")
    assert code == 2
    assert f"{tmp_path / 'out'}: is there already, and nothing is overwritten" in said
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years"
    code, _, said = call("export", tmp_path, "--merge", "--out", tmp_path / "new")
    assert code == 2
    assert f"{tmp_path}: no model_config.json, so this is not a ClueNet model folder" in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tuning", ["lora", "qlora"])
def test_merging_what_was_trained_on_4_bits_says_that_it_is_near(tmp_path, call, tuning):
    saved(tmp_path)
    config = json.loads((tmp_path / "model" / "model_config.json").read_text())
    config["train"]["tuning"]["name"] = config["card"]["tuning"] = tuning
    (tmp_path / "model" / "model_config.json").write_text(json.dumps(config))
    code, _, said = call("export", tmp_path, "--merge", "--out", tmp_path / "plain")
    assert code == 0
    assert ("near those of the trained model" in said) == (tuning == "qlora")
