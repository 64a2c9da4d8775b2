"""What is wrong with a checkpoint, its tuning or its strategy ends `cluenet run` before Ray is started: nothing is prepared, and
there are no workers. A plan that does not fit: test_estimate_plan.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from cluenet import cli
from cluenet.run import Run
from helpers.checkpoints import bpe_tokenizer, checkpoint

LORA = {"name": "lora", "targets": ["q_porj"]}
ZERO = {"name": "deepspeed", "config": {"gradient_clipping": 2.0}}


def unknown_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vll"}))


def missing_shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    save_file(weights, folder / first, metadata={"format": "pt"})
    index = {"weight_map": {**dict.fromkeys(weights, first), "lm_head.weight": second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def foreign_tokenizer(folder: Path) -> None:
    bpe_tokenizer("llava_onevision").save_pretrained(folder)


def nothing(folder: Path) -> None:
    """The checkpoint is good."""


CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], list[str]]] = {
    "unknown family": (unknown_family, {}, ["config.json: model_type 'qwen3_vll'", "Did you mean 'qwen3_vl'"]),
    "missing shard": (missing_shard, {}, ["missing: model-00002-of-00002.safetensors", "hf download"]),
    "tokenizer": (foreign_tokenizer, {}, ["its tokenizer has no token", "<|video_pad|>"]),
    "adapters": (nothing, {"tuning": LORA}, ["train.tuning.targets: 'q_porj' matches no linear layer", "q_proj"]),
    "deepspeed": (nothing, {"strategy": ZERO}, ["train.strategy.config.gradient_clipping: is decided by", "clip_norm"]),
}


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes one over a copy of a good checkpoint, with a row of data whose video is not there."""
    turns = [{"role": "user", "content": "<video> which one?"}, {"role": "assistant", "content": "red"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns, "videos": ["gone.mp4"]}) + "\n")
    shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "checkpoint")

    def write(**train: Any) -> Path:
        values = {
            "store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"), "train": train,
            "model": {"backbone": {"name": "hf_vlm", "path": str(tmp_path / "checkpoint")}},
            "data": {"train": [{"name": "messages", "files": str(tmp_path / "rows.jsonl")}]},
        }  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "recipe.yaml"

    return write


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(Run, "_connect", started)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("verb", ["run", "train"])
def test_it_is_said_before_ray_is_started(name: str, verb: str, recipe, tmp_path: Path, capsys) -> None:
    damage, train, said = CASES[name]
    damage(tmp_path / "checkpoint")
    assert cli.call([verb, str(recipe(**train))]) != 0
    error = capsys.readouterr().err
    assert not [part for part in said if part not in error], error
    assert "internal error" not in error
    assert not (tmp_path / "store").exists()


def test_a_good_one_would_start_it(recipe, capsys) -> None:
    """Else the test above could not fail."""
    assert cli.call(["run", str(recipe(tuning="lora"))]) != 0
    assert "Ray was started" in capsys.readouterr().err
