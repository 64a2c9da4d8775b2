"""Two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from cluenet.errors import DataError
from cluenet.evaluate.compare import ALL, compare, table
from cluenet.folders import write_manifest
from helpers.samples import sample


def _run(folder: Path, samples: list[dict], name: str = "fake-test") -> Path:
    target = folder / "evaluation" / name
    target.mkdir(parents=True)
    (target / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    write_manifest(target, {})
    return folder


def _samples(rights: str, **changes) -> list[dict]:
    """One question per letter: r right, w wrong, ? unknown answer; two questions per video, every third of type count."""
    return [
        sample(i, video=f"v{i // 2}", type="count" if i % 3 == 0 else "who", prediction=0 if letter == "r" else 1,
               answer=None if letter == "?" else 0, **changes)
        for i, letter in enumerate(rights)
    ]  # fmt: skip


def test_differences_by_type_with_all_first(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", _samples("rwwrww?")), _run(tmp_path / "b", _samples("rrrwww?"))
    rows = compare(a, b, resamples=200)
    assert [(row.test_set, row.type, row.questions) for row in rows] == [
        ("fake-test", ALL, 6), ("fake-test", "count", 2), ("fake-test", "who", 4),
    ]  # fmt: skip
    everything, count, who = (row.result for row in rows)
    assert (everything.only_a, everything.only_b, everything.p_value) == (1, 2, 1.0)
    assert everything.difference.value == pytest.approx(1 / 6)
    assert (count.accuracy_a, count.accuracy_b, count.difference.value) == (1.0, 0.5, -0.5)
    assert who.difference.value == 0.5
    back = compare(b, a, resamples=200)[0].result
    assert back.difference.value == pytest.approx(-1 / 6)
    assert back.difference.low == pytest.approx(-everything.difference.high)


def test_a_single_type_is_not_repeated(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name, [sample(0), sample(1)]) for name in "ab"]
    assert [row.type for row in compare(*runs)] == [ALL]


def test_different_questions_or_words_are_refused(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", _samples("rw"))
    with pytest.raises(
        DataError, match="fake-test: the two runs did not answer the same questions: 0 are only in the first, 1"
    ):
        compare(a, _run(tmp_path / "b", _samples("rwr")))
    with pytest.raises(DataError, match=r"question q0 differs between the runs: options is \['red'"):
        compare(a, _run(tmp_path / "c", _samples("rw", options=["x", "y"])))


def test_missing_evaluations_are_named(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", _samples("rw"))
    with pytest.raises(DataError, match="no finished evaluation"):
        compare(a, tmp_path / "none")
    with pytest.raises(DataError, match=r"b: not evaluated on 'fake-test'. Did you mean 'fake-tset'\?"):
        compare(a, _run(tmp_path / "b", _samples("rw"), name="fake-tset"))


def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", _samples("w" * 20)), _run(tmp_path / "b", _samples("r" * 20))
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(compare(a, b, resamples=200), name_a="baseline", name_b="clues"))
    text = console.export_text()
    assert "clues against baseline" in text
    (line,) = [line for line in text.splitlines() if ALL in line]
    assert [part.strip() for part in line.split("│")[1:-1]] == [
        "fake-test", ALL, "20", "0.0", "100.0", "+100.0", "+100.0 .. +100.0", "< 0.001",
    ]  # fmt: skip
