"""`cluenet run` of several recipes: one Ray for all of them, started by the first that needs it. Ray itself is not started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluenet import cli, cluster
from cluenet.errors import DataError
from cluenet.run import Run


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What happens, in order: Ray joined with these plug-ins, a recipe's work with its baseline, Ray left."""
    found: list[Any] = []

    @contextmanager
    def connected(address: str | None, *, plugins: tuple[str, ...], **_: object) -> Iterator[dict[str, float]]:
        found.append(("join", plugins))
        yield {"CPU": 2.0}
        found.append("leave")

    def report(self: Run, baseline: Path | None = None) -> Path:
        if self.recipe.name == "found":
            return self.folder
        self._connect()
        found.append((self.recipe.name, self.recipe.seed, baseline and baseline.name.partition("-")[0]))
        return self.folder

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(Run, "report", report)
    monkeypatch.setattr(Run, "model", Path("model"))
    monkeypatch.setattr("cluenet.summary.example_question", lambda run: "")
    return found


def written(folder: Path, name: str, **values: Any) -> Path:
    path = folder / f"{name}.yaml"
    data = {"train": ["clueworld"]}
    path.write_text(yaml.safe_dump({"name": name, "data": data, "runs": str(folder / "runs"), **values}))
    return path


def call(*words: object) -> int:
    return cli.call(["run", *map(str, words)])


def test_one_ray_for_all_and_settings_for_all(events: list[Any], tmp_path: Path) -> None:
    recipes = [written(tmp_path, name) for name in ("found", "one", "two")]
    assert call(*recipes, "seed=3", "--baseline", recipes[1]) == 0
    assert events == [("join", ()), ("one", 3, None), ("join", ()), ("two", 3, "one"), "leave", "leave"]


def test_the_first_ray_has_the_plugins_of_all(
    events: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("first_plugin", "second_plugin"):
        (tmp_path / f"{name}.py").write_text("")
    both = [written(tmp_path, name, plugins=[f"{name}_plugin"]) for name in ("first", "second")]
    assert call(*both) == 0
    assert events[0] == ("join", ("first_plugin", "second_plugin"))


def test_a_mistake_in_the_last_recipe_is_told_before_the_first_is_run(
    events: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(written(tmp_path, "one"), written(tmp_path, "two", trian={})) == 2
    assert "trian: unknown key" in capsys.readouterr().err
    assert call(written(tmp_path, "one"), tmp_path / "absent.yaml") == 2
    assert events == []


def test_the_second_is_not_run_when_the_first_fails(
    events: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Run, baseline: Path | None = None) -> Path:
        events.append(self.recipe.name)
        raise DataError("no")

    monkeypatch.setattr(Run, "report", fail)
    assert call(written(tmp_path, "one"), written(tmp_path, "two")) == 2
    assert events == ["one"]
