"""Runs against a base: rows, families of tests, several seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from cluenet import cli
from cluenet.errors import DataError
from cluenet.evaluate.compare import ALL, PAIRS, compare, table
from cluenet.folders import write_manifest
from helpers.samples import sample

POLICY = {"sampler": {"name": "uniform", "frames": 16}, "size": {"height": 64}, "codec": "lossless"}


def _run(folder: Path, samples: list[dict], *names: str, **manifest) -> Path:
    """A run folder, evaluated on test sets that all have these samples."""
    for name in names or ("fake-test",):
        target = folder / "evaluation" / name
        target.mkdir(parents=True)
        (target / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
        write_manifest(target, {"policy": POLICY, "policy_fingerprint": "p", **manifest})
    return folder


def _samples(rights: str, **changes) -> list[dict]:
    """One question per letter: r right, w wrong, ? unknown answer; two questions per video, every third of type count."""
    return [
        sample(i, video=f"v{i // 2}", type="count" if i % 3 == 0 else "who", prediction=0 if letter == "r" else 1,
               answer=None if letter == "?" else 0, **changes)
        for i, letter in enumerate(rights)
    ]  # fmt: skip


def _text(report, width: int = 200) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(report))
    return console.export_text()


def test_differences_by_type_with_all_first(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", _samples("rwwrww?")), _run(tmp_path / "b", _samples("rrrwww?"))
    rows = compare([a], [b], resamples=200).rows
    assert [(row.run, row.test_set, row.type, row.questions, row.videos) for row in rows] == [
        ("b", "fake-test", ALL, 6, 3), ("b", "fake-test", "count", 2, 2), ("b", "fake-test", "who", 4, 3),
    ]  # fmt: skip
    everything, count, who = (row.result for row in rows)
    assert (everything.only_a, everything.only_b, everything.p_value) == (1, 2, 1.0)
    assert everything.difference.value == pytest.approx(1 / 6)
    assert (count.accuracy_a, count.accuracy_b, count.difference.value) == (1.0, 0.5, -0.5)
    assert who.difference.value == 0.5
    back = compare([b], [a], resamples=200).rows[0].result
    assert back.difference.value == pytest.approx(-1 / 6)
    assert back.difference.low == pytest.approx(-everything.difference.high)


def test_a_single_type_is_not_repeated(tmp_path: Path) -> None:
    runs = [[_run(tmp_path / name, [sample(0), sample(1)])] for name in "ab"]
    assert [row.type for row in compare(*runs, resamples=100).rows] == [ALL]


def test_holm_over_runs_and_over_the_types_of_a_run(tmp_path: Path) -> None:
    base = _run(tmp_path / "base", _samples("w" * 24), "one", "two")
    better = [_run(tmp_path / name, _samples(rights), "one", "two")
              for name, rights in (("b", "r" * 10 + "w" * 14), ("c", "r" * 24))]  # fmt: skip
    report = compare([base], *([run] for run in better), resamples=100)
    alls = [row for row in report.rows if row.type == ALL]
    assert [(row.run, row.test_set, row.tests) for row in alls] == [
        ("b", "one", 4), ("b", "two", 4), ("c", "one", 4), ("c", "two", 4),
    ]  # fmt: skip
    assert [row.p_holm for row in alls] == pytest.approx([2 * 0.5**9, 2 * 0.5**9, 4 * 0.5**23, 4 * 0.5**23])
    types = [row for row in report.rows if row.type != ALL]
    assert {(row.run, row.family, row.tests) for row in types} == {("b", "types of b", 4), ("c", "types of c", 4)}
    count = next(row for row in types if (row.run, row.test_set, row.type) == ("b", "one", "count"))
    assert count.result.p_value == 0.125  # 4 of 4 discordant questions
    assert count.p_holm == pytest.approx(2 * 0.125)  # the two of `who` come first: p = 0.03125


def test_a_single_comparison_is_not_corrected(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", _samples("w" * 9)), _run(tmp_path / "b", _samples("r" * 9))
    row = compare([a], [b], resamples=100).rows[0]
    assert (row.tests, row.p_holm) == (1, row.result.p_value)


def test_several_seeds_of_an_arm(tmp_path: Path) -> None:
    base = [_run(tmp_path / f"base-s{i}", _samples(rights)) for i, rights in enumerate(("rrwwww", "rwwwww", "rrrwww"))]
    other = [_run(tmp_path / f"clues-s{i}", _samples(rights)) for i, rights in enumerate(("rrrrww", "rrrrrw"))]
    report = compare(base, other, resamples=500)
    assert [arm.name for arm in report.arms] == ["base-s0 +2", "clues-s0 +1"]
    result = report.rows[0].result
    assert result.accuracies_a == pytest.approx((2 / 6, 1 / 6, 3 / 6))
    assert result.difference.value == pytest.approx(4.5 / 6 - 2 / 6)
    assert (result.test, result.only_a) == ("bootstrap", None)
    assert result.difference.low < result.difference.value < result.difference.high


def _pair(number: int, right: str, video: str) -> list[dict]:
    both = zip(("yes", "no"), (1, 0), right)
    return [
        sample(0, id=f"s{number}-{which}", meta={"pair": f"s{number}"}, type="exists", options=["no", "yes"], video=video, answer=answer,
               prediction=answer if letter == "r" else 1 - answer)
        for which, answer, letter in both
    ]  # fmt: skip


def test_pairs_are_right_only_together(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", [*_pair(0, "rw", "v0"), *_pair(1, "wr", "v1"), *_pair(2, "rr", "v1")])
    b = _run(tmp_path / "b", [*_pair(0, "rr", "v0"), *_pair(1, "rw", "v1"), *_pair(2, "rr", "v1")])
    everything, pairs = compare([a], [b], resamples=100).rows
    assert (everything.type, pairs.type, pairs.questions, pairs.family) == (ALL, PAIRS, 3, "types of b")
    assert (pairs.result.accuracy_a, pairs.result.accuracy_b) == pytest.approx((1 / 3, 2 / 3))
    assert (pairs.result.only_a, pairs.result.only_b) == (0, 1)


# ------------------------------------------------------------------------------------------------------ refused


def test_different_questions_options_or_words_are_refused(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", _samples("rw"))
    with pytest.raises(
        DataError, match=r"b against .*a: fake-test: other question ids: 0 are missing and 1 are new, such as q2"
    ):
        compare([a], [_run(tmp_path / "b", _samples("rwr"))])
    five = ["red", "blue", "green", "cyan", "pink"]
    with pytest.raises(DataError, match="other numbers of options: 2 questions, such as q0 with 5 and 4"):
        compare([a], [_run(tmp_path / "c", _samples("rw", options=five))])
    with pytest.raises(DataError, match=r"question q0: options is \['x', 'blue'.* and \['red'"):
        compare([a], [_run(tmp_path / "d", _samples("rw", options=["x", *five[1:4]]))])
    with pytest.raises(DataError, match=r"question q0: meta is \{'pair': 'p'\} and \{\}"):
        compare([a], [_run(tmp_path / "e", _samples("rw", meta={"pair": "p"}))])


def test_samples_of_an_earlier_version_are_refused_with_the_next_step(tmp_path: Path) -> None:
    old = [{key: value for key, value in line.items() if key != "meta"} for line in _samples("rw")]
    a, b = _run(tmp_path / "a", _samples("rw")), _run(tmp_path / "b", old)
    with pytest.raises(DataError, match=r"b/evaluation/fake-test: its samples have no `meta`.*evaluate again"):
        compare([a], [b])


def test_other_frames_are_refused_and_named(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", _samples("rw"))
    policy = {**POLICY, "sampler": {"name": "uniform", "frames": 8}}
    with pytest.raises(
        DataError, match=r"other frames: data.sampler is .*'frames': 8\} and .*'frames': 16\}. Evaluate both"
    ):
        compare([a], [_run(tmp_path / "b", _samples("rw"), policy=policy, policy_fingerprint="o")])
    with pytest.raises(DataError, match="the sampler's version differs"):
        compare([a], [_run(tmp_path / "c", _samples("rw"), policy_fingerprint="o")])
    with pytest.raises(DataError, match=r"d/evaluation/fake-test/manifest.json has no policy_fingerprint"):
        compare([a], [_run(tmp_path / "d", _samples("rw"), policy_fingerprint=None)])


def test_every_problem_of_every_run_is_listed(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", _samples("rw")), _run(tmp_path / "b", _samples("rwr"), policy_fingerprint="o")
    with pytest.raises(DataError) as caught:
        compare([a, b], [_run(tmp_path / "c", _samples("r"))])
    assert str(caught.value).startswith("these runs cannot be compared\n")
    problems = str(caught.value).splitlines()[1:]
    assert [problem.split(": ")[2] for problem in problems] == [
        "other frames", "other question ids", "other question ids",
    ]  # fmt: skip


def test_one_model_is_not_two_seeds(tmp_path: Path) -> None:
    a, b = (_run(tmp_path / name, _samples("rw"), model_address="m0") for name in "ab")
    for arm in ([a, b], [a, a]):
        with pytest.raises(DataError, match=r"the same model as .*a, in one arm"):
            compare(arm, [_run(tmp_path / f"c{len(list(tmp_path.iterdir()))}", _samples("rw"))])
    compare([a], [b], resamples=100)  # in two arms it may stand


def test_missing_evaluations_are_named(tmp_path: Path) -> None:
    a = _run(tmp_path / "a", _samples("rw"))
    with pytest.raises(DataError, match="no finished evaluation"):
        compare([a], [tmp_path / "none"])
    with pytest.raises(DataError, match=r"b: not evaluated on 'fake-test'. Did you mean 'fake-tset'\?"):
        compare([a], [_run(tmp_path / "b", _samples("rw"), "fake-tset")])


# ----------------------------------------------------------------------------------------------------- terminal


def test_the_table_shows_what_was_measured(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "baseline", _samples("w" * 20)), _run(tmp_path / "clues", _samples("r" * 19 + "w"))
    text = _text(compare([a], [b], resamples=200))
    assert "clues against baseline" in text
    (line,) = [line for line in text.splitlines() if ALL in line and "│" in line]
    cells = [part.strip() for part in line.split("│")[1:-1]]
    assert cells[:7] == ["clues", "fake-test", ALL, "20", "0.0", "95.0", "+95.0"]
    assert cells[7].endswith("+100.0")
    assert cells[8:10] == ["< 0.001", "< 0.001"]
    assert float(cells[10]) > 50  # nothing but one way to be discordant: few videos say little


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [_run(tmp_path / name / "quickstart", _samples("rw")) for name in ("old", "new")]
    assert [arm.name for arm in compare(*([run] for run in runs), resamples=100).arms] == [str(run) for run in runs]


def test_the_command_joins_seeds_by_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path / f"r{i}", _samples("rwrw"), model_address=f"m{i}") for i in range(4)]
    assert cli.call(["compare", f"{runs[0]},{runs[1]}", f"{runs[2]}, {runs[3]}", str(runs[3]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["base"] == {"name": "r0 +1", "runs": [str(runs[0]), str(runs[1])]}
    assert [arm["name"] for arm in found["runs"]] == ["r2 +1", "r3"]
    row = found["rows"][0]
    assert {"run", "test_set", "type", "questions", "p_holm", "tests", "result"} <= set(row)
    assert row["result"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 4}
    assert set(row["result"]["power"]) == {"observed", "minimum_detectable", "discordant", "design_effect"}


def test_seeds_of_the_same_models_are_drawn_for_both_arms(tmp_path: Path) -> None:
    """One model is right everywhere, one nowhere, in both ways of asking: no difference, and no doubt about it."""
    asked = {
        (way, model): _run(tmp_path / f"{way}{model}", _samples(model * 8), model_address=model)
        for way in "ab"
        for model in "rw"
    }
    first = [asked["a", "r"], asked["a", "w"]]
    together = compare(first, [asked["b", "r"], asked["b", "w"]], resamples=200).rows[0].result.difference
    assert (together.low, together.high) == (0.0, 0.0)
    other_order = compare(first, [asked["b", "w"], asked["b", "r"]], resamples=200).rows[0].result.difference
    assert other_order.high - other_order.low == 2.0  # run by run not the same: drawn apart


def test_the_command_refuses_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _run(tmp_path / "a", _samples("rw")), _run(tmp_path / "b", _samples("rw"), policy_fingerprint="o")
    assert cli.call(["compare", str(a), str(b)]) == 2
    assert "other frames" in capsys.readouterr().err
    assert cli.call(["compare", f"{a},", str(b)]) == 2
    assert "has no run beside a comma" in capsys.readouterr().err
    assert cli.call(["compare", str(a)]) == 2


def test_a_folder_with_a_comma_in_its_name_is_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [_run(tmp_path / name, _samples("rw")) for name in ("a,b", "c")]
    assert cli.call(["compare", *map(str, runs)]) == 0
    assert "a,b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"mode": "generate"}, "evaluate.mode is 'generate' and 'letters'"), ({"seed": 1}, "evaluate.seed is 1 and 0"),
     ({"shuffles": 0}, r"evaluate.shuffles=0\) is True and False")],
)  # fmt: skip
def test_runs_that_were_asked_in_another_way_are_refused(tmp_path: Path, settings: dict, named: str) -> None:
    asked = {"mode": "letters", "seed": 0, "shuffles": 1}
    base = _run(tmp_path / "base", _samples("rw"), **asked)
    other = _run(tmp_path / "other", _samples("rr"), **{**asked, **settings})
    with pytest.raises(DataError, match=named):
        compare([base], [other], resamples=100)
    again = _run(tmp_path / "again", _samples("rr"), **{**asked, "shuffles": 5})
    assert compare([base], [again], resamples=100).rows
