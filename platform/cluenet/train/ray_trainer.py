"""Ray Train's trainer, without its helper that asks a dashboard where there is none."""

from __future__ import annotations

from typing import Any

from ray._private.worker import get_dashboard_url
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback


class StageTrainer(TorchTrainer):
    """The helper gives the workers' resources back when the controller died, of which it learns from the dashboard.

    On a cluster without one, as a local Ray is, it learns nothing; and for the 40 s in which it looks for one it does not hear
    that it should end: `fit` of a shorter stage waits for it up to 12 s, and so does Ctrl-C (Ray 2.60). There it is left out.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        if get_dashboard_url():
            return callbacks
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]
