"""What kept features are worth: reading them against looking at the clip, and a training step with either.

The processor's seconds of one thread. Two vision towers on ClueWorld: the quickstart's, of one layer, and one that is large
beside its language model, as SmolVLM2's is.
"""

from __future__ import annotations

import time

import pytest
import torch

from cluenet.data.features import make_features
from cluenet.features import Tower, opened
from cluenet.folders import read_manifest
from cluenet.model.vlm import VisionLanguageModel
from cluenet.prepared import PreparedSet
from helpers.evaluation import Silent
from helpers.training_speed import World, per_step, trained

TOWERS = {"quickstart": (), "large": ("model.backbone.vision_hidden=192", "model.backbone.vision_layers=4")}
READ_FASTER = {"quickstart": 1.0, "large": 3.0}
"""How many times faster a clip's features are read than its frames are read and looked at, at least."""
CLIPS = 8


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", TOWERS)
def test_features_against_the_live_tower(benchmark, tmp_path, say, size: str) -> None:
    frozen = ("train.tuning={name: full, vision: false}", "train.resources.cpu=1")
    world = World.made(tmp_path, *TOWERS[size], *frozen)
    recipe = world.recipe("stage1", steps=18, questions=6, clips=CLIPS)
    folder = make_features(recipe, world.prepared, Tower(world.base, {}), progress=Silent, local=True)
    vlm, live = VisionLanguageModel.load(world.base).eval(), PreparedSet(world.prepared)
    encoded = opened(world.prepared, {world.prepared: folder})
    torch.set_num_threads(1)

    @torch.no_grad()
    def looked() -> None:
        for key in live.clip_keys:
            frames = live.frames(key)
            grid = vlm.grid_of(frames)
            vlm.tower(vlm.pixels(frames.frames_THWC, grid), vlm.grid_thw([grid]))

    def read() -> None:
        for key in encoded.clip_keys:
            encoded.clip(key)

    started = time.process_time()
    looked()
    looking = time.process_time() - started
    benchmark.pedantic(read, rounds=3)
    reading = benchmark.stats.stats.min
    rounds = [
        [trained(world.job("stage1", steps=18, questions=6, clips=CLIPS, features=one)) for one in (None, folder)]
        for _ in range(2)
    ]
    for with_tower, with_features in rounds:
        assert with_features.losses == pytest.approx(with_tower.losses, rel=1e-3)
    steps = [min(per_step(one.processor) for one in same) for same in zip(*rounds, strict=True)]
    manifest = read_manifest(folder)
    say(
        f"{size} tower: a clip is looked at in {1e3 * looking / len(live):.2f} ms, its features "
        f"({manifest['bytes'] / manifest['clips'] / 2**20:.2f} MiB) are read in {1e3 * reading / len(live):.2f} ms; a step "
        f"takes {steps[0]:.3f} s with the tower, {steps[1]:.3f} s with features"
    )
    assert looking / reading >= READ_FASTER[size]
    assert steps[1] < steps[0]
