"""The order in which options are shown: scores do not depend on how a dataset stores them, and say what the order does."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from cluenet.contracts import Dataset
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.evaluate.option_order import shown_order, stored_answer, stored_record
from cluenet.evaluate.shuffles import shuffles
from cluenet.model.pipeline import ClueNet
from cluenet.records import Answer, Example
from cluenet.verdicts import accuracy_share
from helpers.evaluation import Silent, model_folder, prepared_test, recipe
from helpers.models import example
from helpers.samples import sample

SETTINGS = {"questions_per_batch": 5, "bootstrap": 100}


def turned(number: int) -> Example:
    """The same question as `example(number)`, stored in another order."""
    one = example(number)
    return one.with_options_in([*range(1, len(one.options)), 0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("m") / "model", recipe=recipe())


def evaluated(model: Path, folder: Path, make=example, **settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    asked = recipe(evaluate={**SETTINGS, **settings})
    prepared = prepared_test(folder / "0123", recipe=asked, clips=3, make=make)
    found = evaluate(asked, model_folder=model, prepared=[prepared], out=folder / "out", progress=Silent, local=True)
    return found["fake-test"], read_samples(folder / "out" / "fake-test")


def words(one: dict[str, Any], index: int | None) -> str | None:
    return None if index is None else one["options"][index]


def by_words(one: dict[str, Any], row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        words(one, row["prediction"]),
        dict(zip(one["options"], row["option_logprobs"])),
        row["correct"],
        row.get("reply"),
    )


# ------------------------------------------------------------------------------------------------------ the order


def test_an_order_follows_from_the_question_the_seed_and_the_number_alone() -> None:
    one = example(1)
    order = shown_order(one, seed=0, shuffle=0)
    assert sorted(order) == [0, 1, 2, 3]
    assert order == shown_order(replace(one, question="other words ?", answer=3), seed=0, shuffle=0)
    shown = [one.options[index] for index in order]
    other = turned(1)
    assert [other.options[index] for index in shown_order(other, seed=0, shuffle=0)] == shown
    changes = {"seed": {"seed": 1}, "shuffle": {"shuffle": 1}}
    for what, change in changes.items():
        assert any(
            shown_order(example(n), **{"seed": 0, "shuffle": 0, **change}) != shown_order(example(n), seed=0, shuffle=0)
            for n in range(1, 20, 2)
        ), what


def test_every_option_comes_to_every_place_about_equally_often() -> None:
    first = Counter(shown_order(example(1, id=f"q{n}"), seed=0, shuffle=0)[0] for n in range(2000))
    assert set(first) == {0, 1, 2, 3}
    assert all(abs(count - 500) < 100 for count in first.values())  # 5 standard deviations


def test_answers_and_records_are_told_in_the_stored_order() -> None:
    order = (2, 0, 1)  # the third stored option is shown first
    one = replace(example(0), options=("a", "b", "c"), answer=0)
    shown = one.with_options_in(order)
    assert (shown.options, shown.answer_text) == (("c", "a", "b"), "a")
    told = stored_answer(Answer("q", 0, (-1.0, -2.0, -3.0)), shown, order)
    assert (told.prediction, told.option_logprobs) == (2, (-2.0, -3.0, -1.0))
    assert stored_answer(Answer("q", 0, (-1.0, -2.0, -3.0), reply="(B)"), shown, order).prediction == 0
    assert stored_answer(Answer("q", 0, (-1.0, -2.0, -3.0), reply="?"), shown, order).prediction is None
    record = {
        "order": [1, 0], "deletion": [0.5], "swap": {"donor": "x", "prediction": 1, "target": None}, "edit": None,
        "noise": {"replaces": 1, "after": 0, "through": 2, "kept": True, "unfiltered": 1}, "text_only": 2,
    }  # fmt: skip
    assert stored_record(record, order) == {
        "order": [1, 0], "deletion": [0.5], "swap": {"donor": "x", "prediction": 0, "target": None}, "edit": None,
        "noise": {"replaces": 1, "after": 2, "through": 1, "kept": True, "unfiltered": 0}, "text_only": 1,
    }  # fmt: skip
    assert stored_record({"proximity": [0.1, 0.2, 0.3], "filter": {"unfiltered": 0}}, order) == {
        "proximity": [0.2, 0.3, 0.1], "filter": {"unfiltered": 2},
    }  # fmt: skip
    assert stored_record(None, order) is None


# -------------------------------------------------------------------------------------------------- the invariance


@pytest.mark.parametrize(
    "settings",
    [{"faithfulness": True, "shuffles": 2}, {"mode": "generate", "max_new_tokens": 4, "rows": ["own", "none"]}],
    ids=["faithfulness", "generate"],
)
@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
def test_another_stored_order_gives_the_same_answers_and_results(
    tmp_path: Path, scoring: str, settings: dict[str, Any]
) -> None:
    reasoner = {"name": "clue_chain", "scoring": scoring}
    model = model_folder(tmp_path / "model", recipe=recipe(), reasoner=reasoner)
    (results, samples), (others, turns) = (
        evaluated(model, tmp_path / make.__name__, make, **settings) for make in (example, turned)
    )
    assert results == others
    for one, turn in zip(samples, turns, strict=True):
        assert (one["options"], words(one, one["answer"])) != (turn["options"], None)
        assert sorted(one["options"]) == sorted(turn["options"])
        assert one["options"] != turn["options"]
        assert words(one, one["answer"]) == words(turn, turn["answer"]) == one["target"]
        assert [one["options"][index] for index in one["order"]] == [turn["options"][index] for index in turn["order"]]
        assert by_words(one, one) == by_words(turn, turn)
        for a, b in zip(
            [*one["rows"].values(), *one.get("shuffles", ())], [*turn["rows"].values(), *turn.get("shuffles", ())]
        ):
            assert by_words(one, a) == by_words(turn, b)


def test_in_the_stored_order_the_model_is_shown_what_is_stored(model: Path, tmp_path: Path) -> None:
    _, samples = evaluated(model, tmp_path / "a", shuffles=0)
    assert all(one["order"] == list(range(len(one["options"]))) for one in samples)
    _, shuffled = evaluated(model, tmp_path / "b")
    assert any(one["order"] != list(range(len(one["options"]))) for one in shuffled)


# ------------------------------------------------------------------------------------------------- several orders


def test_the_video_is_looked_at_once_for_all_orders(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, watched = [], ClueNet.watch
    monkeypatch.setattr(
        ClueNet, "watch", lambda self, prompts: looks.append(len(prompts.ids_BP)) or watched(self, prompts)
    )
    results, samples = evaluated(model, tmp_path, shuffles=3, rows=["own"])
    assert sum(looks) == 3  # clips
    assert all(len(one["shuffles"]) == 2 for one in samples)
    assert results["shuffles"]["n"] == len(results["shuffles"]["accuracy"]["values"]) == 3
    assert results["shuffles"]["accuracy"]["values"][0] == results["accuracy"]["overall"]["value"]


def test_each_order_is_what_it_would_be_as_the_first_one(model: Path, tmp_path: Path) -> None:
    """The second order of an evaluation, made on its own: stored so, and shown as stored."""
    _, samples = evaluated(model, tmp_path / "two", shuffles=2, rows=["own"])

    def second(number: int) -> Example:
        one = example(number)
        return one.with_options_in(shown_order(replace(one, id=f"0123/{number}"), seed=0, shuffle=1))

    _, alone = evaluated(model, tmp_path / "one", second, shuffles=0, rows=["own"])
    for one, other in zip(samples, alone, strict=True):
        prediction, logprobs, *rest = by_words(one, one["shuffles"][0])
        expected = by_words(other, other)
        assert (prediction, *rest) == (expected[0], *expected[2:])
        assert logprobs == pytest.approx(expected[1], abs=2e-6)


class Counted(Dataset):
    @classmethod
    def measures(cls, verdicts):
        return [accuracy_share("acc", verdicts)]


def test_mean_and_deviation_over_orders_by_hand() -> None:
    def other(prediction: int, answer: int = 0) -> dict[str, Any]:
        return {"prediction": prediction, "option_logprobs": [-1.386294] * 4, "correct": prediction == answer}

    samples = [
        sample(0, prediction=0, video="a", shuffles=[other(0), other(0)]),
        sample(1, prediction=1, video="b", type="count", shuffles=[other(0), other(1)]),
        sample(2, prediction=0, video="c", shuffles=[other(1), other(2)]),
        sample(3, answer=None, prediction=1, video="c", shuffles=[{**other(1), "correct": None}] * 2),
    ]
    lost = [{"id": "q9", "path": "x", "type": None, "meta": {}}]
    found = shuffles(samples, lost, Counted, resamples=100)
    values = [2 / 3, 2 / 3, 1 / 3]
    assert found["accuracy"] == {
        "values": pytest.approx(values),
        "mean": pytest.approx(fmean(values)),
        "std": pytest.approx(stdev(values)),
    }
    assert found["by_type"]["count"]["values"] == [0.0, 1.0, 0.0]
    assert found["all"]["values"] == pytest.approx([2 / 4, 2 / 4, 1 / 4])
    assert found["benchmark"]["all"]["acc"]["values"] == pytest.approx([2 / 4, 2 / 4, 1 / 4])
    assert found["benchmark"]["answered"]["acc"]["values"] == pytest.approx(values)
    assert (found["consistent"]["value"], found["consistent"]["n"]) == (pytest.approx(2 / 4), 4)


def test_a_measure_that_one_order_leaves_unanswered_has_values_of_the_others() -> None:
    class ByType(Dataset):
        @classmethod
        def measures(cls, verdicts):
            return [accuracy_share(kind, [one for one in verdicts if one.type == kind])
                    for kind in sorted({one.type for one in verdicts})]  # fmt: skip

    unread = {"prediction": None, "option_logprobs": [], "correct": False}
    said = {"prediction": 0, "option_logprobs": [], "correct": True}
    samples = [sample(0, **said, type="who", shuffles=[said]), sample(1, **unread, type="count", shuffles=[said])]
    found = shuffles(samples, [], ByType, resamples=100)["benchmark"]
    assert found["all"]["count"]["values"] == [0.0, 1.0]
    assert found["answered"]["count"]["values"] == [None, 1.0]
    assert found["answered"]["who"]["values"] == [1.0, 1.0]


# --------------------------------------------------------------------------------------------------- written answers


def test_written_answers_are_kept_and_what_cannot_be_read_is_wrong_and_counted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["(A)", "", "no option of these", "(B) red", "red", *["(C)"] * 100])

    def replies(model, batch, *_, **__):
        return {(b, q): next(said) for b, clip in enumerate(batch.clips) for q in range(len(clip))}

    monkeypatch.setattr("cluenet.model.pipeline.replies", replies)
    results, samples = evaluated(model, tmp_path, mode="generate", rows=["own"])
    first = {one["id"]: one for one in samples}
    (letter, empty, neither, both, word) = (first[f"0123/{n}"] for n in range(5))
    assert letter["prediction"] == letter["order"][0]
    assert both["prediction"] == both["order"][1]
    assert word["options"][word["prediction"]] == "red"
    for one in (empty, neither):
        assert (one["prediction"], one["correct"], one["filtered_resps"]) == (None, False, [None])
    assert [one["reply"] for one in (letter, empty, neither, both, word)] == [
        "(A)",
        "",
        "no option of these",
        "(B) red",
        "red",
    ]
    assert results["counts"]["unparsed"] == 2
    assert results["accuracy"]["overall"]["n"] == len(samples)
    assert results["calibration"] is None
    assert "written" in results["notes"]["calibration"]
    json.dumps(results, allow_nan=False)
