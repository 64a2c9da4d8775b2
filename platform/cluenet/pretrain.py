"""The pretrain step: a backbone makes, or finds, the folder that both stages start from, on a worker.

    <store>/bases/<address>/
        (Hugging Face folder)    what `Backbone.pretrain` wrote, absent when it found a folder elsewhere
        manifest.json            address, seconds, `folder` of a base found elsewhere; written last

    <store>/base_parts/<address>/
        what bases that differ elsewhere have in common, and a manifest.json

Bases are shared between recipes. The step does not resume: an interrupted one starts again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cluenet
from cluenet import fingerprint, storage
from cluenet.contracts import PretrainContext
from cluenet.errors import CluenetError, ClusterError
from cluenet.folders import building, finished, read_manifest, taking_turns, write_manifest
from cluenet.prepared import PreparedSet
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import Example, Frames, VideoRef

SECONDS_BETWEEN_LOOKS = 0.5

log = logging.getLogger("cluenet")


def pretrain(
    recipe: Recipe, folder: Path, train: Sequence[Path], *, progress: type[Progress] = Progress, local: bool = False
) -> Path:
    """The base of `recipe` in Hugging Face layout; at once when `folder` is finished.

    folder: where it belongs (`cluenet.planning.Plan.base`). train: prepared training sets. local: in this process, without
    progress; else it needs a running Ray.
    Raises what the backbone raises, ClusterError when its worker is lost, StorageError.
    """
    if not finished(folder):
        started, make = time.monotonic(), _in_process if local else _on_worker
        with building(folder) as part:
            found, notes = make(recipe, part, train, progress)
            for note in notes:
                log.warning("pretrain: %s", note)
            elsewhere = {} if found == part else {"folder": str(found)}
            write_manifest(part, {
                "step": "pretrain", "address": folder.name, "backbone": recipe.model.backbone.to_dict(), **elsewhere,
                "notes": notes, "seconds": round(time.monotonic() - started, 1), "versions": {"cluenet": cluenet.__version__},
            })  # fmt: skip
    return storage.bring_folder(Path(read_manifest(folder).get("folder", folder)))


def _in_process(recipe: Recipe, part: Path, train: Sequence[Path], _: type[Progress]) -> tuple[Path, list[str]]:
    board = part.with_name(f"{part.name}-progress.json")
    try:
        found, notes = _pretrain(recipe.to_dict(), str(part), [str(path) for path in train], str(board))
    finally:
        board.unlink(missing_ok=True)
    return Path(found), notes


def _on_worker(recipe: Recipe, part: Path, train: Sequence[Path], progress: type[Progress]) -> tuple[Path, list[str]]:
    """Runs `_pretrain` as a Ray task with the resources of one training worker and shows its progress."""
    import ray

    resources, board = recipe.train.resources, part.with_name(f"{part.name}-progress.json")
    task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=recipe.train.max_failures)(
        _pretrain_there
    )
    folders = [str(path.absolute()) for path in train]
    try:
        with progress(f"Pretraining {recipe.model.backbone.name}", total=None, unit="steps") as display:
            result = task.remote(recipe.to_dict(), str(part), folders, str(board))
            while not ray.wait([result], timeout=SECONDS_BETWEEN_LOOKS)[0]:
                _show(board, display)
            _show(board, display)
        found, notes = ray.get(result)
        storage.take_folder(part)
        return Path(found), notes
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CluenetError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"the worker that pretrains {recipe.model.backbone.name} was lost: {error}. Run it again."
        ) from error
    except KeyboardInterrupt:
        ray.cancel(result, force=True)
        raise
    finally:
        board.unlink(missing_ok=True)


def _show(board: Path, display: Progress) -> None:
    try:
        state = json.loads(board.read_text())
    except FileNotFoundError:  # nothing reported yet
        return
    display.update(state["done"], state["total"], **state["values"])


def _pretrain(recipe_dict: Mapping[str, Any], part: str, train: Sequence[str], board: str) -> tuple[str, list[str]]:
    """On the worker. A retry after a lost worker finds what that one wrote, and removes it first."""
    import shutil

    import torch

    Path(part).mkdir(parents=True, exist_ok=True)  # in a mirror: of this machine
    for leftover in Path(part).iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    recipe = Recipe.from_dict(recipe_dict)
    torch.set_num_threads(max(1, int(recipe.train.resources.cpu)))
    backbone = recipe.model.backbone.build()
    context = Context(recipe, Path(part), [Path(path) for path in train], Path(board))
    return str(backbone.pretrain(context)), context.notes


def _pretrain_there(
    recipe_dict: Mapping[str, Any], part: str, train: Sequence[str], board: str
) -> tuple[str, list[str]]:
    """Perhaps on another machine: with a store that is a URI, the driver takes the folder from there."""
    made = _pretrain(recipe_dict, part, train, board)
    storage.put_folder(Path(part), Path(part))
    return made


class Context(PretrainContext):
    """What a backbone may see: the training split, and nothing of the other splits."""

    def __init__(self, recipe: Recipe, folder: Path, train: Sequence[Path], board: Path):
        self.folder, self.seed = folder, recipe.seed
        self._backbone = recipe.model.backbone
        self.notes: list[str] = []
        self._train, self._board, self._told = train, board, 0.0

    @cached_property
    def _sets(self) -> list[PreparedSet]:
        return [PreparedSet(path) for path in self._train]

    @cached_property
    def _clips(self) -> dict[tuple[str, str, VideoRef], tuple[PreparedSet, str]]:
        return {
            _key(example): (one, key) for one in self._sets for key in one.clip_keys for example in one.examples_of(key)
        }

    def examples(self) -> list[Example]:
        return [example for one in self._sets for example in one.examples()]

    def frames(self, example: Example) -> Frames:
        prepared, clip_key = self._clips[_key(example)]
        return prepared.frames(clip_key)

    def shared(self, depends_on: object, make: Callable[[Path], object]) -> Path:
        folder = self.folder.parent.parent / "base_parts" / fingerprint.base_part(self._backbone, depends_on)
        if not finished(folder):
            with taking_turns(folder):
                if not finished(folder):
                    with building(folder) as part:
                        make(part)
                        write_manifest(part, {"part": folder.name, "versions": {"cluenet": cluenet.__version__}})
        return storage.bring_folder(folder)

    def progress(self, done: int, total: int, **values: float) -> None:
        """Through a small file beside the folder, at most twice a second."""
        if done < total and time.monotonic() - self._told < SECONDS_BETWEEN_LOOKS:
            return
        self._told = time.monotonic()
        fresh = self._board.with_suffix(".new")
        fresh.write_text(json.dumps({"done": done, "total": total, "values": values}))
        fresh.replace(self._board)

    def note(self, text: str) -> None:
        self.notes.append(text)


def _key(example: Example) -> tuple[str, str, VideoRef]:
    return example.dataset, example.id, example.video
