"""Making features with Ray Data: parts go to a pool of actors, on GPUs where training has them; accounts come back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from cluenet.data.feature_parts import Account, FeatureJob, Part, PartEncoder
from cluenet.ray_data import on_actors
from cluenet.recipe import Recipe


def accounts_of(job: FeatureJob, work: Sequence[Part], recipe: Recipe) -> Iterator[Account]:
    """Accounts in the order in which parts are done. Raises what stopped a worker."""
    resources = recipe.train.resources
    return on_actors(
        _Worker, asdict(job), [asdict(part) for part in work],
        actors=recipe.train.min_workers, cpus=resources.cpu, gpus=resources.gpu,
    )  # fmt: skip


class _Worker:
    def __init__(self, job: dict[str, Any]):
        self._encoder = PartEncoder(FeatureJob(**job))

    def __call__(self, part: dict[str, Any]) -> Account:
        return self._encoder.account(Part(part["number"], tuple(part["keys"])))
