"""Diagnostics on hand-made numbers: words of layers, cosines, maps, and what is chosen to be shown."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluenet.diagnose import attention, lens, space
from cluenet.diagnose.draw_attention import MOST_BLOCKS, shown_blocks
from cluenet.diagnose.looking import Gaze, Seen, Vectors
from cluenet.model.grid import Grid
from cluenet.records import Box, Clue

GRID = Grid(2, 1, 2, (0.25, 0.75), 0.5)
EMPTY = np.zeros((0, 3))


def vectors(**changes) -> Vectors:
    """Question along x, two options along x and y, one clue along y."""
    values = {
        "question_D": np.array([2.0, 0, 0]), "options_AD": np.array([[1.0, 0, 0], [0, 3.0, 0]]), "clues_KD": np.array([[0, 1.0, 0]]),
        "clue_texts": ["red"], "inside_ND": EMPTY, "outside_ND": EMPTY, "inside_D": None, "outside_D": None,
    }  # fmt: skip
    return Vectors(**{**values, **changes})


def seen(number=0, *, correct=True, video=None, gazes=(), regions=(), clues=(), tops=None, answer=1, **changes) -> Seen:
    sample = {
        "id": f"q{number}", "clip": f"c{number}", "video": video or f"v{number}", "type": "who", "question": f"who, {number} ?",
        "options": ["green", "red"], "answer": answer, "prediction": 1 if correct else 0, "correct": correct, "clues": [],
    }  # fmt: skip
    return Seen(
        sample, GRID, list(clues), [np.array(r, bool) for r in regions], list(gazes), {}, None, tops, vectors(**changes)
    )


# ------------------------------------------------------------------------------------------------------- the lens


def test_words_of_layers_against_counting():
    rng = np.random.default_rng(0)
    tops_LN, region_N = rng.integers(0, 4, (3, 40)), rng.random(40) < 0.4
    found = lens.table(lens.votes(tops_LN, region_N, str), lens.votes(tops_LN, ~region_N, str))
    for row, ids_N in zip(found, tops_LN.tolist(), strict=True):
        for name, where in (("inside", True), ("outside", False)):
            said = [str(i) for i, here in zip(ids_N, region_N.tolist()) if here is where]
            plain = sorted(((said.count(word) / len(said), word) for word in set(said)), key=lambda p: (-p[0], p[1]))
            assert row[name] == [[word, pytest.approx(share)] for share, word in plain]
    assert [row["layer"] for row in found] == [1, 2, 3]


def test_tokens_that_look_alike_are_one_word():
    (counts,) = lens.votes(np.array([[1, 2, 3]]), np.ones(3, bool), {1: "red", 2: "red", 3: "blue"}.__getitem__)
    assert counts == {"red": 2, "blue": 1}


def test_all_clues_with_boxes_are_added_up_and_others_are_not():
    clue = Clue("red hits", boxes=(Box(0.2, 0, 0, 1, 1),), concepts={"who": "red", "what": "hits"})
    tops = np.array([[5, 6, 5, 5]])
    every = [
        seen(0, clues=(clue, clue), regions=([1, 0, 0, 0], [0, 0, 0, 0]), tops=tops),
        seen(1, correct=False, clues=(clue,), regions=([0, 1, 0, 0],), tops=tops),
    ]
    block, notes = lens.lens_block(every, word=str, layers=1, ccr=[], seed=0)
    assert notes == {}
    assert block["words"] == [{"layer": 1, "inside": [["5", 0.5], ["6", 0.5]], "outside": [["5", 5 / 6], ["6", 1 / 6]]}]
    assert {one["question"] for one in block["examples"]} == {"q0", "q1"}
    assert block["examples"][0]["said"] == ["red", "hits"]


def test_lens_examples_are_of_different_clips_and_of_both_verdicts():
    clue, tops = Clue("red"), np.array([[5, 6, 5, 5]])
    every = [seen(i, correct=i > 1, clues=(clue, clue), regions=([1, 0, 0, 0],) * 2, tops=tops) for i in range(12)]
    block, _ = lens.lens_block(every, word=str, layers=1, ccr=[], seed=0)
    assert len({one["clip"] for one in block["examples"]}) == lens.EXAMPLES
    assert [one["correct"] for one in block["examples"]] == [True, True, False, False]


def test_without_boxes_there_is_no_lens():
    block, notes = lens.lens_block([seen(0)], word=str, layers=1, ccr=[], seed=0)
    assert block is None
    assert notes == {"lens": lens.NO_BOXES}


# --------------------------------------------------------------------------------------------------- how near


def test_cosines_of_hand_made_vectors():
    found = space.cosines(seen(0, inside_D=np.array([0, 5.0, 0]), outside_D=np.array([1.0, 1.0, 0])))
    wanted = {"clue_question": 0, "clue_answer": 1, "clue_wrong": 0, "question_answer": 0, "clue_inside": 1, "clue_outside": 0.5**0.5}  # fmt: skip
    assert found == pytest.approx(wanted)


def test_cosines_of_random_vectors_against_numpy():
    rng = np.random.default_rng(1)
    question, options, clues = rng.normal(size=7), rng.normal(size=(4, 7)), rng.normal(size=(3, 7))
    one = seen(0, answer=2, question_D=question, options_AD=options, clues_KD=clues)
    unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
    mean = unit(clues.sum(0))
    found = space.cosines(one)
    assert found["clue_question"] == pytest.approx(mean @ unit(question))
    assert found["clue_answer"] == pytest.approx(mean @ unit(options[2]))
    assert found["clue_wrong"] == pytest.approx(np.mean([mean @ unit(options[i]) for i in (0, 1, 3)]))
    assert found["clue_inside"] is found["clue_outside"] is None


def test_what_is_missing_is_none_and_never_zero():
    open_question = space.cosines(seen(0, answer="red", options_AD=EMPTY))
    assert open_question["clue_answer"] is open_question["clue_wrong"] is open_question["question_answer"] is None
    assert space.cosines(seen(0, clues_KD=EMPTY))["clue_question"] is None
    assert space.cosine(np.zeros(3), np.ones(3)) is None


def test_mean_cosines_are_split_by_verdict_with_intervals_by_video():
    away = np.array([[1.0, 0, 0]])  # a clue that says the wrong option
    every = [seen(0), seen(1), seen(2, correct=False, clues_KD=away), seen(3, correct=None)]
    found = space.proximity(every, resamples=200)
    answer = found["clue_answer"]
    assert (answer["right"]["value"], answer["right"]["n"]) == (1.0, 2)
    assert (answer["wrong"]["value"], answer["wrong"]["n"]) == (0.0, 1)
    assert (answer["all"]["value"], answer["all"]["n"]) == (0.75, 4)
    assert answer["all"]["low"] < 0.75 < answer["all"]["high"]
    assert "clue_inside" not in found


# ------------------------------------------------------------------------------------------------------ maps


def test_a_text_is_one_point_that_counts_its_questions():
    every = [seen(0), seen(1, outside_ND=np.eye(3)[:2])]
    points, notes = space.points_of(every)
    counts = {(point.role, point.text): point.count for point in points}
    assert counts == {
        ("question", "who, 0 ?"): 1, ("question", "who, 1 ?"): 1, ("option", "green"): 2, ("option", "red"): 2,
        ("clue", "red"): 2, ("outside", "q1 token 1"): 1, ("outside", "q1 token 2"): 1,
    }  # fmt: skip
    assert notes == {}


def test_points_beyond_the_most_are_counted_in_the_notes(monkeypatch):
    monkeypatch.setitem(space.MOST, "question", 1)
    points, notes = space.points_of([seen(0), seen(1)])
    assert sum(point.role == "question" for point in points) == 1
    assert notes == {"space.points.question": "1 of 2 stand in the map, the most frequent ones"}


def test_maps_keep_what_is_near_and_repeat_themselves():
    rng = np.random.default_rng(0)
    centres = np.eye(10)[:3]
    vectors_MD = np.concatenate([c + 0.05 * rng.normal(size=(12, 10)) for c in centres]) * rng.uniform(1, 9, (36, 1))
    group = np.repeat(np.arange(3), 12)
    pca_M2, explained, tsne_M2 = space.maps(vectors_MD, seed=3)
    for places in (pca_M2, tsne_M2):
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(apart, math.inf)
        assert (group[apart.argmin(1)] == group).all()
    units = vectors_MD / np.linalg.norm(vectors_MD, axis=1, keepdims=True)
    values = np.linalg.svd(units - units.mean(0), compute_uv=False) ** 2
    assert explained == pytest.approx((values / values.sum())[:2])
    again = space.maps(vectors_MD, seed=3)
    assert (again[0] == pca_M2).all()
    assert (again[2] == tsne_M2).all()


def test_without_clues_or_with_few_points_there_is_no_map():
    assert space.space_block([seen(0, clues_KD=EMPTY)], clues="stated", nearest=None, resamples=10, seed=0) == (
        None, {"space": space.NO_CLUES}
    )  # fmt: skip
    assert space.space_block([seen(0)], clues="stated", nearest=None, resamples=10, seed=0) == (
        None, {"space": space.FEW_POINTS}
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- what is shown


def gaze(text="red", *, kept=True, heat=(0.1, 0.2, 0.3, 0.4), energy=None):
    hit = None if energy is None else True
    return Gaze(text, kept, np.array(heat), hit, energy and 0.25, energy and {"share": energy, "chance": 0.5})


def test_an_example_shows_the_clues_that_the_reasoner_read():
    blind = gaze("nowhere", heat=(0.0, 0.0, 0.0, 0.0))
    looks = [gaze("dropped", kept=False, energy=0.9), blind, gaze("kept"), gaze("judged", energy=0.4)]
    block, _ = attention.attention_block([seen(0, gazes=looks)], of="clue", layer=None, scores={"x": 1}, seed=0)
    (shown,) = block["examples"]
    assert [(look["text"], look["energy"]) for look in shown["looks"]] == [("kept", None), ("judged", 0.4)]
    assert shown["looks"][0]["heat"] == [0.1, 0.2, 0.3, 0.4]
    assert [look["text"] for look in block["looks"]] == ["dropped", "nowhere", "kept", "judged"]
    assert block["looks"][2]["energy"] is block["looks"][2]["pointing"] is None


def test_of_a_question_whose_clues_were_all_dropped_these_are_shown():
    looks = [gaze(str(i), kept=False) for i in range(5)]
    block, _ = attention.attention_block([seen(0, gazes=looks)], of="clue", layer=None, scores={}, seed=0)
    assert [look["text"] for look in block["examples"][0]["looks"]] == ["0", "1", "2"]


def test_examples_are_as_many_right_as_wrong_and_nobody_picked_them():
    every = [seen(i, correct=[True, False, None][i % 3], gazes=[gaze(energy=0.5)]) for i in range(30)]
    chosen = [
        [one["question"] for one in attention.attention_block(rows, of="clue", layer=None, scores={}, seed=seed)[0]["examples"]]
        for rows, seed in ((every, 0), (every[::-1], 0), (every, 1))
    ]  # fmt: skip
    assert chosen[0] == chosen[1] != chosen[2]
    verdicts = {one.sample["id"]: one.sample["correct"] for one in every}
    assert [verdicts[one] for one in chosen[0]] == [True] * attention.EACH + [False] * attention.EACH


@pytest.mark.parametrize("of", [None, "clue"])
def test_without_attention_it_says_so(of):
    assert attention.attention_block([seen(0)], of=of, layer=None, scores={}, seed=0) == (
        None, {"attention": attention.NO_ATTENTION}
    )  # fmt: skip


def test_the_frames_shown_are_those_that_matter():
    heat = np.zeros((20, 1, 2))
    heat[13, 0, 1] = 1
    row = {
        "shape": [20, 1, 2],
        "looks": [{"heat": heat.ravel().tolist()}],
        "seconds": [i / 2 for i in range(20)],
        "boxes": [{"seconds": 3.6}],
    }
    blocks = shown_blocks(row)
    assert len(blocks) > MOST_BLOCKS / 2
    assert len(blocks) <= MOST_BLOCKS
    assert blocks == sorted(set(blocks))
    assert {13, 7, 0, 19} <= set(blocks)
    assert shown_blocks({**row, "shape": [2, 10, 2], "seconds": [0.0, 1.0]}) == [0, 1]
