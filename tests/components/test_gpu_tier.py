"""The measurements of tests/gpu, run on the CPU with a tiny model; and that they need little besides torch and transformers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from helpers import gpu_tier
from helpers.environments import ROOT
from helpers.gpu_tier import SMALL
from helpers.models import example

LITTLE = ("torch", "transformers", "pydantic", "pytest", "numpy", "safetensors")
ALONE = """
import sys
import pytest
assert pytest.main(["tests/gpu", "-rs", "-p", "no:cacheprovider"]) in (0, 5)
from helpers import gpu_tier
gpu_tier.train(gpu_tier.SMALL, "cpu", "stage2")
gpu_tier.prefix_reuse(gpu_tier.SMALL, "cpu")
gpu_tier.pruning(gpu_tier.SMALL, "cpu")
gpu_tier.writing(gpu_tier.SMALL, "cpu")
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
def test_training_is_measured(stage):
    found = gpu_tier.train(SMALL, "cpu", stage)
    assert len(found.losses) == SMALL.steps + 1
    assert all(map(math.isfinite, found.losses))
    assert found.losses[-1] < found.losses[0]
    assert found.tokens_per_second == found.tokens / found.seconds
    assert found.peak is None


def test_tokens_are_those_that_are_computed():
    """Counted from the questions' own words: prompts once per clip, a question twice, its clue slots and options once."""
    model = gpu_tier.model_on(SMALL, "cpu")
    asked, clips = [example(number) for number in range(SMALL.questions)], gpu_tier.clips_of(SMALL)
    batch = model.collate([(one, asked) for one in clips], seed=0, shuffle_options=False)
    vlm, layout = model.vlm, model.collator.layout
    prompts = sum(len(vlm.video_ids(vlm.grid_of(one))) for one in clips)
    extraction = sum(len(vlm.ids(one.question)) + model.collator.queries for one in asked)
    answers = sum(
        len(layout.head_ids) + len(vlm.ids(one.question)) + model.slots * layout.words
        + len(layout._options(one)) + len(layout.tail_ids) for one in asked
    )  # fmt: skip
    assert gpu_tier.tokens_of(batch) == prompts + len(clips) * (extraction + answers)


def test_prompts_that_are_shared_and_pruned_are_measured():
    assert gpu_tier.prefix_reuse(SMALL, "cpu").answers_agree
    tokens = [count for count, _ in gpu_tier.pruning(SMALL, "cpu").values()]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[0] > tokens[-1]


def test_the_engine_writes_what_generate_writes():
    found = gpu_tier.writing(SMALL, "cpu")
    assert len(found.ours) == SMALL.questions
    assert all(found.ours)
    assert found.ours == found.theirs


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
