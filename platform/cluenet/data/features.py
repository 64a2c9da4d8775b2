"""The step `features`: a frozen vision tower looks once at every clip of a prepared set, with Ray Data.

<store>/features/<address>/   see `cluenet.features`

Parts on disk are finished: an interrupted run goes on where it stopped, and two runs at once write the same files twice at
worst.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluenet import storage
from cluenet.data.feature_parts import Account, FeatureJob, Part, PartEncoder, parts_of
from cluenet.errors import StorageError
from cluenet.features import CLIPS_PER_PART, FORMAT, Tower, folder_of
from cluenet.folders import finished, versions, write_manifest
from cluenet.prepared import PreparedSet, remove_leftovers
from cluenet.progress import Progress
from cluenet.recipe import Recipe


def make_features(
    recipe: Recipe, prepared: Path, tower: Tower, *, progress: type[Progress] = Progress, local: bool = False
) -> Path:
    """The finished folder of a prepared set's features; made, or completed, unless it is there.

    prepared: finished. local: in this process, without Ray. Raises CheckpointError, DataError, StorageError.
    """
    folder = folder_of(recipe, prepared, tower)
    if finished(folder):
        return folder
    storage.require_writable(folder)
    resources, started, accounts = recipe.train.resources, time.monotonic(), []
    job = FeatureJob(
        str(folder), str(prepared.absolute()), str(tower.base.absolute()), dict(tower.loading),
        "cuda" if resources.gpu else "cpu", max(1, int(resources.cpu)),
    )  # fmt: skip
    keys = PreparedSet(prepared).clip_keys
    work = parts_of(keys)
    with progress("Looking at clips", total=len(keys), unit="clips") as display:
        for account in _accounts(job, work, recipe, local=local):
            accounts.append(account)
            display.advance(account["clips"])
    _check(folder, work, accounts)
    remove_leftovers(folder, set())
    seconds = round(time.monotonic() - started, 2)
    if not finished(folder):  # another process may have been faster, with the same content
        write_manifest(folder, _manifest(job, tower, work, accounts, seconds))
    return folder


def _accounts(job: FeatureJob, work: Sequence[Part], recipe: Recipe, *, local: bool) -> Iterator[Account]:
    if local:
        return map(PartEncoder(job).account, work)
    from cluenet.data.feature_workers import accounts_of

    return accounts_of(job, work, recipe)


def _check(folder: Path, work: Sequence[Part], accounts: Sequence[Account]) -> None:
    """Every clip is there once. Raises StorageError where parts went elsewhere."""
    wanted, found = sum(len(part.keys) for part in work), sum(account["clips"] for account in accounts)
    there = storage.sizes(folder, "part-*")
    lost = [part.name for part in work if folder / part.name not in there]
    if lost or found != wanted:
        raise StorageError(
            f"{folder}: {wanted} clips, {found} looked at; {len(lost)} of {len(work)} parts cannot be seen from here. Set "
            "`store=` to a folder that all machines of the cluster share, or to a URI such as s3://bucket/store, delete this one "
            "and run the same command again."
        )


def _manifest(
    job: FeatureJob, tower: Tower, work: Sequence[Part], accounts: Sequence[Account], seconds: float
) -> dict[str, Any]:
    """But for `run` it depends on the clips and the tower alone, and on the versions that computed it."""
    return {
        "format": FORMAT, "step": "features", "address": Path(job.folder).name, "tower": tower.address,
        "loading": job.loading, "clips": sum(account["clips"] for account in accounts), "clips_per_part": CLIPS_PER_PART,
        "parts": len(work), "bytes": sum(account["bytes"] for account in accounts),
        "versions": versions("torch", "transformers"),
        "run": {
            "prepared": job.prepared, "base": job.base, "seconds": seconds,
            "parts": {"made": sum(not account["reused"] for account in accounts),
                      "reused": sum(account["reused"] for account in accounts)},
        },
    }  # fmt: skip
