"""Pixels and sizes, bit for bit, against Hugging Face's own video processors (`helpers.hf_video_processors` says how they run
without torchvision), and the traps of processor files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cluenet.model.families import FAMILIES
from cluenet.model.vlm import VisionLanguageModel
from helpers.checkpoints import checkpoint, processor_settings

SHAPES = {  # frames, height, width: nothing to resize, up, down, wide, tall, an odd number of frames
    "as_it_is": (4, 32, 32), "up": (4, 12, 14), "down": (6, 150, 130), "wide": (4, 20, 61), "tall": (4, 75, 33), "odd": (5, 40, 56),
}  # fmt: skip
CASES = [(family, shape, kind) for family in FAMILIES for shape in SHAPES for kind in ("noise", "smooth")]


def frames(shape: str, kind: str) -> np.ndarray:
    count, height, width = SHAPES[shape]
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    t, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (count, height, width)), indexing="ij")
    waves = [127.5 + 127.5 * np.sin(x * (1 + c) + y + t) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> dict[str, np.ndarray]:
    folder, request = tmp_path_factory.mktemp("pixels"), {}
    for family, shape, kind in CASES:
        case = f"{family}-{shape}-{kind}"
        request[f"{case}/frames"] = frames(shape, kind)
        request[f"{case}/settings"] = json.dumps({"family": family, **processor_settings(family)})
    np.savez(folder / "request.npz", **request)
    command = [sys.executable, "-m", "helpers.hf_video_processors", "request.npz", "result.npz"]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    subprocess.run(
        command, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    )
    return dict(np.load(folder / "result.npz"))


@pytest.mark.parametrize(("family", "shape", "kind"), CASES)
def test_pixels_are_those_of_the_hf_video_processor_bit_for_bit(theirs, family, shape, kind):
    vlm, video = VisionLanguageModel.load(checkpoint(family)), frames(shape, kind)
    grid = vlm.grid(video, np.arange(len(video)) / 4)
    ours, wanted = vlm.pixels(video, grid), torch.from_numpy(theirs[f"{family}-{shape}-{kind}/pixels"])
    assert torch.equal(ours, wanted.reshape(ours.shape))
    if FAMILIES[family].patches:
        assert torch.equal(vlm.grid_thw([grid]), torch.from_numpy(theirs[f"{family}-{shape}-{kind}/grid"]))
