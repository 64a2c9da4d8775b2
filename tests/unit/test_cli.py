"""The command line: exit codes, messages, and what each verb prints. In this process and without Ray."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluenet import cli
from cluenet.errors import DataError
from cluenet.recipe import Recipe
from cluenet.run import Run

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs one command line; returns exit code, standard output and standard error."""
    monkeypatch.setattr(Run, "_connect", lambda self, training=False: None)
    monkeypatch.setattr("ray.init", raising(AssertionError("this test is not to start Ray")))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.call([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe whose store and runs lie in the test's folder."""

    def write(rows: str | None = None, **values: Any) -> Path:
        if rows is not None:
            (tmp_path / "rows.jsonl").write_text(rows)
            values["data"] = {"train": [{"name": "messages", "files": str(tmp_path / "rows.jsonl")}]}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs"), **values}))
        return path

    return write


def message(asked: str, said: str, **values: Any) -> str:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return json.dumps({"messages": turns, "videos": ["a.mp4"], **values}) + "\n"


UNUSABLE = message("<video><video> which?", "red")  # two placeholders, one video


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --------------------------------------------------------------------------------------------- the program itself


def test_help_names_every_verb():
    result = subprocess.run([sys.executable, "-m", "cluenet", "--help"], capture_output=True, text=True, check=True)
    for verb in [
        "run",
        "grid",
        "submit",
        "diagnose",
        "prepare",
        "train",
        "evaluate",
        "plan",
        "validate",
        "report",
        "compare",
        "ask",
        "inspect",
        "export",
        "components",
        "schema",
    ]:
        assert f"\n  {verb} " in result.stdout


def test_what_is_no_verb_is_said(call: Call):
    for verb in ("gird", "annotate"):
        code, _, error = call(verb)
        assert code == 2
        assert f"No such command '{verb}'" in error


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_and_version_succeed(call: Call, arguments: list[str]):
    code, output, _ = call(*arguments)
    assert code == 0
    assert output


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["rum"], ["run", "--nonsense"], ["ask", "m"], ["validate"], ["evaluate", "r.yaml", "--out", "o"]],
)
def test_a_command_line_that_does_not_parse_exits_with_2(call: Call, arguments: list[str]):
    code, _, error = call(*arguments)
    assert code == 2
    assert "Traceback" not in error


def test_the_console_script_ends_the_process_with_the_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["cluenet", "rum"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2


# --------------------------------------------------------------------------------------------------- exit codes


def test_a_bug_of_ours_exits_with_1_and_says_how_to_see_more(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluenet.recipe.load", raising(ZeroDivisionError("division by zero")))
    code, _, error = call("plan", "r.yaml")
    assert code == 1
    assert error.startswith("internal error: ZeroDivisionError: division by zero\n")
    assert "--debug" in error
    assert "report it" in error
    assert "Traceback" not in error
    for arguments in (["--debug", "plan", "r.yaml"], ["plan", "r.yaml", "--debug"]):
        code, _, error = call(*arguments)
        assert code == 1
        assert "Traceback" in error
        assert "to see the traceback" not in error


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluenet.recipe.load", raising(KeyboardInterrupt()))
    code, _, error = call("prepare", "r.yaml")
    assert code == 130
    assert error.strip() == "interrupted; run the same command again to resume"


def test_an_error_of_a_worker_is_shown_as_its_own(call: Call, monkeypatch: pytest.MonkeyPatch):
    class RayTaskError(Exception):
        cause = DataError("rows.jsonl: line 3")

    monkeypatch.setattr("cluenet.recipe.load", raising(RayTaskError("a long remote traceback")))
    assert call("plan", "r.yaml") == (2, "", "error: rows.jsonl: line 3\n")


def test_a_full_disk_met_anywhere_is_named(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(
        "cluenet.recipe.load", raising(OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x")))
    )
    code, _, error = call("plan", "r.yaml")
    assert code == 2
    assert "the disk is full" in error
    assert str(tmp_path) in error


def test_other_errors_of_files_are_not_taken_for_a_full_disk(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cluenet.recipe.load", raising(IsADirectoryError(errno.EISDIR, "Is a directory", "x")))
    assert call("plan", "r.yaml")[0] == 1


# ---------------------------------------------------------------------------------------------- mistakes of users


def test_an_unknown_key(call: Call, recipe: Callable[..., Path]):
    path = recipe(trian={})
    code, _, error = call("run", path)
    assert code == 2
    assert error.startswith(f"error: {path}: 1 problem\n  trian: unknown key. Did you mean 'train'?")


def test_an_unknown_name(call: Call, recipe: Callable[..., Path]):
    code, _, error = call("plan", recipe(), "data.sampler=unifrom")
    assert code == 2
    assert "data.sampler: no sampler named 'unifrom'. Did you mean 'uniform'?" in error


def test_a_missing_recipe(call: Call, tmp_path: Path):
    code, _, error = call("train", tmp_path / "absent.yaml")
    assert code == 2
    assert "no such file" in error


def test_a_plugin_that_fails(call: Call, recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugin_that_fails.py").write_text("import no_such_library")
    code, _, error = call("prepare", recipe(plugins=["plugin_that_fails"]))
    assert code == 2
    assert "plugin_that_fails" in error
    assert "no_such_library" in error


def test_no_training_data(call: Call, recipe: Callable[..., Path]):
    code, _, error = call("train", recipe())
    assert code == 2
    assert "data.train is empty" in error


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (message("<video>\nwhich?\n(A) red\n(B) blue", "", options=["red", "blue"], answer=7), "outside"),
        (UNUSABLE, "placeholder_mismatch"),
    ],
)
def test_rows_that_cannot_be_used(call: Call, recipe: Callable[..., Path], row: str, reason: str):
    code, _, error = call("prepare", recipe(rows=row))
    assert code == 2
    assert "none of 1 questions can be used" in error
    assert reason in error
    assert "rows.jsonl" in error or "quarantine.jsonl" in error


def test_an_empty_dataset(call: Call, recipe: Callable[..., Path]):
    code, _, error = call("prepare", recipe(rows=""))
    assert code == 2
    assert "rows.jsonl" in error or "no questions" in error


def test_a_full_disk(call: Call, recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    path = recipe(rows=UNUSABLE)
    monkeypatch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, "No space left on device")))
    code, _, error = call("prepare", path)
    assert code == 2
    assert "the disk is full" in error
    assert "resume" in error


def test_no_such_model(call: Call, tmp_path: Path):
    (tmp_path / "video.mp4").touch()
    code, _, error = call("ask", tmp_path / "model", tmp_path / "video.mp4", "what?", "-o", "a", "-o", "b")
    assert code == 2
    assert "not a ClueNet model folder" in error


def test_one_option(call: Call, tmp_path: Path):
    code, _, error = call("ask", tmp_path, tmp_path / "video.mp4", "what?", "--option", "only")
    assert code == 2
    assert "is not a choice" in error


def test_an_evaluation_before_training(call: Call, recipe: Callable[..., Path]):
    path = recipe(data={"train": ["clueworld"], "test": [{"name": "clueworld", "split": "test"}]})
    code, _, error = call("evaluate", path)
    assert code == 2
    assert "no finished model of this recipe" in error
    assert "cluenet train" in error


def test_a_model_that_is_none(call: Call, recipe: Callable[..., Path], tmp_path: Path):
    path = recipe(data={"test": [{"name": "clueworld", "split": "test"}]})
    code, _, error = call("evaluate", path, "--model", tmp_path)
    assert code == 2
    assert "neither a ClueNet model folder" in error


def test_runs_that_are_none(call: Call, tmp_path: Path):
    for arguments in (["compare", tmp_path / "a", tmp_path / "b"], ["report", tmp_path / "a"]):
        code, _, error = call(*arguments)
        assert code == 2
        assert str(tmp_path / "a") in error


def test_no_cluster_at_the_address(recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]):
    path = recipe(rows=UNUSABLE)
    assert cli.call(["prepare", str(path), "--address", "127.0.0.1:1"]) == 2
    assert "no Ray cluster answers at '127.0.0.1:1'" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- verbs that only look


def test_validate_checks_every_file(call: Call, tmp_path: Path):
    good, bad, worse = (tmp_path / f"{name}.yaml" for name in ("good", "bad", "worse"))
    for path, text in ((good, "seed: 1"), (bad, "sed: 1"), (worse, "{")):
        path.write_text(text)
    assert call("validate", good)[:2] == (0, f"{good}: ok\n")
    code, output, error = call("validate", good, bad, worse)
    assert code == 2
    assert output == f"{good}: ok\n"
    assert f"{bad}: 1 problem" in error
    assert f"{worse}: 1 problem" in error


def test_validate_takes_overrides(call: Call, recipe: Callable[..., Path]):
    path = recipe()
    assert call("validate", path, "seed=4")[0] == 0
    code, _, error = call("validate", path, "seed=-4")
    assert code == 2
    assert "seed" in error


def test_components_lists_settings_with_defaults_and_limits(call: Call):
    code, output, _ = call("components")
    assert code == 0
    assert "uniform" in output
    assert "frames (16; >= 1)" in output
    rows = json.loads(call("components", "--json")[1])
    assert {"dataset", "reader", "sampler", "backbone", "reasoner"} <= {row["kind"] for row in rows}
    only = json.loads(call("components", "sampler", "--json")[1])
    assert only == [row for row in rows if row["kind"] == "sampler"]
    frames = next(row for row in only if row["name"] == "uniform")["settings"][0]
    assert frames == {
        "name": "frames", "type": "integer", "allowed": ">= 1", "default": 16, "description": frames["description"],
    }  # fmt: skip


def test_required_settings_have_no_default(call: Call):
    rows = json.loads(call("components", "backbone", "--json")[1])
    settings = {setting["name"]: setting for row in rows if row["name"] == "hf_vlm" for setting in row["settings"]}
    assert "default" not in settings["path"]
    assert settings["revision"]["default"] is None


def test_an_unknown_kind_of_component(call: Call):
    code, _, error = call("components", "samplr")
    assert code == 2
    assert "Did you mean 'sampler'?" in error


def test_schema_is_printed_or_written(call: Call, tmp_path: Path):
    printed = json.loads(call("schema")[1])
    code, output, _ = call("schema", "--output", tmp_path / "deep" / "schema.json")
    assert code == 0
    assert str(tmp_path / "deep" / "schema.json") in output
    assert json.loads((tmp_path / "deep" / "schema.json").read_text()) == printed


@pytest.fixture
def planned(recipe: Callable[..., Path]) -> Path:
    return recipe(
        name="mine", train={"stage1": {"steps": 3}, "stage2": {"steps": 0}},
        data={
            "train": [{"name": "clueworld", "videos": 3}],
            "test": [{"name": "clueworld", "split": "test", "videos": 3}, {"name": "clueworld", "split": "ood_long"}],
        },
    )  # fmt: skip


def test_plan_shows_every_step_and_writes_nothing(call: Call, planned: Path, tmp_path: Path):
    code, output, _ = call("plan", planned)
    assert code == 0
    for words in (
        "prepare",
        "pretrain",
        "stage1",
        "stage2",
        "model",
        "evaluate",
        "report",
        "train 3 steps",
        "steps is 0",
    ):
        assert words in output
    assert output.count("prepare") >= 3
    assert "finished" not in output
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_looking_verbs_never_start_ray(planned: Path):
    """Nor do they import it; components are torch modules, so torch itself cannot be avoided by those that list them."""
    code = """
import json, sys
from cluenet import cli
codes = [cli.call(arguments) for arguments in json.loads(sys.argv[1])]
print("codes", codes, "ray", "ray" in sys.modules)
"""
    looked = ["inspect", "clueworld", "split=test", "videos=2"]
    lines = [["plan", str(planned)], ["components"], ["schema"], ["validate", str(planned)], looked]
    command = [sys.executable, "-c", code, json.dumps(lines)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "codes [0, 0, 0, 0, 0] ray False", result.stderr


def test_a_changed_recipe_gets_another_run_folder(planned: Path):
    from cluenet.planning import Plan
    from cluenet.recipe import load

    runs = {
        override: Plan(load(planned, [override])).run for override in ("name=mine", "seed=3", "train.stage1.steps=4")
    }
    assert len(set(runs.values())) == 3
    assert Plan(load(planned, ["train.workers=2", "evaluate.bootstrap=200"])).run == runs["name=mine"]
    assert runs["name=mine"].name.startswith("mine-")


def test_the_recipe_of_a_run_repeats_it(planned: Path, tmp_path: Path):
    from cluenet.planning import Plan
    from cluenet.recipe import load

    run = Run(load(planned))
    run.account.write_recipe()
    again = load(run.folder / "recipe.yaml")
    assert isinstance(again, Recipe)
    assert again == load(planned)
    assert Plan(again).run == run.folder
