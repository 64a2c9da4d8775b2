"""ClueWorld's promises: deterministic, disjoint, balanced, true to its clues, and silent about answers to the blind."""

import json
from collections import Counter
from math import sqrt

import numpy as np
import pytest
from scipy.stats import chisquare

from cluenet.testing.clueworld import SPLITS, TYPES, WorldSettings, render_scene, split_scene, write_clueworld
from cluenet.testing.clueworld.settings import HELD_OUT
from cluenet.testing.clueworld.splits import scene_of
from cluenet.testing.clueworld.writer import scene_examples

WORLD = WorldSettings()


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return {
        split: [q for i in range(count) for q in scene_examples(folder, split, i, WORLD)]
        for split, count in (("train", 1500), ("validation", 400), ("hallucination", 200))
    }


def test_the_same_seed_gives_the_same_scene_and_pictures_and_another_seed_does_not():
    one, again, other = (split_scene(w, "train", 3) for w in (WORLD, WorldSettings(), WorldSettings(seed=1)))
    assert one == again
    assert np.array_equal(render_scene(one), render_scene(again))
    assert one.content != other.content
    assert scene_of("train-000003-shape", WORLD) == one


def test_splits_share_no_scene():
    seen = {split: {split_scene(WORLD, split, i).content for i in range(150)} for split in SPLITS}
    everything = [content for contents in seen.values() for content in contents]
    assert len(everything) == len(set(everything)) == 150 * len(SPLITS)


def test_out_of_distribution_splits_differ_in_what_they_are_named_after():
    usual = [split_scene(WORLD, "test", i) for i in range(100)]
    assert not any(pair in HELD_OUT for s in usual for pair in zip(s.colours, s.shapes))
    unseen = [split_scene(WORLD, "ood_combinations", i) for i in range(20)]
    assert all(any(pair in HELD_OUT for pair in zip(s.colours, s.shapes)) for s in unseen)
    assert all(len(split_scene(WORLD, "ood_objects", i).colours) > WORLD.objects for i in range(20))
    assert all(len(split_scene(WORLD, "ood_long", i).cells) == WORLD.steps * 3 // 2 for i in range(20))


def test_every_step_has_one_event_and_size_is_an_option():
    scene = split_scene(WORLD, "train", 0)
    assert len(scene.events) == WORLD.steps - 1
    assert render_scene(scene).shape == (32, 64, 64, 3)
    large = render_scene(split_scene(WorldSettings(cell=32), "train", 0))
    assert large.shape == (32, 128, 128, 3)


def test_noise_and_contrast_change_the_pictures():
    plain = render_scene(split_scene(WORLD, "train", 0)).astype(int)
    noisy = render_scene(split_scene(WorldSettings(noise=10), "train", 0)).astype(int)
    dull = render_scene(split_scene(WorldSettings(contrast=0.5), "train", 0)).astype(int)
    assert 4 < np.abs(noisy - plain).mean() < 12
    saturation = [np.ptp(video, axis=-1).mean() for video in (dull, plain)]
    assert saturation[0] < 0.7 * saturation[1]


def test_right_answers_stand_everywhere_alike(questions):
    for options in (4, 5):
        places = Counter(q.answer for q in questions["train"] if len(q.options) == options)
        assert chisquare([places[i] for i in range(options)]).pvalue > 1e-3


def test_counts_are_uniform_and_a_fifth_of_the_moves_happen_by_themselves(questions):
    counts = Counter(q.answer_text for q in questions["train"] if q.type == "count")
    assert chisquare([counts[n] for n in ("zero", "one", "two", "three")]).pvalue > 1e-3
    causal = [q.answer_text == "it moves itself" for q in questions["train"] if q.type == "causal"]
    assert np.mean(causal) == pytest.approx(0.2, abs=4 * sqrt(0.16 / len(causal)))


def test_clues_are_few_in_time_order_located_and_lead_to_the_answer(questions):
    for q in questions["train"][:2000]:
        assert len(q.clues) <= 3
        assert [c.start_seconds for c in q.clues] == sorted(c.start_seconds for c in q.clues)
        assert all(clue.boxes and clue.concepts["who"] in WORLD_COLOURS for clue in q.clues)
        assert q.chain.removesuffix(" .").endswith(f"so {q.answer_text}")


WORLD_COLOURS = {"red", "green", "blue", "yellow", "purple", "cyan", "orange"}


def test_yes_no_pairs_are_balanced_and_about_one_video(questions):
    pairs = {}
    for q in questions["hallucination"]:
        pairs.setdefault(q.id.rpartition("-")[0], []).append(q)
    assert len(pairs) > 100
    for pair in pairs.values():
        assert sorted(q.answer_text for q in pair) == ["no", "yes"]
        assert len({q.video.path for q in pair}) == 1


def test_a_trained_reader_of_words_alone_stays_at_chance(questions):
    """Naive Bayes over (type, question word, option word) and option frequency, trained on 1,500 videos: the majority
    answer, preferred words and word pairs would all show. The interval is 3 standard errors."""
    right, wrong = Counter(), Counter()
    for q in questions["train"]:
        for i, option in enumerate(q.options):
            (right if i == q.answer else wrong).update(features(q, option))
    chance = hits = variance = 0.0
    for q in questions["validation"]:
        scores = [sum(np.log((right[f] + 1) / (wrong[f] + 3)) for f in features(q, o)) for o in q.options]
        p = 1 / len(q.options)
        chance, variance = chance + p, variance + p * (1 - p)
        hits += int(np.argmax(scores)) == q.answer
    assert abs(hits - chance) < 3 * sqrt(variance), f"blind accuracy {hits / len(questions['validation']):.3f}"


def features(question, option):
    return [
        (question.type, option),
        *((question.type, w, o) for w in question.question.split() for o in option.split()),
    ]


def test_written_files_are_complete_and_found_again(tmp_path):
    folder, written = tmp_path, write_clueworld(tmp_path, "test", 6, WORLD, workers=1)
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    clues = [json.loads(line) for line in (folder / "test.clues.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in clues]
    assert all((folder / row["videos"][0]).stat().st_size > 500 for row in rows)
    assert {row["type"] for row in rows} <= set(TYPES)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert write_clueworld(tmp_path, "test", 6, WORLD, workers=1) == written
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
