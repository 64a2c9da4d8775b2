"""The measurements of tests/gpu, run on the CPU with a tiny model; and that they need little besides torch and transformers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from transformers import AutoConfig, AutoModelForImageTextToText

from helpers import gpu_inference, gpu_tier
from helpers.environments import ROOT
from helpers.gpu_profile import Profile
from helpers.gpu_tier import SMALL, asked
from helpers.gpu_training import Training
from helpers.released import TEXT_SIZES, VISION_SIZES

LITTLE = ("torch", "transformers", "pydantic", "pytest", "numpy", "safetensors")
ALONE = """
import sys
import pytest
assert pytest.main(["tests/gpu", "-rs", "-p", "no:cacheprovider"]) in (0, 5)
from helpers import gpu_inference, gpu_tier, gpu_training
training = gpu_training.Training(gpu_tier.SMALL, "cpu", "stage2")
training.ours(training.batch(2))
gpu_inference.prefix_reuse(gpu_tier.SMALL, "cpu")
gpu_inference.pruning(gpu_tier.SMALL, "cpu", questions=2, keeps=(0.5,), times=1)
gpu_inference.writing(gpu_tier.SMALL, "cpu", questions=2, tokens=2, times=1)
print("ran without", *(name for name in ("ray", "peft", "pyarrow", "hypothesis") if name not in sys.modules))
"""


def needed(names: Sequence[str]) -> set[str]:
    """Distributions that installing these brings, extras left out."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and (known := next(metadata.distributions(name=name), None)):
            found.add(name)
            left += [
                one.name for one in map(Requirement, known.requires or ()) if not one.marker or one.marker.evaluate()
            ]
    return found


def site_with(names: Sequence[str], folder: Path) -> Path:
    """A folder in the place of site-packages with links to these distributions and what they need."""
    folder.mkdir()
    for name in needed(names):
        files = metadata.files(name) or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).is_symlink():
                (folder / top).symlink_to(Path(str(metadata.distribution(name).locate_file(top))).absolute())
    return folder


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_training_is_measured(stage: str) -> None:
    training = Training(SMALL, "cpu", stage, lr=1e-3)
    found = training.ours(training.batch(SMALL.questions))
    assert len(found.losses) == len(found.ends) == SMALL.steps + 1
    assert all(map(math.isfinite, found.losses))
    assert found.losses[-1] < found.losses[0]
    assert found.seconds > 0
    assert found.peak is None


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
@pytest.mark.parametrize("apart", [False, True])
def test_the_trainer_finds_the_losses_that_we_find(stage: str, apart: bool, tmp_path: Path) -> None:
    training = Training(SMALL, "cpu", stage)
    ours = training.ours(training.batch(SMALL.questions))
    theirs = training.theirs(training.batch(SMALL.questions, apart=apart), tmp_path)
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-4)
    assert len(theirs.ends) == len(ours.ends)


def test_layers_may_be_run_again() -> None:
    plain, again = (Training(SMALL, "cpu", "stage2", recompute=recompute) for recompute in (False, True))
    assert again.model.vlm.recomputes
    assert not plain.model.vlm.recomputes
    losses = [one.ours(one.batch(SMALL.questions)).losses for one in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_parts_make_up_a_step() -> None:
    training, parts = Training(SMALL, "cpu", "stage2"), Counter[str]()
    found = training.ours(training.batch(SMALL.questions), parts=parts)
    assert set(parts) == {"forward", "backward", "optimizer"}
    assert sum(parts.values()) <= found.ends[-1] - found.ends[0]


def test_rows_apart_compute_each_clip_again() -> None:
    training = Training(SMALL, "cpu", "stage1")
    packed, apart = training.batch(SMALL.questions), training.batch(SMALL.questions, apart=True)
    assert len(apart.prefix.ids_BP) == SMALL.questions * len(packed.prefix.ids_BP)
    prompts = int(packed.prefix.valid_BP.sum())
    assert training.tokens(apart) - training.tokens(packed) == (SMALL.questions - 1) * prompts


def test_tokens_are_those_that_are_computed() -> None:
    """Counted from the questions' own words: prompts once per clip, a question twice, its clue slots and options once."""
    training = Training(SMALL, "cpu", "stage1")
    model, asked_of_each = training.model, [asked(number) for number in range(SMALL.questions)]
    vlm, layout, clips = model.vlm, model.collator.layout, gpu_tier.clips_of(SMALL)
    prompts = sum(len(vlm.video_ids(vlm.grid_of(one))) for one in clips)
    extraction = sum(len(vlm.ids(one.question)) + model.collator.queries for one in asked_of_each)
    answers = sum(
        len(layout.head_ids) + len(vlm.ids(one.question)) + model.slots * layout.words
        + len(layout._options(one)) + len(layout.tail_ids) for one in asked_of_each
    )  # fmt: skip
    batch = model.collate([(one, asked_of_each) for one in clips], seed=0, shuffle_options=False)
    assert training.tokens(batch) == prompts + len(clips) * (extraction + answers)


def test_inference_is_measured() -> None:
    assert gpu_inference.prefix_reuse(SMALL, "cpu").farthest < 1e-4
    found = gpu_inference.letters(SMALL, "cpu", times=1)
    assert found.farthest < 1e-4
    assert found.watching > 0


def test_what_is_pruned_is_measured() -> None:
    found = gpu_inference.pruning(SMALL, "cpu", questions=2, keeps=(1.0, 0.5), times=1)
    assert list(found) == ["evidence", "none", "two_pass 100%", "two_pass 50%", "kv_select 100%", "kv_select 50%"]
    assert found["two_pass 50%"].operations[0] < found["two_pass 100%"].operations[0]
    for mode in gpu_inference.MODES:
        for one, whole in zip(found[f"{mode} 100%"].answers, found["none"].answers, strict=True):
            assert one.option_logprobs == pytest.approx(whole.option_logprobs, abs=1e-4)


def test_the_engine_writes_what_generate_writes() -> None:
    found = gpu_inference.writing(SMALL, "cpu", questions=SMALL.questions, tokens=SMALL.written, times=1)
    assert len(found.ours) == SMALL.questions
    assert all(found.ours)
    assert found.ours == found.theirs
    assert [len(text.split()) for text in found.ours] == [SMALL.written] * SMALL.questions


def test_a_profile_says_which_operators_take_the_time() -> None:
    left, right = torch.randn(2, 400, 400)
    found = Profile.of(lambda: torch.mm(left, right), "cpu")
    assert next(iter(found.shares)) == "mm"
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0 < found.busy <= 1


def test_the_large_model_is_of_a_released_size() -> None:
    """Counted without weights; Qwen/Qwen3-VL-2B-Instruct has 2.13 billion."""
    config = AutoConfig.for_model(
        "qwen3_vl", text_config=TEXT_SIZES, vision_config=VISION_SIZES, tie_word_embeddings=True
    )
    with torch.device("meta"):
        hf = AutoModelForImageTextToText.from_config(config)
    assert sum(p.numel() for p in hf.parameters()) == pytest.approx(2.13e9, rel=0.01)


def test_little_needs_to_be_installed(tmp_path):
    """With nothing in reach but torch, transformers, pydantic, pytest, numpy, safetensors and what these need."""
    site = site_with(LITTLE, tmp_path / "site")
    assert not any((site / name).exists() for name in ("ray", "peft", "num2words", "scipy", "pyarrow", "hypothesis"))
    paths = [site, *(ROOT / name for name in ("platform", "components", "tests"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-S", "-c", ALONE]  # without the site-packages of this Python
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no GPU: torch finds no CUDA device" in done.stdout
    assert "could not import 'peft'" in done.stdout
    assert "ran without ray peft pyarrow hypothesis" in done.stdout
