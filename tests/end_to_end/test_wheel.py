"""What users install: the wheel is complete, and works where this repository is not."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

from helpers.environments import ROOT, Environment


def test_the_wheel_holds_everything_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    sources = {
        str(path.relative_to(root))
        for root in (ROOT / "platform", ROOT / "components")
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == sources
    assert "cluenet/report/report.html.j2" in packed
    assert "cluenet/serve/page/index.html" in packed
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_runs_where_the_repository_is_not(installed: Environment, tmp_path: Path):
    where = [
        str(installed.python),
        "-c",
        "import cluenet, cluenet_components; print(cluenet.__file__, cluenet_components.__file__)",
    ]
    found = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert str(ROOT) not in found
    rows = json.loads(installed.call("components", "--json", cwd=tmp_path).stdout)
    assert {"uniform", "clueworld", "tiny", "evidence"} <= {row["name"] for row in rows}


def test_the_console_script_is_there(installed: Environment):
    script = installed.python.parent / "cluenet"
    result = subprocess.run([str(script), "--version"], check=True, capture_output=True, text=True)
    assert result.stdout.startswith("cluenet ")


def test_a_recipe_is_validated_and_planned(installed: Environment, tmp_path: Path):
    (tmp_path / "r.yaml").write_text("store: store\ndata: {train: [clueworld]}\n")
    assert installed.call("validate", "r.yaml", cwd=tmp_path).stdout == "r.yaml: ok\n"
    result = installed.call("plan", "r.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "pretrain" in result.stdout


def test_the_report_finds_its_template(installed: Environment, tmp_path: Path):
    code = "from cluenet.report.page import environment; print(environment().list_templates())"
    result = subprocess.run(
        [str(installed.python), "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    for name in ("report.html.j2", "sections/examples.html.j2", "style.css", "charts.js"):
        assert name in result.stdout
