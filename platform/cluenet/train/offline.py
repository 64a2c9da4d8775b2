"""The step `utilities`: the frozen model that stage 1 handed on scores its own clues of all training questions, with Ray Data.

<run>/utilities/   see `train.utility_store`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluenet.errors import CheckpointError, StorageError
from cluenet.features import plain_paths
from cluenet.folders import finished, read_manifest, versions, write_manifest
from cluenet.prepared import PreparedSet
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.train import checkpoints
from cluenet.train.utility_parts import COUNTS, Account, Part, PartRecorder, UtilityJob, parts_of


def record_utilities(
    recipe: Recipe, *, run: Path, base: Path, train: Sequence[Path], checkpoint: Path | None, address: str,
    features: Mapping[Path, Path] | None = None, progress: type[Progress] = Progress, local: bool = False,
) -> Path:  # fmt: skip
    """Write `<run>/utilities/` and return it; at once when it is finished, from what is there when it was interrupted.

    train: prepared training sets. checkpoint: what stage 1 returned. address: by `cluenet.fingerprint.utilities`.
    features: folders of the sets' features, where they have some. local: in this process, without Ray. Raises CheckpointError,
    DataError, StorageError.
    """
    folder = run.absolute() / "utilities"
    if finished(folder):
        if (made := read_manifest(folder).get("address")) != address:
            raise CheckpointError(f"{folder}: utilities of another recipe (address {made}, now {address}). Delete it.")
        return folder
    weights = None if checkpoint is None else str(checkpoint.absolute() / checkpoints.WEIGHTS)
    job = UtilityJob(recipe.to_dict(), str(folder), str(base.absolute()), weights, address, plain_paths(features or {}))
    sets = [PreparedSet(path) for path in dict.fromkeys(path.absolute() for path in train)]
    work, started, accounts = list(parts_of(sets, _questions_per_batch(recipe))), time.monotonic(), []
    with progress("Recording utilities", total=sum(one.num_questions for one in sets), unit="questions") as display:
        for account in _accounts(job, work, recipe, local=local):
            accounts.append(account)
            display.advance(account["questions"])
    _check(folder, sets, work, accounts)
    manifest = _manifest(recipe, job, work, accounts)
    write_manifest(folder, {**manifest, "run": {"seconds": round(time.monotonic() - started, 2)}})
    return folder


def _questions_per_batch(recipe: Recipe) -> int:
    """As many as stage 2 trains at once on one worker, whatever their number."""
    stage = recipe.train.stage2
    return max(1, stage.clips_per_batch // stage.accumulate * stage.questions_per_clip)


def _check(folder: Path, sets: Sequence[PreparedSet], work: Sequence[Part], accounts: Sequence[Account]) -> None:
    """Every question is recorded, or known to have no answer. Raises StorageError where parts went elsewhere."""
    lost = [part.name for part in work if not (folder / part.name).is_file()]
    counts = {name: sum(account[name] for account in accounts) for name in COUNTS}
    wanted = sum(one.num_questions for one in sets)
    if lost or counts["questions"] != wanted or counts["recorded"] + counts["without_answer"] != wanted:
        raise StorageError(
            f"{folder}: {wanted} questions, {counts['recorded']} recorded and {counts['without_answer']} without a known "
            f"answer; {len(lost)} of {len(work)} parts cannot be seen from here. Set `runs=` to a folder that all machines "
            "of the cluster share, delete this one and run the same command again."
        )


def _manifest(recipe: Recipe, job: UtilityJob, work: Sequence[Part], accounts: Sequence[Account]) -> dict[str, Any]:
    """But for `run` it depends on the recipe and the data alone."""
    counts = {name: sum(account[name] for account in accounts) for name in COUNTS}
    settings = recipe.train.stage2.filter_loss
    return {
        "step": "utilities", "address": job.address, "weights": job.weights,
        "settings": {"utility": settings.utility, "distractors": settings.distractors, "delta": settings.delta},
        "questions": {"all": counts["questions"], **{name: counts[name] for name in ("recorded", "without_answer")}},
        "clues": {name: counts[name] for name in ("stated", "useful", "distractors")},
        "parts": [part.name for part in work],
        "versions": versions("torch", "transformers"),
    }  # fmt: skip


def _accounts(job: UtilityJob, work: Sequence[Part], recipe: Recipe, *, local: bool) -> Iterator[Account]:
    if local:
        return map(PartRecorder(job).account, work)
    from cluenet.train.utility_workers import accounts_of

    return accounts_of(job, work, recipe)
