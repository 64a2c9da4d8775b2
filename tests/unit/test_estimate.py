"""The formulas of `cluenet plan` against published figures and by hand; what it knows of accelerators and of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluenet.config.data import DataSection, Size
from cluenet.config.strategy import Ddp, DeepSpeed, Fsdp
from cluenet.data.batches import Clips as AskedClips
from cluenet.data.batches import batches
from cluenet.errors import CluenetError, DataError
from cluenet.estimate import data
from cluenet.estimate.accelerators import ACCELERATORS, accelerator, of_cluster
from cluenet.estimate.estimate import StageCost
from cluenet.estimate.states import Share, buffer_bytes, share_of
from cluenet.plugins import load_components
from cluenet.prepared import folder_of
from cluenet.recipe import Recipe
from cluenet.records import VideoRef
from helpers.prepared import prepared_set

load_components()
BILLION = 10**9


# -------------------------------------------------------------------------------------------------- accelerators


def test_accelerators_are_found_by_name_and_unknown_ones_are_explained():
    assert accelerator("H100").memory_bytes == 80 * BILLION
    with pytest.raises(CluenetError, match=r"'h10'.*Did you mean 'h100'.*a100-80gb"):
        accelerator("h10")
    assert all(one.name == name and one.bf16_tflops > 0 for name, one in ACCELERATORS.items())


def test_the_smallest_accelerator_of_a_cluster_counts():
    assert of_cluster({"CPU": 8, "accelerator_type:H100": 1, "accelerator_type:L4": 1}).name == "l4"
    assert of_cluster(["GPU", "accelerator_type:Something"]) is None
    assert of_cluster([]) is None


def test_hours():
    """1,000 steps of 989 TFLOP on 4 H100 at half of their speed: 500 s."""
    stage = StageCost("stage1", 1000, 1, {}, {}, 0, 0, 989e12)
    assert stage.hours(accelerator("h100"), workers=4, mfu=0.5) == pytest.approx(500 / 3600)


# -------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("share", "gigabytes"),
    [
        (Share(master=True), 120.0),
        (share_of(DeepSpeed(stage=1), 64), 31.4),
        (share_of(DeepSpeed(stage=2), 64), 16.6),
        (share_of(DeepSpeed(stage=3), 64), 1.9),
    ],
)
def test_states_are_those_of_the_zero_paper(share: Share, gigabytes: float):
    """Rajbhandari et al. 2020 (arXiv 1910.02054), figure 1: 7.5 billion parameters, 64 workers, 2 + 2 + 12 bytes."""
    count = 7.5 * BILLION
    found = share.bytes(weights=2 * count, gradients=2 * count, moments=8 * count, trained=4 * count)
    assert sum(found.values()) / BILLION == pytest.approx(gigabytes, abs=0.05)


def test_offloading_leaves_nothing_of_it_on_the_accelerator():
    sizes = {"weights": 4.0, "gradients": 4.0, "moments": 8.0, "trained": 4.0}
    whole = share_of(DeepSpeed(stage=3, offload_optimizer=True, offload_parameters=True), 2).bytes(**sizes)
    assert whole == {"weights": 0, "gradients": 0, "optimizer states": 0}
    assert share_of(DeepSpeed(stage=3, offload_optimizer=True), 2).bytes(**sizes)["weights"] == 2
    assert sum(share_of(Fsdp(cpu_offload=True), 2).bytes(**sizes).values()) == 0
    assert share_of(Fsdp(), 4).bytes(**sizes) == {"weights": 1, "gradients": 1, "optimizer states": 2}
    assert share_of(Ddp(), 4).bytes(**sizes) == {"weights": 4, "gradients": 4, "optimizer states": 8}


def test_buffers():
    """Two layers of 10 parameters and 5 beside them; fp32 has 4 bytes."""
    model = {"trained": 25, "layers": [10, 10], "total": 25}
    assert buffer_bytes(Ddp(), workers=1, **model) == 0
    assert buffer_bytes(Ddp(), workers=2, **model) == 4 * 25
    rest = 2 * 4 * 5
    assert buffer_bytes(Fsdp(), workers=2, **model) == rest + (4 + 4 + 4) * 10
    assert buffer_bytes(Fsdp(param_dtype="bf16"), workers=2, **model) == rest + (2 + 2 + 4) * 10
    assert buffer_bytes(Fsdp(reshard=False), workers=2, **model) == rest + 4 * 20
    assert buffer_bytes(DeepSpeed(stage=2), workers=2, **model) == 4 * 25
    assert buffer_bytes(DeepSpeed(stage=3), workers=2, **model) == 4 * (25 + 25)
    smaller = {
        "zero_optimization": {
            "reduce_bucket_size": 5,
            "stage3_max_live_parameters": 3,
            "stage3_prefetch_bucket_size": 1,
        }
    }
    assert buffer_bytes(DeepSpeed(stage=3, config=smaller), workers=2, **model) == 4 * (5 + 4)


# ---------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("sampler", "count"),
    [
        ({"name": "uniform", "frames": 12}, 12),
        ({"name": "fps", "rate": 2, "max_frames": 40}, 40),
        ({"name": "fps", "rate": 0.01, "max_frames": 64}, 36),
        ({"name": "scene_change", "frames": 8}, 8),
    ],
)  # fmt: skip
def test_frames_are_those_of_a_long_clip(sampler: dict, count: int):
    frames = data.frames_of(DataSection(sampler=sampler, size=Size(height=64, width=96)))
    assert frames.frames_THWC.shape == (count, 64, 96, 3)
    assert not frames.frames_THWC.any()


def test_the_size_of_a_frame():
    assert data.frame_size(Size(height=64, width=96)) == (64, 96)
    assert data.frame_size(Size(max_pixels=200_704)) == (448, 448)
    assert data.frame_size(Size(max_pixels=300, multiple=32)) == (32, 32)


def recipe(tmp_path: Path, **sets) -> Recipe:
    return Recipe.from_dict(
        {"name": "test", "store": str(tmp_path), "data": {"size": {"height": 32, "width": 48}, **sets}}
    )


def test_clips_and_questions_are_counted_from_rows(tmp_path: Path):
    """The same entry twice is prepared once."""
    small = {"name": "clueworld", "videos": 3, "folder": str(tmp_path / "world")}
    found = data.data_size(recipe(tmp_path, train=[small, small], test=[{**small, "split": "test"}]))
    rows = list(found.entries)
    assert [(one.split, one.clips, one.source) for one in rows] == [("train", 3, "rows"), ("test", 3, "rows")]
    assert found.examples[0].clues
    assert not (tmp_path / "world").exists()


def test_a_dataset_that_knows_its_clips_is_counted_from_some(tmp_path: Path):
    large = {"name": "clueworld", "videos": 900, "folder": str(tmp_path / "world")}
    (found,) = data.data_size(recipe(tmp_path, train=[large])).entries
    assert (found.clips, found.source) == (900, "sample")
    assert found.questions == pytest.approx(5.6 * 900, rel=0.05)
    (limited,) = data.data_size(recipe(tmp_path, train=[{**large, "max_samples": 50}])).entries
    assert (limited.questions, limited.source) == (50, "rows")


def test_what_is_prepared_is_measured(tmp_path: Path):
    settings = recipe(tmp_path, train=[{"name": "clueworld", "videos": 3}])
    folder = prepared_set(folder_of(settings, settings.data.train[0]), clips=4)
    size = data.data_size(settings)
    (entry,) = size.entries
    assert (entry.clips, entry.questions, entry.source) == (4, 10, "prepared")
    needed = data.data_bytes(size, data.frames_of(settings.data), feature_bytes=100)
    assert needed.prepared == sum(part.stat().st_size for part in (folder / "clips").iterdir())
    assert needed.prepared_measured
    assert needed.object_store == 0
    assert needed.features == 4 * 100


def test_bytes_of_what_is_not_prepared_are_a_bound(tmp_path: Path):
    """Lossless frames of noise, the worst there is, take as much as raw ones."""
    from cluenet.decoding import encode_frames
    from helpers.models import clip

    settings = recipe(tmp_path, train=[{"name": "clueworld", "videos": 3}], sampler={"name": "uniform", "frames": 8})
    needed = data.data_bytes(data.data_size(settings), data.frames_of(settings.data), feature_bytes=1)
    assert (needed.prepared, needed.prepared_measured) == (3 * 8 * 32 * 48 * 3, False)
    assert len(encode_frames(clip(frames=8), "lossless")) <= 1.05 * 8 * 32 * 48 * 3


def test_data_that_is_elsewhere_is_given_in_numbers(tmp_path: Path):
    settings = recipe(tmp_path, train=[{"name": "messages", "files": str(tmp_path / "absent.jsonl")}])
    with pytest.raises(DataError, match=r"absent.jsonl.*--clips N --questions N"):
        data.data_size(settings)
    found = data.data_size(settings, clips=1000, questions=5000)
    assert (found.clips, found.questions, found.examples) == (1000, 5000, ())
    assert "absent.jsonl" in found.unread[0]


def test_the_object_store_holds_no_more_than_that():
    """What a batch of files asks for and its account, as `cluenet.data` writes them; file names of 200 letters."""
    clips = AskedClips()
    for number in range(1000):
        clips.add(VideoRef(f"{'x' * 195}{number:05d}.mp4", 1.5, 31.25))
    asked = sum(len(batch.to_json()) for batch in batches(clips.jobs()))
    account = {
        "path": "x" * 204, "fps": None, "state": [10**9, 10**18], "sha256": "0" * 64, "openings": 1,
        "clips": [{"start_seconds": 1.5, "end_seconds": 31.25, "key": "0" * 20, "bytes": 10**7, "reader": "decord", "failed": []}],
    }  # fmt: skip
    assert asked + 1000 * len(json.dumps(account)) <= 1000 * data.OBJECT_BYTES_PER_CLIP
