"""Runs a training stage in processes of its own, without Ray, and kills them where a test wants it.

    python -m helpers.training SPEC.json

The spec lists runs: a job, the number of workers and `kills`, one attempt per entry, then one more that must come to its end.
Workers are forked, so that only this process pays for the imports. Every micro-batch leaves its question ids behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluenet.model.pipeline import ClueNet
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.batches import TrainingBatches
from cluenet.train.job import StageJob, Worker
from cluenet.train.loop import run_stage
from cluenet.train.plan import place_of
from cluenet.train.stepping import Stepper
from cluenet.train.trackers import read_lines
from cluenet_components.clue_extractors.latent_slots import LatentSlots

TESTS = Path(__file__).parents[1]
TIMINGS = ("data_seconds", "seconds", "samples_per_second")


def recipe(**train: Any) -> Recipe:
    """Tiny stages; `train` is merged over them, section by section."""
    stage = {"clips_per_batch": 4, "questions_per_clip": 2, "optimizer": "muon", "lr": 0.02, "warmup_steps": 2}
    sections: dict[str, Any] = {
        "stage1": {"steps": 8, **stage},
        "stage2": {"steps": 4, **stage},
        "validation": {"every": 4, "max_clips": 3},
        "checkpoint": {"every": 3, "keep": 1},
    }
    for name, value in train.items():
        sections[name] = {**sections[name], **value} if isinstance(value, dict) and name in sections else value
    model = {"clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2}, "clue_filter": "adaptive"}
    sets = {"train": ["clueworld", {"name": "clueworld", "weight": 0.5}], "validation": ["clueworld"]}
    data = {"size": {"height": 32, "width": 48}, **sets}
    return Recipe.from_dict({"name": "test", "data": data, "model": model, "train": sections})


@dataclass(frozen=True)
class Attempts:
    """A stage to be run to its end, through attempts that are killed.

    kills: [{"rank": 0, "step": 3}], SIGKILL when that line is written; with "saving": true, in the middle of the
    checkpoint of that step. A lost worker takes the others with it, as a machine that is switched off does.
    """

    job: StageJob
    world_size: int = 1
    kills: tuple[dict[str, Any], ...] = ()
    poor_rank: int | None = (
        None  # of the largest number of workers: its micro-batches have no clues and its slots say nothing
    )

    @property
    def folder(self) -> Path:
        return Path(self.job.run).with_name(f"{Path(self.job.run).name}-attempts")


def run_attempts(*runs: Attempts) -> list[dict[tuple[int, int, int], list[str]]]:
    """Returns for each run the question ids of every micro-batch by (step, rank, part); its attempts agree on them."""
    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
    spec = runs[0].folder / "spec.json"
    spec.write_text(json.dumps([{**asdict(run), "folder": str(run.folder)} for run in runs]))
    paths = [str(TESTS), *sys.path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "helpers.training", str(spec)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [_ids(run.folder) for run in runs]


def _ids(folder: Path) -> dict[tuple[int, int, int], list[str]]:
    ids: dict[tuple[int, int, int], list[str]] = {}
    for file in sorted(folder.glob("ids-*.jsonl")):
        for *place, names in map(json.loads, file.read_text().splitlines()):
            assert ids.setdefault(tuple(place), names) == names, f"micro-batch {place} differs between attempts"
    return ids


def lines_of(run: Path) -> list[dict[str, Any]]:
    """logging.jsonl without what depends on the clock."""
    lines = read_lines(run / "logging.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def weights_of(checkpoint: Path) -> bytes:
    return (checkpoint / checkpoints.WEIGHTS).read_bytes()


def optimizer_of(checkpoint: Path) -> list[Any]:
    """The optimisers' tensors and numbers, flat, for comparison (a zip file holds its own name, so bytes differ)."""
    import torch

    def flat(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [item for key in value for item in (key, *flat(value[key]))]
        if isinstance(value, (list, tuple)):
            return [item for part in value for item in flat(part)]
        return [value.tolist() if isinstance(value, torch.Tensor) else value]

    return flat(torch.load(checkpoint / checkpoints.OPTIMIZER, weights_only=True))


# ------------------------------------------------------------------------------------------- inside the process


def main(spec: dict[str, Any]) -> None:
    for kill in spec["kills"]:
        codes = _attempt(spec, kill)
        assert codes[kill["rank"]] == -signal.SIGKILL, f"{kill} did not happen: {codes}"
        assert not (StageJob(**spec["job"]).folder / "manifest.json").exists()
    codes = _attempt(spec, None)
    assert set(codes) == {0}, codes


def _attempt(spec: dict[str, Any], kill: dict[str, Any] | None) -> list[int]:
    meeting = Path(spec["folder"]) / f"meeting-{time.time_ns()}"
    pids: list[int] = []
    for rank in range(spec["world_size"]):
        pid = os.fork()
        if pid == 0:
            _worker(spec, rank, meeting, kill)
        pids.append(pid)
    return _wait(pids)


def _wait(pids: list[int]) -> list[int]:
    """Exit codes; the first worker to fail ends the others."""
    codes: dict[int, int] = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid]:
            for other in set(pids) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[pid] for pid in pids]


def _worker(spec: dict[str, Any], rank: int, meeting: Path, kill: dict[str, Any] | None) -> None:
    import torch.distributed as dist

    size = spec["world_size"]
    try:
        if size > 1:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
        _remember_ids(Path(spec["folder"]) / f"ids-{rank}.jsonl")
        if spec["poor_rank"] is not None:
            _make_poor(spec["poor_rank"], Path(spec["folder"]) / "labels-of-the-poor.jsonl")
        if kill and kill["rank"] == rank and kill.get("saving"):
            _die_while_saving(kill["step"])

        def report(line: dict[str, Any]) -> None:
            if kill and kill["rank"] == rank and line["step"] == kill["step"] and not kill.get("saving"):
                _die()

        run_stage(StageJob(**spec["job"]), Worker(rank, size, report=report))
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _remember_ids(file: Path) -> None:
    original = TrainingBatches._batch

    def batch(self, draws, step, part):
        made = original(self, draws, step, part)
        with file.open("a") as out:
            out.write(json.dumps([step, self.group.rank, part, [example.id for example in made.examples]]) + "\n")
        return made

    TrainingBatches._batch = batch


def _make_poor(poor_rank: int, file: Path) -> None:
    """Training questions of that worker's micro-batches lose clues and chain, and its slots say nothing."""
    collate, forward, extract, trained = (
        TrainingBatches._batch, ClueNet.forward, LatentSlots.extract, Stepper._trained,
    )  # fmt: skip
    silent = False

    def bare(self, draws, step, part):
        place = place_of(part, rank=self.group.rank, parts=self.parts, accumulate=self.stage.accumulate)
        whole = type(self)._clip
        if place[0] == poor_rank:
            self._clip = lambda *args: _without_labels(*whole(self, *args))
        try:
            return collate(self, draws, step, part)
        finally:
            vars(self).pop("_clip", None)

    def forward_of(self, batch, **options):
        nonlocal silent
        silent = all(one.clues is None for one in batch.examples)
        try:
            return forward(self, batch, **options)
        finally:
            silent = False

    def states_of(self, *args):
        found = extract(self, *args)
        found.presence_BQK = found.presence_BQK - 1e3 if silent else found.presence_BQK
        return found

    def labels_of(self, strategy, batch, *args, **options):
        output = trained(self, strategy, batch, *args, **options)
        if all(one.clues is None for one in batch.examples):
            labels = {name: int(value) for name, value in output.items() if name.startswith("labels/")}
            with file.open("a") as out:
                out.write(json.dumps(labels) + "\n")
        return output

    TrainingBatches._batch, ClueNet.forward, LatentSlots.extract, Stepper._trained = (
        bare,
        forward_of,
        states_of,
        labels_of,
    )


def _without_labels(frames, examples):
    return frames, [replace(one, clues=None, chain=None) for one in examples]


def _die_while_saving(step: int) -> None:
    original = checkpoints.save_file

    def save_file(weights, file, metadata):
        original(weights, file, metadata)
        if f"{step:06d}" in file:
            Path(file).write_bytes(Path(file).read_bytes()[:1000])
            _die()

    checkpoints.save_file = save_file


if __name__ == "__main__":
    for run in json.loads(Path(sys.argv[1]).read_text()):
        main(run)
