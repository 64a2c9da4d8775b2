"""One local Ray for all distributed tests of a session: starting it takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.object_store import CREDENTIALS

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # read when Ray is imported; else it writes ~/.ray/auth_token
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.update(CREDENTIALS)  # of moto's S3, for workers

ROOT = Path(__file__).parents[2]
SOURCES = [str(ROOT / name) for name in ("platform", "components", "tests")]


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray of its own ("local": not one that happens to run on this machine) with two CPUs."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=300 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(SOURCES)}},  # workers do not get pytest's
    )
    yield
    ray.shutdown()
