"""Environments to run the command line in: this one, and clean ones that hold wheels but not this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@dataclass
class Environment:
    """A Python with cluenet in it."""

    python: Path
    variables: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # variables that are not handed on

    def start(self, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
        """`python -m cluenet ...`, not waited for."""
        command = [str(self.python), "-m", "cluenet", *map(str, arguments)]
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
        variables = {**inherited, **QUIET, **self.variables}
        for name in self.without:
            variables.pop(name, None)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=cwd, env=variables, text=True, stdout=pipe, stderr=pipe)

    def call(self, *arguments: object, cwd: Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, cwd=cwd)
        try:
            output, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, error = process.communicate()
            raise AssertionError(f"cluenet {arguments} took over {timeout} s:\n{output}\n{error}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def build_wheel(project: Path, out: Path) -> Path:
    """Without isolation: hatchling is here, and there may be no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(python: Path, wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, text=True)


def make_environment(folder: Path, wheels: Sequence[Path]) -> Environment:
    """A venv that sees the libraries of this Python, but not this repository: a path inside a .pth file is not searched for
    .pth files itself, so the editable installation is not followed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    for wheel in wheels:
        install(python, wheel)
    return Environment(python)


HERE = Environment(Path(sys.executable))
"""The environment that the tests run in."""
