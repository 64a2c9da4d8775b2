"""Visual features on disk: what a frozen vision tower makes of every clip of a prepared set, before the projector. Ray-free.

    <store>/features/<address>/
        part-00000.safetensors   CLIPS_PER_PART clips in the order of their keys: `<n>.states` and `<n>.deepstack.<level>` of
                                 the part's n-th clip; its account, with the clips' grids, in the header (key `cluenet`)
        manifest.json            accounts, tower, versions; written last

The address depends on the clips, the tower's weights and settings, how pixels are made for it, and the data type. Recipes that
agree on these share a folder, whatever they ask about the clips, and whatever stands behind the tower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cluenet import storage
from cluenet.errors import CheckpointError, DataError
from cluenet.folders import read_manifest
from cluenet.model.grid import Grid
from cluenet.model.loading import Checkpoint
from cluenet.model.pixels import video_settings
from cluenet.model.vision import EncodedClip, TowerStates
from cluenet.prepared import PreparedSet, atomic_file, store_folder
from cluenet.recipe import Recipe
from cluenet.records import content_hash

FORMAT = 1
CLIPS_PER_PART = 8
"""A clip of 32 frames of 448 x 448 has 42 MB for Qwen2.5-VL-7B in bf16."""
OF_THE_FILE = ("_name_or_path", "dtype", "transformers_version")
"""In a vision config: where it comes from, not what the tower computes."""
CHOICES = ("vision_feature_layer", "vision_feature_select_strategy")
"""Of config.json: which states of the tower the projector gets, where a family can choose."""


# ------------------------------------------------------------------------------------------------------- addresses


@dataclass(frozen=True)
class Tower:
    """The vision tower of a backbone: the Hugging Face folder it is in, and how that is loaded (`Backbone.loading`)."""

    base: Path
    loading: Mapping[str, Any]

    @cached_property
    def address(self) -> str:
        """Of the tower and of how pixels are made for it.

        Weights count by value, not by name or file: Transformers' versions call them differently. Reads the tower's weights.
        Raises CheckpointError.
        """
        return _address(Checkpoint.open(self.base), self.loading.get("dtype", "float32"))


def _address(checkpoint: Checkpoint, dtype: str) -> str:
    vision = {k: v for k, v in checkpoint.config.vision_config.to_dict().items() if k not in OF_THE_FILE}
    chosen = {name: getattr(checkpoint.config, name, None) for name in CHOICES}
    try:
        weights = sorted(_digests(checkpoint, getattr(torch, dtype)))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint.folder}: its weights cannot be read: {error} Get it again: hf download"
        ) from error
    if not weights:
        raise CheckpointError(
            f"{checkpoint.folder}: none of its weights is a vision tower's, so there are no features of it."
        )
    pixels = dict(video_settings(checkpoint.files))
    return content_hash(FORMAT, checkpoint.config.model_type, vision, chosen, pixels, dtype, weights)


def _digests(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[str]:
    """Of each weight of the tower, in the data type that it is loaded in."""
    family = checkpoint.family
    tower, *behind = (path.rpartition(".")[2] for path in (family.tower, family.projector, family.deepstack) if path)
    for file in checkpoint.weight_files():
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no dict
                parts = name.split(".")
                if tower in parts and not set(behind) & set(parts):
                    values = weights.get_tensor(name).to(dtype).contiguous().flatten().view(torch.uint8)
                    yield hashlib.sha256(values.numpy()).hexdigest()


def folder_of(recipe: Recipe, prepared: Path, tower: Tower) -> Path:
    """Where the features of a finished prepared set are, or will be."""
    clips = PreparedSet(prepared).clip_keys
    return store_folder(recipe) / "features" / content_hash(FORMAT, "features", tower.address, clips)


# --------------------------------------------------------------------------------------------------------- writing


def part_name(number: int) -> str:
    return f"part-{number:05d}.safetensors"


def write_part(path: Path, clips: Sequence[EncodedClip]) -> dict[str, Any]:
    """Returns the part's account: `clips`, `bytes` of their states, and their `grids`. Raises StorageError on a full disk."""
    tensors = {f"{n}.{name}": values for n, clip in enumerate(clips) for name, values in _named(clip.tower)}
    account = {
        "clips": len(clips), "bytes": sum(values.nbytes for values in tensors.values()),
        "grids": [asdict(clip.grid) for clip in clips],
    }  # fmt: skip
    with atomic_file(path) as file:
        file.write(save(tensors, metadata={"cluenet": json.dumps(account)}))
    return account


def _named(tower: TowerStates) -> Iterator[tuple[str, torch.Tensor]]:
    """No two share memory, as those of the tower's last layer would: such a file cannot be written."""
    yield "states", tower.states.cpu().contiguous()
    for number, level in enumerate(tower.deepstack):
        yield f"deepstack.{number}", level.cpu().clone()


# --------------------------------------------------------------------------------------------------------- reading


def read_account(path: Path) -> dict[str, Any] | None:
    """Of a part; None where there is none, or it is cut off. Raises StorageError when it cannot be fetched."""
    try:
        with safe_open(storage.bring(path), framework="pt") as part:
            account: dict[str, Any] = json.loads(part.metadata()["cluenet"])
            return account
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


class EncodedSet(PreparedSet):
    """A prepared set whose clips come as features.

    Raises StorageError when either folder is missing or unfinished, DataError when they do not fit each other.
    """

    def __init__(self, folder: str | Path, features: str | Path):
        super().__init__(folder)
        self.features = Path(features).absolute()
        manifest = read_manifest(self.features)
        self._per_part: int = manifest["clips_per_part"]
        if manifest["format"] != FORMAT or manifest["clips"] != len(self):
            raise DataError(
                f"{self.features}: features of {manifest['clips']} clips in format {manifest['format']}, {len(self)} in format "
                f"{FORMAT} are wanted. {_AGAIN}"
            )

    def __reduce__(self) -> tuple[type[EncodedSet], tuple[Path, Path]]:  # type: ignore[override]
        return type(self), (self.folder, self.features)

    def clip(self, clip_key: str) -> EncodedClip:
        """Raises KeyError for an unknown key, DataError when the part is damaged."""
        part, n = divmod(self.number_of(clip_key), self._per_part)
        path = storage.bring(self.features / part_name(part))
        with _damage(path), safe_open(path, framework="pt") as file:
            grid = json.loads(file.metadata()["cluenet"])["grids"][n]
            states, *deepstack = (file.get_tensor(name) for name in _names_of(n, file.keys()))
        grid["seconds"] = tuple(grid["seconds"])
        return EncodedClip(Grid(**grid), TowerStates(states, deepstack, [len(states)]))


def _names_of(n: int, names: Sequence[str]) -> list[str]:
    """`states` first, then the levels in order."""
    mine = [name for name in names if name.startswith(f"{n}.deepstack.")]
    return [f"{n}.states", *sorted(mine, key=lambda name: int(name.rpartition(".")[2]))]


def plain_paths(features: Mapping[Path, Path]) -> dict[str, str]:
    """Prepared set -> folder of its features, both absolute, to be sent to workers."""
    return {str(prepared.absolute()): str(folder.absolute()) for prepared, folder in features.items()}


def opened(folder: str | Path, features: Mapping[Any, str | Path] | None = None) -> PreparedSet:
    """The prepared set, with its features where `features`, by folder of the prepared set, has some."""
    found = (features or {}).get(folder)
    return PreparedSet(folder) if found is None else EncodedSet(folder, found)


_AGAIN = "Delete the folder and run the same command again: the features are made again."


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DataError(f"{storage.shown(path)}: missing or damaged: {error}. {_AGAIN}") from error
