"""What a job ships, what it runs, what it is called, and where its results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluenet.errors import ClusterError, RecipeError
from cluenet.jobs import package, storage
from cluenet.jobs.job import job_of
from cluenet.recipe import load
from helpers.environments import ROOT
from helpers.jobs import RECIPE, working_directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return working_directory(tmp_path)


# --------------------------------------------------------------------------------------------------- what ships


def test_what_ships_is_the_folder_without_what_never_ships(folder: Path):
    expected = {
        "recipes/r.yaml",
        "recipes/g.yaml",
        "recipes/top.yaml",
        ".gitignore",
        ".rayignore",
        "plugin.py",
        "sub/runs.py",
    }
    assert set(package.files_of(folder)) == expected


def test_what_is_counted_is_what_ray_packs(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    import zipfile

    from ray._private.runtime_env.packaging import create_package

    zipped = tmp_path_factory.mktemp("zip") / "package.zip"
    create_package(str(folder), zipped, include_gitignore=True, excludes=list(package.EXCLUDES))
    with zipfile.ZipFile(zipped) as file:
        assert {name for name in file.namelist() if not name.endswith("/")} == set(package.files_of(folder))


def test_this_checkout_is_small_enough_and_has_its_code():
    files = package.files_of(ROOT)
    package.require_small(files, ROOT)
    sources = {
        path.relative_to(ROOT).as_posix()
        for root in ("platform", "components", "recipes")
        for path in (ROOT / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"sitecustomize.py", *sources} <= set(files)
    assert not any(path.startswith((".venv/", ".git/", "runs/")) for path in files)


def test_too_much_is_an_error_that_names_the_largest():
    files = {"data/a.mp4": 80 * 2**20, "data/sub/b.mp4": 40 * 2**20, "notes.txt": 5 * 2**20, "src/x.py": 100}
    with pytest.raises(ClusterError) as error:
        package.require_small(files, Path("here"))
    assert "here: 125.0 MiB in 4 files are to be shipped, and Ray's job server takes 100.0 MiB" in str(error.value)
    assert "Largest: data/ 120.0 MiB, notes.txt 5.0 MiB, src/ 0.0 MiB" in str(error.value)
    assert ".rayignore" in str(error.value)
    package.require_small({"data/a.mp4": 100 * 2**20}, Path("here"))


def test_a_recipe_that_would_not_be_there_is_an_error(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    (folder / "videos" / "r.yaml").write_text(RECIPE)
    with pytest.raises(RecipeError, match=r"videos/r\.yaml.*\n.*is left out by \.gitignore"):
        job_of(folder / "videos" / "r.yaml", [], folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "r.yaml"
    elsewhere.write_text(RECIPE)
    with pytest.raises(RecipeError, match="is outside of the working directory"):
        job_of(elsewhere, [], folder)
    (folder / "recipes" / "top.yaml").write_text(f"extends: {elsewhere}\nname: top\n")
    with pytest.raises(RecipeError, match=rf"{elsewhere}.*\n.*is outside of the working directory"):
        job_of(folder / "recipes" / "top.yaml", [], folder)


# ----------------------------------------------------------------------------------------------------- the job


def test_a_recipe_is_run_and_a_grid_is_a_grid(folder: Path):
    job = job_of(folder / "recipes" / "r.yaml", ["seed=3"], folder)
    assert job.command == ("python", "-m", "cluenet", "run", "recipes/r.yaml", "seed=3")
    assert job.name.startswith("small-")
    grid = job_of(folder / "recipes" / "g.yaml", [], folder)
    assert grid.command == ("python", "-m", "cluenet", "grid", "recipes/g.yaml")
    assert grid.name.startswith("filters-")


def test_the_name_follows_the_settings_and_nothing_else(folder: Path):
    def name(file: str, *overrides: str) -> str:
        return job_of(folder / "recipes" / file, overrides, folder).name

    first = name("r.yaml")
    (folder / "recipes" / "r.yaml").write_text("# a comment\n" + RECIPE)
    assert name("r.yaml") == first == name("r.yaml", "seed=0")
    assert name("r.yaml", "seed=1") != first
    assert name("g.yaml") != name("g.yaml", "train.stage1.steps=3")


@pytest.mark.parametrize(
    ("override", "problem"),
    [("runs=runs", "runs: is 'runs', relative"), ("store=./s", "store: is './s', relative"), ("runs=/r", None), ("store=s3://b/s", None)],
)  # fmt: skip
def test_results_that_would_be_lost_are_an_error(folder: Path, override: str, problem: str | None):
    recipe = load(folder / "recipes" / "r.yaml", [override])
    if problem is None:
        storage.require_kept([recipe], Path("r.yaml"))
        return
    with pytest.raises(RecipeError) as error:
        job_of(folder / "recipes" / "r.yaml", [override], folder)
    assert problem in str(error.value)
    assert "=/shared/" in str(error.value)


def test_a_folder_of_every_node_is_noted(folder: Path):
    (note,) = job_of(folder / "recipes" / "r.yaml", ["store=~/store"], folder).notes
    assert "store is ~/store, another folder on every node" in note


def test_a_job_submitted_by_hand_says_what_it_will_lose(folder: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = load(folder / "recipes" / "r.yaml", ["runs=runs"])
    assert storage.note_inside_a_job(recipe) is None
    monkeypatch.setenv(storage.INSIDE_A_JOB, "{}")
    assert "runs=runs lies in this job's copy" in str(storage.note_inside_a_job(recipe))
    assert storage.note_inside_a_job(load(folder / "recipes" / "r.yaml")) is None


def test_a_folder_without_our_code_gets_it(folder: Path):
    env = job_of(folder / "recipes" / "r.yaml", [], folder).runtime_env
    assert [Path(module).name for module in env["py_modules"]] == ["cluenet", "cluenet_components"]
    assert env["working_dir"] == str(folder)
    (folder / "platform" / "cluenet").mkdir(parents=True)
    (folder / "platform" / "cluenet" / "__init__.py").touch()
    assert "py_modules" not in job_of(folder / "recipes" / "r.yaml", [], folder).runtime_env


def test_variables_are_handed_on(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_KEY", "secret")
    env = job_of(folder / "recipes" / "r.yaml", [], folder, ["HF_HUB_OFFLINE=1", "A_KEY"]).runtime_env
    assert env["env_vars"] == {"HF_HUB_OFFLINE": "1", "A_KEY": "secret"}
    with pytest.raises(RecipeError, match="'NO_SUCH' is neither NAME=VALUE nor"):
        job_of(folder / "recipes" / "r.yaml", [], folder, ["NO_SUCH"])


def test_a_checkout_is_importable_from_its_copy(tmp_path: Path):
    """As Ray starts a driver and workers: the folder on PYTHONPATH, a Python without cluenet, any current folder."""
    import subprocess
    import sys

    for name in ("platform/cluenet", "components/cluenet_components"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").write_text(f"WHERE = {name!r}")
    (tmp_path / "sitecustomize.py").write_text((ROOT / "sitecustomize.py").read_text())
    code = "import platform, cluenet, cluenet_components as c; print(cluenet.WHERE, c.WHERE, platform.python_version_tuple()[0])"
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["platform/cluenet", "components/cluenet_components", "3"]
