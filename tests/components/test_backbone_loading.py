"""Checkpoint folders that cannot be used are refused before weights are read, with all that is wrong; dtypes and attention."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from cluenet.errors import CheckpointError
from cluenet.model.loading import Checkpoint, attention_of
from cluenet.model.shared_prompt import prefix_batch
from cluenet.model.vlm import VisionLanguageModel
from cluenet.plugins import load_components
from cluenet.registry import register
from helpers.checkpoints import FAMILIES, SPECIALS, bpe_tokenizer, checkpoint, processor_settings
from helpers.models import clip

load_components()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of a good checkpoint, to be damaged."""
    return copied("qwen3_vl", tmp_path)


def copied(family: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint(family), tmp_path / "checkpoint"))


def edit(path: Path, **changes) -> None:
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def backbone(path, **settings):
    return register.backbone.parse({"name": "hf_vlm", "path": str(path), **settings}).build()


def refused(folder: Path, *said: str, **options) -> None:
    """By the adapter, and by the component before there are workers."""
    for opening in (lambda: VisionLanguageModel.load(folder, **options), backbone(folder, **options).sources):
        with pytest.raises(CheckpointError) as error:
            opening()
        assert not [part for part in said if part not in str(error.value)], str(error.value)
        assert str(folder) in str(error.value)


# ------------------------------------------------------------------------------------------------- what is refused


def test_an_unknown_family_is_named_with_those_that_are_known(folder):
    edit(folder / "config.json", model_type="qwen3_vll")
    refused(folder, "model_type 'qwen3_vll' is not supported", "Did you mean 'qwen3_vl'?", *FAMILIES)


def test_a_missing_shard_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
    there = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {**there, "lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "1 of the 2 files", "missing: model-00002-of-00002.safetensors", "hf download")
    index["weight_map"] = there
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    VisionLanguageModel.load(folder)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "neither model.safetensors nor model.safetensors.index.json", "hf download")


def test_weights_that_are_in_no_file_are_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "q_proj" in name)
    save_file(
        {key: value for key, value in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"1 weights that config\.json asks for are in no file, such as .*q_proj"):
        VisionLanguageModel.load(folder)


def test_weights_that_are_cut_off_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="weights cannot be read"):
        VisionLanguageModel.load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_of_another_model_is_refused(family, tmp_path):
    other = "llava_onevision" if "qwen" in family else "qwen3_vl"
    folder = copied(family, tmp_path)
    bpe_tokenizer(other).save_pretrained(folder)
    lacking = [token for token in SPECIALS[family] if token not in SPECIALS[other]]
    refused(
        folder, "its tokenizer has no token", next(t for t in lacking if t not in ("<image>", "<end_of_utterance>"))
    )


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_damaged_tokenizer_is_refused(folder, text):
    (folder / "tokenizer.json").write_text(text)
    refused(folder, "its tokenizer cannot be read")


def test_a_tokenizer_without_chat_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=None)
    refused(folder, "no place for a video", "<|vision_start|><|video_pad|><|vision_end|>", "chat or instruct version")


def test_a_chat_template_for_text_alone_is_refused(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}")
    refused(folder, "no place for a video")


def test_without_processor_files_pixels_are_not_guessed(folder):
    (folder / "video_preprocessor_config.json").unlink()
    refused(folder, "none of processor_config.json, video_preprocessor_config.json, preprocessor_config.json is there")


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("internvl", {"image_mean": None}, "image_mean=None; three numbers"),
        ("internvl", {"do_normalize": False}, "do_normalize=False; only True is implemented"),
        ("internvl", {"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ("internvl", {"resample": 2}, "resample=2; only 3 (bicubic) is implemented"),
        ("smolvlm", {"resample": 3}, "resample=3; only 1 (lanczos) is implemented"),
        ("internvl", {"size": {"height": 64, "width": 64}}, "frames 64 pixels wide, config.json says 32"),
        ("internvl", {"size": None}, "do not give the size of frames: 'size' is missing"),
        ("smolvlm", {"max_image_size": None}, "do not give the size of frames: 'max_image_size' is missing"),
        ("qwen2_5_vl", {"patch_size": 14}, "patch_size=14, config.json says 4"),
        ("qwen2_5_vl", {"cap_pixels_per_frame": True}, "cap_pixels_per_frame=True; only False"),
    ],
)
def test_processor_settings_that_do_not_fit_are_refused(family, changes, said, tmp_path):
    folder = copied(family, tmp_path)
    edit(folder / "preprocessor_config.json", **changes)
    refused(folder, said)


def test_sliding_windows_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["layer_types"] = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    edit(folder / "config.json", text_config=config["text_config"])
    refused(folder, "sliding windows")


def test_everything_that_is_wrong_is_said_at_once(folder):
    (folder / "model.safetensors").unlink()
    (folder / "video_preprocessor_config.json").unlink()
    bpe_tokenizer("internvl").save_pretrained(folder)
    refused(
        folder,
        "neither model.safetensors",
        "no token <|vision_start|>, <|vision_end|>, <|video_pad|>",
        "none of processor",
    )


def test_attention_that_is_not_installed_is_refused(folder):
    refused(
        folder, "flash_attention_2 is not installed", "model.backbone.attention=sdpa", attention="flash_attention_2"
    )


def test_unknown_dtype_and_attention_are_errors_of_the_recipe():
    for wrong in ({"dtype": "float8"}, {"attention": "flash"}):
        with pytest.raises(ValidationError, match="Input should be"):
            register.backbone["hf_vlm"].Config(path="x", **wrong)


def test_a_hub_id_that_is_not_here_names_the_command(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="hf download somebody/some-model --revision v1"):
        backbone("somebody/some-model", revision="v1").sources()


# --------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folders_are_as_they_were(family, tmp_path):
    vlm = VisionLanguageModel.load(checkpoint(family))
    vlm.save(tmp_path)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        before, after = checkpoint(family) / name, tmp_path / name
        assert before.exists() == after.exists()
        assert not before.exists() or json.loads(before.read_text()) == json.loads(after.read_text())
    again = VisionLanguageModel.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(vlm.state_dict().values(), again.state_dict().values(), strict=True))
    assert again.chat_parts() == vlm.chat_parts()


def test_settings_are_read_in_the_order_of_hugging_face(folder):
    """Nested in processor_config.json, else the file for videos, else the one for images."""
    mean = {name: [value] * 3 for name, value in {"image": 0.1, "video": 0.2, "nested": 0.3}.items()}
    settings = processor_settings("qwen3_vl")
    (folder / "video_preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": mean["image"]}))
    assert VisionLanguageModel.load(folder).processor.mean == (0.1, 0.1, 0.1)
    (folder / "video_preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": mean["video"]}))
    assert VisionLanguageModel.load(folder).processor.mean == (0.2, 0.2, 0.2)
    nested = {"video_processor": {**settings, "image_mean": mean["nested"]}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert VisionLanguageModel.load(folder).processor.mean == (0.3, 0.3, 0.3)


def test_the_processors_chat_template_goes_before_the_tokenizers(folder):
    """Older checkpoints: a template for text in tokenizer_config.json, the one for videos in chat_template.json."""
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": f"From the processor: {template}"}))
    assert not AutoTokenizer.from_pretrained(folder).chat_template.startswith("From")
    head, _, _ = VisionLanguageModel.load(folder).chat_parts()
    assert head == "From the processor: <|im_start|>user\n"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_holds_weights_in_it_and_gives_states_in_full(dtype):
    vlm, full = (VisionLanguageModel.load(checkpoint("internvl"), dtype=name).eval() for name in (dtype, "float32"))
    assert {str(p.dtype) for p in vlm.parameters()} == {f"torch.{dtype}"}
    c = clip(0)
    batch = prefix_batch(vlm, [c], [vlm.grid(c.frames_THWC, c.seconds_T)])
    with torch.no_grad():
        states, wanted = (one.prefix(batch, layer=2, whole=False).visual_BND for one in (vlm, full))
    assert states.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(states, wanted, dim=-1).min() > 0.99
    assert backbone("x", dtype=dtype).loading() == {"dtype": dtype, "attention": "sdpa"}


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_attention_computes_the_same(family):
    c, found = clip(1), []
    for attention in ("sdpa", "eager"):
        vlm = VisionLanguageModel.load(checkpoint(family), attention=attention).eval()
        parts = (vlm.hf.config, vlm.hf.config.text_config, vlm.hf.config.vision_config)
        assert {part._attn_implementation for part in parts} == {attention}
        grid = vlm.grid(c.frames_THWC, c.seconds_T)
        with torch.no_grad():
            found.append(vlm.prefix(prefix_batch(vlm, [c], [grid]), layer=3, whole=True).visual_BND)
    assert torch.allclose(*found, atol=1e-4 * float(found[0].abs().max()))


def test_flash_attention_is_the_towers_alone():
    config = Checkpoint.open(checkpoint("qwen3_vl")).config
    assert attention_of(config, "flash_attention_2") == {
        "": "sdpa", "text_config": "sdpa", "vision_config": "flash_attention_2"
    }  # fmt: skip


def test_nothing_of_torchvision_is_needed():
    """A checkpoint loads and makes pixels in a process that could not import it."""
    program = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import numpy as np\n"
        "from cluenet.model.vlm import VisionLanguageModel\n"
        f"vlm = VisionLanguageModel.load({str(checkpoint('smolvlm'))!r})\n"
        "frames = np.zeros((2, 20, 30, 3), dtype=np.uint8)\n"
        "print(*vlm.pixels(frames, vlm.grid(frames, np.arange(2))).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["2", "3", "32", "32"]
