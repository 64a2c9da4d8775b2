"""A working directory with a recipe, for tests of jobs."""

from __future__ import annotations

from pathlib import Path

RECIPE = "name: small\nstore: /shared/store\nruns: /shared/runs\ndata: {train: [clueworld]}\n"


def working_directory(tmp_path: Path) -> Path:
    """A working directory with a recipe, and with what never ships."""
    for path, text in {
        "recipes/r.yaml": RECIPE, "recipes/g.yaml": "name: filters\nbase: r.yaml\naxes: {model.clue_filter: [adaptive, keep_all]}\n",
        "recipes/top.yaml": "extends: r.yaml\nname: top\n", ".gitignore": "videos/\n", ".rayignore": "large.bin\n",
        "videos/a.mp4": "v", "large.bin": "l", "plugin.py": "", ".git/HEAD": "h", ".venv/bin/python": "p", "runs/a/report.html": "r",
        "sub/__pycache__/a.pyc": "c", ".pytest_cache/x": "x", "sub/runs.py": "code",
    }.items():  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path
