"""Serve configs: complete, accepted by Ray as they are, and checked by us, because Ray drops what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cluenet.cli import call
from cluenet.config.serve import ServeSection
from cluenet.errors import CheckpointError, ClusterError, RecipeError
from cluenet.serve import export, launch
from cluenet.serve.arguments import AppArgs
from helpers.evaluation import model_folder, recipe

ARGS = AppArgs(model="/models/m", serve=ServeSection.model_validate({"port": 9000, "engine": {"gpu": 1}}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return export.write(tmp_path / "serve.yaml", ARGS)


def changed(file: Path, change: Any) -> Path:
    values = yaml.safe_load(file.read_text())
    change(values)
    file.write_text(yaml.safe_dump(values))
    return file


def test_what_is_written_is_read_back_and_nothing_of_it_is_lost_on_ray(file: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = export.check(file)
    assert config.applications[0].args == ARGS
    values = yaml.safe_load(file.read_text())
    (theirs,) = ServeDeploySchema.model_validate(values).model_dump(exclude_unset=True)["applications"]
    (ours,) = values["applications"]
    assert {key: theirs[key] for key in ours if key != "deployments"} == {
        k: v for k, v in ours.items() if k != "deployments"
    }
    for one, other in zip(ours["deployments"], theirs["deployments"], strict=True):
        assert contained(one, other), one["name"]
    engine = ours["deployments"][2]
    assert (engine["name"], engine["ray_actor_options"]["num_gpus"]) == ("Engine", 1)
    assert engine["autoscaling_config"]["max_replicas"] == 2
    assert values["http_options"] == {"host": "127.0.0.1", "port": 9000}


def contained(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return all(key in theirs and contained(value, theirs[key]) for key, value in ours.items())
    return ours == theirs


def test_every_key_that_we_allow_is_one_of_rays() -> None:
    from ray.serve import schema
    from ray.serve.config import AutoscalingConfig

    pairs: list[tuple[type[BaseModel], type[BaseModel]]] = [
        (export.ServeConfig, schema.ServeDeploySchema), (export.ApplicationConfig, schema.ServeApplicationSchema),
        (export.DeploymentConfig, schema.DeploymentSchema), (export.AutoscalingConfig, AutoscalingConfig),
        (export.RayActorOptions, schema.RayActorOptionsSchema), (export.HttpOptions, schema.HTTPOptionsSchema),
    ]  # fmt: skip
    for ours, theirs in pairs:
        assert not set(ours.model_fields) - set(theirs.model_fields), ours.__name__


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda v: v["applications"][0]["deployments"][2].update(num_gpus=1), "applications.0.deployments.2.num_gpus"),
        (lambda v: v["applications"][0]["deployments"][0]["autoscaling_config"].update(target=3), "autoscaling_config.target"),
        (lambda v: v["applications"][0]["args"]["serve"].update(prot=1), "args.serve.prot"),
        (lambda v: v["applications"][0]["deployments"][1].update(name="Decode"), "deployments.1.name"),
        (lambda v: v["applications"][0]["deployments"][1].update(num_replicas=2), "deployments.1"),
        (lambda v: v.update(https_options={}), "https_options"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_an_error_with_its_place(file: Path, change: Any, path: str) -> None:
    with pytest.raises(RecipeError) as error:
        export.check(changed(file, change))
    assert path in str(error.value)


def test_validate_knows_serve_configs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["validate", str(file)]) == 0
    assert "ok" in capsys.readouterr().out
    changed(file, lambda v: v["applications"][0].update(nonsense=1))
    assert call(["validate", str(file)]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_the_endpoint_is_set_up_by_the_models_recipe_and_overrides(tmp_path: Path) -> None:
    run = tmp_path / "run"
    model_folder(run / "model", recipe=recipe(serve={"port": 7000, "threads": 3}))
    folder = launch.model_folder(run)
    assert folder == run / "model" == launch.model_folder(run / "model")
    args = launch.arguments(folder, ["serve.port=7001", "serve.engine.cpu=2"])
    assert (args.serve.port, args.serve.threads, args.serve.engine.cpu) == (7001, 3, 2)
    with pytest.raises(RecipeError, match=r"model\.backbone"):
        launch.arguments(folder, ["model.backbone=tiny"])
    with pytest.raises(RecipeError, match="prot"):
        launch.arguments(folder, ["serve.prot=1"])
    with pytest.raises(CheckpointError, match="cluenet run"):
        launch.model_folder(tmp_path)


def test_the_command_writes_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = model_folder(tmp_path / "model", recipe=recipe()), tmp_path / "serve.yaml"
    assert call(["serve", str(folder), "serve.port=8123", "--export", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    config = export.check(out)
    assert (config.http_options.port, config.applications[0].args.model) == (8123, str(folder))


def test_what_can_never_start_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluenet import ray_data

    monkeypatch.setattr(ray_data, "capacity", lambda: {"CPU": 1.0})
    launch._check_room(ServeSection.model_validate({"engine": {"cpu": 0.25}}))
    for section, what in (({"engine": {"cpu": 4}}, "4.75 CPU"), ({"engine": {"cpu": 0.1, "gpu": 1}}, "1 GPU")):
        with pytest.raises(ClusterError, match=what):
            launch._check_room(ServeSection.model_validate(section))


def test_a_cluster_that_grows_without_saying_how_far_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluenet import ray_data

    monkeypatch.setattr(ray_data, "capacity", lambda: None)
    launch._check_room(ServeSection.model_validate({"engine": {"cpu": 4}}))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("serve.engine.cpus=1", "cpus"),
        ("serve.keys_variable=NO_SUCH_KEYS", "NO_SUCH_KEYS"),
        (None, "neither a ClueNet model folder"),
    ],
)
def test_what_cannot_be_served_is_said_before_ray_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, setting: str | None, words: str
) -> None:
    monkeypatch.setattr("cluenet.cluster.connected", lambda *_, **__: pytest.fail("Ray is started"))
    folder = model_folder(tmp_path / "model", recipe=recipe()) if setting else tmp_path / "nothing"
    assert call(["serve", str(folder), *([setting] if setting else [])]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
