"""A clean environment: the wheel of this repository in a venv of its own, dependencies from this Python's packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.environments import ROOT, Environment, build_wheel, make_environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("installed") / "venv", [wheel])
