"""`biases` of results.json on planted samples, against plain loops."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from cluenet.metrics.biases import NO_ATTENTION, NO_LABELS, NOT_SHOWN, biases, headlines
from helpers.samples import sample

LAYERS, KS, VOCABULARY = 3, [1, 5], 50


def word(role: str | None, rng: random.Random, *, outside: bool = True) -> dict:
    def shares(tokens: int) -> list[list[float]]:
        return [[rng.randrange(tokens + 1) / tokens for _ in range(LAYERS)] for _ in KS]

    tokens = rng.randrange(1, 5)
    return {
        "role": role,
        "word": "red",
        "tokens": tokens,
        "inside": shares(tokens),
        "outside": shares(9) if outside else None,
    }


def diagnosed(number: int, *, energy=(), words=(), proximity=None, pointing=(), **changes) -> dict:
    clue = sample(number)["clues"][0]
    record = {
        "energy": list(energy), "proximity": proximity, "lens": {"vocabulary": VOCABULARY, "k": KS, "words": list(words)}
    }  # fmt: skip
    clues = [{**clue, "pointing": hit, "pointing_chance": 0.25} for hit in pointing]
    return sample(number, clues=clues, diagnostics=record, **changes)


def planted(seed: int = 0, questions: int = 50) -> list[dict]:
    rng = random.Random(seed)

    def energy() -> dict | None:
        return rng.choice([None, {"share": rng.random(), "chance": rng.random() / 4}])

    return [
        diagnosed(
            i, video=f"v{i % 11}", prediction=rng.randrange(4), answer=rng.choice([None, 0, 0, 0]),
            energy=[energy() for _ in range(rng.randrange(3))],
            pointing=[rng.choice([True, False]) for _ in range(rng.randrange(3))],
            words=[word(rng.choice(["who", "what", None]), rng, outside=rng.random() < 0.8) for _ in range(rng.randrange(4))],
            proximity=rng.choice([None, [rng.random() for _ in range(4)]]),
        )
        for i in range(questions)
    ]  # fmt: skip


def found(samples: list[dict]) -> dict:
    block, _ = biases(samples, resamples=200)
    assert block is not None
    return block


@pytest.mark.parametrize("measure", ["pointing", "energy_in_box"])
def test_perception_by_verdict_against_loops(measure: str) -> None:
    samples = planted()

    def values(verdicts: tuple, part: int = 0) -> list[float]:
        if measure == "pointing":
            return [(c["pointing"], 0.25)[part] for s in samples if s["correct"] in verdicts for c in s["clues"]]
        energies = [e for s in samples if s["correct"] in verdicts for e in s["diagnostics"]["energy"] if e]
        return [(e["share"], e["chance"])[part] for e in energies]

    block = found(samples)["perception"][measure]
    for name, verdicts in (("all", (True, False, None)), ("right", (True,)), ("wrong", (False,))):
        assert (block[name]["value"], block[name]["n"]) == (
            pytest.approx(fmean(values(verdicts))),
            len(values(verdicts)),
        )
    assert block["gap"]["value"] == pytest.approx(fmean(values((True,))) - fmean(values((False,))))
    assert block["gap"]["n"] == len(values((True, False)))
    assert block["gap"]["low"] < block["gap"]["value"] < block["gap"]["high"]
    assert block["chance"] == pytest.approx(fmean(values((True, False, None), 1)))


def test_attention_that_goes_astray_with_wrong_answers_is_found() -> None:
    samples = [
        diagnosed(i, video=f"v{i}", prediction=i % 2, energy=[{"share": 0.9 if i % 2 == 0 else 0.1, "chance": 0.1}])
        for i in range(10)
    ]
    gap = found(samples)["perception"]["energy_in_box"]["gap"]
    assert (gap["value"], gap["low"], gap["high"]) == pytest.approx((0.8, 0.8, 0.8))


def test_words_of_clues_by_layer_against_loops() -> None:
    samples = planted()
    words = [one for s in samples for one in s["diagnostics"]["lens"]["words"]]
    points = found(samples)["cognition"]
    assert [(point["layer"], point["k"]) for point in points] == [(layer, k) for layer in (1, 2, 3) for k in KS]
    for point in points:
        layer, place = point["layer"] - 1, KS.index(point["k"])

        def inside(one: dict, layer: int = layer, place: int = place) -> float:
            return one["inside"][place][layer]

        assert (point["rate"]["value"], point["rate"]["n"]) == (
            pytest.approx(fmean(inside(w) > 0 for w in words)),
            len(words),
        )
        assert point["tokens"]["value"] == pytest.approx(fmean(map(inside, words)))
        outside = [w["outside"][place][layer] for w in words if w["outside"]]
        assert (point["elsewhere"]["value"], point["elsewhere"]["n"]) == (pytest.approx(fmean(outside)), len(outside))
        assert list(point["by_role"]) == ["who", "what"]
        who = [inside(w) > 0 for w in words if w["role"] == "who"]
        assert (point["by_role"]["who"]["value"], point["by_role"]["who"]["n"]) == (pytest.approx(fmean(who)), len(who))


def test_the_chance_of_random_words_against_drawing_them() -> None:
    rng = random.Random(0)
    one = {**word("who", rng), "tokens": 6}
    points = found([diagnosed(0, words=[one]), diagnosed(1)])["cognition"]
    drawn = fmean(any(7 in rng.sample(range(VOCABULARY), 5) for _ in range(6)) for _ in range(20000))
    chances = {point["k"]: point["chance"] for point in points}
    assert chances[5] == pytest.approx(drawn, abs=0.015)
    assert chances[1] == pytest.approx(1 - (49 / 50) ** 6)


def test_the_nearest_option_against_loops() -> None:
    samples = [s for s in planted() if s["diagnostics"]["proximity"]]
    samples.append(diagnosed(99, proximity=[0.1, 0.9], options=["red", "blue"], video="v0", answer=1, prediction=0))
    nearest = [max(range(len(p)), key=p.__getitem__) for p in (s["diagnostics"]["proximity"] for s in samples)]
    block = found(samples)["proximity"]
    assert block["nearest_is_answer"]["value"] == pytest.approx(
        fmean(s["prediction"] == n for s, n in zip(samples, nearest))
    )
    right = [s["answer"] == n for s, n in zip(samples, nearest) if s["answer"] is not None]
    assert (block["nearest_is_right"]["value"], block["nearest_is_right"]["n"]) == (
        pytest.approx(fmean(right)),
        len(right),
    )
    assert block["chance"] == pytest.approx(fmean(1 / len(s["diagnostics"]["proximity"]) for s in samples))


def test_what_cannot_be_measured_is_said() -> None:
    block, notes = biases([diagnosed(0)], resamples=100)
    assert block is None
    assert notes == {"biases.perception": NO_ATTENTION, "biases.cognition": NO_LABELS, "biases.proximity": NOT_SHOWN}
    one_sided = diagnosed(0, energy=[{"share": 0.5, "chance": 0.1}])
    block, notes = biases([one_sided], resamples=100)
    assert block is not None
    assert block["perception"]["energy_in_box"]["gap"]["value"] is None  # no wrong answer to compare with
    assert len(list(headlines(block))) == 1
    assert "biases.perception" not in notes


def test_headlines_have_a_chance_but_differences_have_none() -> None:
    lines = list(headlines(found(planted())))
    assert len(lines) == 6
    assert [chance is None for *_, chance in lines] == [False, True, False, True, False, False]
