"""ClueWorld's questions: right by the scene, decided by their clues, located where the pixels are, balanced."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from scipy.stats import chisquare

from cluenet.records import Box, Clue, Example, VideoRef
from cluenet.testing.clueworld import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    TYPES,
    YES_NO_TYPES,
    QuestionType,
    Scene,
    WorldSettings,
    questions_of,
    render_scene,
    scene_of,
    split_scene,
)

DEFAULT = WorldSettings()
ALL_TYPES = (*TYPES, *YES_NO_TYPES)
NUMBERS = ["zero", "one", "two", "three"]


@cache
def scene_at(name: str) -> Scene:
    return scene_of(name, DEFAULT)


def ask(
    split: str, count: int, types: Sequence[QuestionType] = ALL_TYPES, world: WorldSettings = DEFAULT
) -> list[Example]:
    return [
        question
        for index in range(count)
        for question in questions_of(
            split_scene(world, split, index),  # type: ignore[arg-type]
            f"{split}-{index:06d}",
            VideoRef(f"{split}-{index}.mp4"),
            types,
        )
    ]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return ask("train", 1000)


@pytest.fixture(scope="module")
def by_type(examples: list[Example]) -> dict[str, list[Example]]:
    found = defaultdict(list)
    for example in examples:
        found[example.type].append(example)
    assert set(found) == set(ALL_TYPES)
    return found


# ---------------------------------------------------------------------------------------------- right answers


def events_of(scene: Scene) -> list[str]:
    """The story of a scene, step by step, told from positions and lights alone (not from `Scene.events`)."""
    story = []
    for (a, b), (dark, lit) in zip(itertools.pairwise(scene.cells), itertools.pairwise(scene.lit), strict=True):
        i = next(i for i in range(len(a)) if a[i] != b[i] or dark[i] != lit[i])
        colour = scene.colours[i]
        if dark[i] != lit[i]:
            story.append(f"{colour} lights")
        elif a[i] is None or b[i] is None:
            story.append(f"{colour} {'enters' if a[i] is None else 'leaves'}")
        else:
            story.append(f"{colour} moves")
    return story


def answer_of(scene: Scene, question: str) -> str:
    """The answer by looking at the scene; hits are known by their words only, so their verb is not looked up here."""
    words, story = question.split(), events_of(scene)
    match words:
        case ["what", "shape", "is", colour, "?"]:
            return scene.shapes[scene.colours.index(colour)]
        case ["how", "many", "light", "?"]:
            return NUMBERS[sum(event.endswith("lights") for event in story)]
        case ["which", "one", "will", colour, "reach", "?"]:
            return ahead_of(scene, scene.colours.index(colour))
        case ["which", "one", verb, "?"]:
            (event,) = (event for event in story if event.endswith(verb))
            return event.split()[0]
        case ["is", "there", "a", colour, shape, "?"]:
            return "yes" if (colour, shape) in zip(scene.colours, scene.shapes, strict=True) else "no"
        case ["does", colour, ("light" | "enter" | "leave") as verb, "?"]:
            return "yes" if f"{colour} {verb}s" in story else "no"
        case ["does", who, "hit", whom, "?"]:
            told = {(scene.colours[e.who], scene.colours[e.whom]) for e in scene.events if e.whom is not None}
            return "yes" if (who, whom) in told else "no"
    raise AssertionError(question)


def ahead_of(scene: Scene, i: int) -> str:
    """The first object in the direction of the last move."""
    (r0, c0), (r, c) = scene.cells[-2][i], scene.cells[-1][i]  # type: ignore[misc]
    step = r - r0, c - c0
    while True:
        r, c = r + step[0], c + step[1]
        if (r, c) in scene.cells[-1]:
            return scene.colours[scene.cells[-1].index((r, c))]


def test_answers_follow_from_positions_and_lights(examples: list[Example]) -> None:
    checked = Counter[str]()
    for example in examples:
        if example.type not in ("causal", "after", "before"):
            assert example.answer_text == answer_of(scene_at(example.id[:12]), example.question), example
            checked[example.type] += 1
    assert min(checked.values()) > 500


def words_of(scene: Scene) -> list[str]:
    return [
        " ".join([scene.colours[e.who], e.verb, *([] if e.whom is None else [scene.colours[e.whom]])])
        for e in scene.events
    ]


def test_temporal_answers_stand_right_beside_their_anchor_and_wrong_options_happen_elsewhere(by_type) -> None:
    for kind, shift in (("after", 1), ("before", -1)):
        for example in by_type[kind]:
            story = words_of(scene_at(example.id[:12]))
            anchor = example.question.removeprefix(f"what happens right {kind} ").removesuffix(" ?")
            assert story.count(anchor) == 1
            assert example.answer_text == story[story.index(anchor) + shift]
            assert set(example.options) < set(story)
            assert len(set(example.options)) == 4


def test_causal_answers_name_who_hit_or_that_nobody_did(by_type) -> None:
    for example in by_type["causal"]:
        scene, mover = scene_at(example.id[:12]), example.question.split()[2]
        (event,) = (e for e in scene.events if e.verb == "moves" and scene.colours[e.who] == mover)
        expected = "it moves itself" if event.cause is None else f"{scene.colours[event.cause]} hits it"
        assert example.answer_text == expected
        assert sorted(example.options) == sorted(
            ["it moves itself", *(f"{c} hits it" for c in scene.colours if c != mover)]
        )


def test_options_are_distinct_and_as_many_as_the_type_has(by_type) -> None:
    sizes = {kind: {len(example.options) for example in found} for kind, found in by_type.items()}
    assert sizes == {
        "shape": {3, 4}, "count": {4}, "who": {5}, "causal": {5}, "after": {4}, "before": {4}, "predict": {4},
        "exists_object": {2}, "exists_event": {2},
    }  # fmt: skip
    assert all(len(set(example.options)) == len(example.options) for found in by_type.values() for example in found)


def test_a_shape_the_world_never_gives_to_a_colour_is_no_option_for_it(by_type) -> None:
    for example in by_type["shape"]:
        colour = example.question.split()[3]
        assert set(example.options) == {shape for shape in SHAPES if (colour, shape) not in HELD_OUT}
    unseen = ask("ood_combinations", 100, ["shape"])
    assert all(set(example.options) == set(SHAPES) for example in unseen)
    assert any((example.question.split()[3], example.answer_text) in HELD_OUT for example in unseen)


def test_more_objects_give_no_more_options_and_keep_what_must_be_asked() -> None:
    for example in ask("ood_objects", 200):
        assert len(example.options) <= 5
        if example.type == "causal":
            assert "it moves itself" in example.options


# ----------------------------------------------------------------------------------------------------- clues


def answer_from(question: Example, clues: Sequence[Clue]) -> str:
    """The answer a reader gets from the words of the clues alone, who was told nothing else about the video."""
    facts = [tuple(clue.text.split()) for clue in clues]
    if question.type == "count":
        return NUMBERS[len(facts)]
    if question.type in ("after", "before"):
        anchor = tuple(question.question.removesuffix(" ?").split()[4:])
        return " ".join(next(fact for fact in facts if fact != anchor))
    if question.type == "exists_object":
        asked = tuple(question.question.removesuffix(" ?").split()[3:])
        return "yes" if (asked[0], "is", asked[1]) in facts else "no"
    if question.type == "exists_event":
        return "yes" if facts else "no"
    if question.type == "causal":
        return next((f"{fact[0]} hits it" for fact in facts if fact[1] == "hits"), "it moves itself")
    return {"shape": facts[-1][-1], "who": facts[0][0], "predict": facts[-1][0]}[question.type]


def test_clues_suffice_for_the_answer(examples: list[Example]) -> None:
    for example in examples:
        assert example.clues is not None
        assert answer_from(example, example.clues) == example.answer_text, example


def test_clues_are_few_in_time_order_and_named_by_role(examples: list[Example]) -> None:
    for example in examples:
        clues = example.clues or ()
        assert len(clues) <= 3
        starts = [clue.start_seconds for clue in clues]
        assert starts == sorted(starts)  # type: ignore[type-var]
        for clue in (*clues, *example.distractors):
            assert clue.text == " ".join(
                clue.concepts[role] for role in ("who", "what", "whom") if role in clue.concepts
            )
            assert clue.concepts["who"] in COLOURS
            assert clue.concepts["what"] in ("hits", "moves", "lights", "enters", "leaves", "is", "ahead")
            assert clue.concepts.get("whom", "red") in (
                COLOURS if clue.concepts["what"] == "hits" else {*SHAPES, "red"}
            )


def test_event_clues_last_one_step_and_touch_it_and_the_step_before(by_type) -> None:
    for example in by_type["who"]:
        (clue,) = example.clues
        scene = scene_at(example.id[:12])
        step = 1 + words_of(scene).index(clue.text)
        assert (clue.start_seconds, clue.end_seconds) == (step / 4, (step + 1) / 4)
        seen = {"lights": [step - 1, step], "enters": [step], "leaves": [step - 1]}[clue.concepts["what"]]
        assert [box.seconds for box in clue.boxes] == [(s + 0.5) / 4 for s in seen]
    for example in by_type["causal"]:
        if len(example.clues) == 2:
            hit = example.clues[0]
            steps = [round(box.seconds * 4 - 0.5) for box in hit.boxes]
            assert len(steps) == 3
            assert steps[1] == steps[2] == steps[0] + 1
    for example in by_type["predict"]:
        move, ahead = example.clues
        assert (move.concepts["what"], ahead.concepts["what"]) == ("moves", "ahead")
        assert (ahead.start_seconds, ahead.end_seconds) == (7 / 4, 2.0)


def pixel(frames_THWC, box: Box) -> list[int]:
    """Colour at the middle of a box in the last frame of the step that the box's time is the middle of."""
    step, side = round(box.seconds * 4 - 0.5), frames_THWC.shape[1]
    y, x = int((box.y1 + box.y2) / 2 * side), int((box.x1 + box.x2) / 2 * side)
    return frames_THWC[4 * step + 3, y, x].tolist()


def test_every_box_surrounds_an_object_that_its_clue_names() -> None:
    for index in range(20):
        scene = split_scene(DEFAULT, "train", index)
        frames_THWC, boxes = render_scene(scene), 0
        for example in questions_of(scene, f"train-{index:06d}", VideoRef("v.mp4"), ALL_TYPES):
            for clue in (*(example.clues or ()), *example.distractors):
                named = [list(COLOURS[word]) for word in clue.concepts.values() if word in COLOURS]
                assert clue.boxes
                for box in clue.boxes:
                    assert pixel(frames_THWC, box) in named
                    boxes += 1
        assert boxes > 50


def test_distractors_are_true_and_do_not_repeat_a_clue(examples: list[Example]) -> None:
    for example in examples[:1500]:
        scene = scene_at(example.id[:12])
        states = {f"{colour} is {shape}" for colour, shape in zip(scene.colours, scene.shapes, strict=True)}
        texts = {clue.text for clue in example.distractors}
        assert texts <= {*words_of(scene), *states}
        assert not texts & {clue.text for clue in example.clues or ()}
        assert texts >= set(words_of(scene)) - {clue.text for clue in example.clues or ()}


def test_a_videos_questions_locate_every_object_at_every_step_that_shows_it() -> None:
    for index in range(50):
        scene = split_scene(DEFAULT, "train", index)
        facts = [
            clue
            for example in questions_of(scene, f"train-{index:06d}", VideoRef("v.mp4"))
            for clue in example.distractors
            if len({box.seconds for box in clue.boxes}) > 2 or clue.concepts["what"] == "is"
        ]
        located = {
            (clue.concepts["who"], box.seconds) for clue in facts if clue.concepts["what"] == "is" for box in clue.boxes
        }
        lit = {
            (clue.concepts["who"], box.seconds)
            for clue in facts
            if clue.concepts["what"] == "lights"
            for box in clue.boxes
        }
        for step, i in np.ndindex(8, 5):
            moment = scene.colours[i], (step + 0.5) / 4
            shown = scene.cells[step][i] is not None
            assert (moment in located) == shown
            if sum(scene.lit[s][i] and scene.cells[s][i] is not None for s in range(8)) > 2:
                assert (moment in lit) == (shown and scene.lit[step][i])


def test_chains_tell_the_clues_and_end_with_the_answer(examples: list[Example]) -> None:
    for example in examples:
        told = [*(clue.text for clue in example.clues or ()), f"so {example.answer_text} ."]
        assert example.chain == " . ".join(told)
    assert "yellow lights . green lights . so two ." in {example.chain for example in examples}


# ----------------------------------------------------------------------------------------- words, ids, choice


def test_words_are_few_lower_case_and_apart(examples: list[Example]) -> None:
    texts = [text for e in examples for text in (e.question, *e.options, e.chain or "")]
    words = {word for text in texts for word in text.split(" ")}
    assert all((word.isalpha() and word.islower()) or word in ("?", ".") for word in words)
    assert len(words) < 65
    assert all(example.question.endswith(" ?") for example in examples)


def test_ids_are_unique_and_name_split_scene_and_type(examples: list[Example]) -> None:
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        pair = f"-pair0-{example.answer_text}" if example.type in YES_NO_TYPES else ""
        assert example.id[6:12].isdigit()
        assert example.id == f"{example.id[:12]}-{example.type}{pair}"
        assert example.meta == ({"pair": example.id.rpartition("-")[0]} if pair else {})


def test_pairs_ask_the_same_video_once_with_yes_and_once_with_no() -> None:
    pairs = defaultdict(list)
    for example in ask("hallucination", 300, YES_NO_TYPES):
        pairs[example.id.rpartition("-")[0]].append(example)
    assert len(pairs) == 600, "each video has a pair of either type"
    for pair in pairs.values():
        assert sorted(example.answer_text for example in pair) == ["no", "yes"]
        assert len({example.video for example in pair}) == len({example.type for example in pair}) == 1
        assert pair[0].question != pair[1].question


def test_absent_objects_are_plausible(by_type) -> None:
    """Half are of a colour that is there with another shape, and none is of a combination that training never shows."""
    absent = [example for example in by_type["exists_object"] if example.answer_text == "no"]
    asked = [tuple(example.question.split()[3:5]) for example in absent]
    assert not set(asked) & HELD_OUT
    there = sum(colour in scene_at(e.id[:12]).colours for e, (colour, _) in zip(absent, asked, strict=True))
    assert there / len(absent) == pytest.approx(0.5, abs=0.06)


def test_absent_events_are_about_objects_that_are_there(by_type) -> None:
    verbs = Counter()
    for example in by_type["exists_event"]:
        colours = [word for word in example.question.split() if word in COLOURS]
        assert set(colours) <= set(scene_at(example.id[:12]).colours)
        verbs[example.question.split()[2]] += 1
    assert set(verbs) == {"light", "enter", "leave", "hit"}


def test_a_types_question_is_the_same_whichever_others_are_asked() -> None:
    scene = split_scene(DEFAULT, "train", 5)
    together = {e.id: e for e in questions_of(scene, "train-000005", VideoRef("v.mp4"), ALL_TYPES)}
    for kind in ALL_TYPES:
        for example in questions_of(scene, "train-000005", VideoRef("v.mp4"), [kind]):
            other = together[example.id]
            assert (example.question, example.options, example.clues) == (other.question, other.options, other.clues)


def test_at_most_so_many_questions_are_chosen_evenly_and_always_the_same() -> None:
    chosen = Counter()
    for index in range(300):
        scene, video = split_scene(DEFAULT, "train", index), VideoRef("v.mp4")
        every = questions_of(scene, "s", video)
        some = questions_of(scene, "s", video, most=2)
        assert some == questions_of(scene, "s", video, most=2)
        ids = [example.id for example in every]
        assert [example.id for example in some] == sorted((e.id for e in some), key=ids.index)
        assert len(some) == 2
        assert questions_of(scene, "s", video, most=99) == every
        chosen.update(example.type for example in some)
    assert min(chosen[kind] for kind in ("shape", "count", "predict")) > 70
    assert max(chosen.values()) < 140


# ------------------------------------------------------------------------------------------------- statistics


def test_right_answers_stand_at_every_position_alike(by_type) -> None:
    for kind, found in by_type.items():
        for size in {len(example.options) for example in found}:
            positions = Counter(example.answer for example in found if len(example.options) == size)
            assert chisquare([positions[i] for i in range(size)]).pvalue > 0.005, (kind, size, positions)


def test_counts_colours_and_shapes_are_uniform_and_a_fifth_of_the_moves_happen_by_themselves(by_type) -> None:
    counts = Counter(example.answer_text for example in by_type["count"])
    assert chisquare([counts[number] for number in NUMBERS]).pvalue > 0.005
    for kind in ("who", "predict"):
        colours = Counter(example.answer_text for example in by_type[kind])
        assert chisquare([colours[colour] for colour in COLOURS]).pvalue > 0.005
    for colour in COLOURS:
        shapes = Counter(e.answer_text for e in by_type["shape"] if e.question.split()[3] == colour)
        assert chisquare(list(shapes.values())).pvalue > 0.005
    alone = [example.answer_text == "it moves itself" for example in by_type["causal"]]
    assert np.mean(alone) == pytest.approx(0.2, abs=1.96 * (0.16 / len(alone)) ** 0.5)


def test_the_default_world_keeps_the_mix_of_questions_that_models_were_measured_on(by_type) -> None:
    per_video = {kind: len(by_type[kind]) / 1000 for kind in TYPES}
    expected = {"shape": 1, "count": 1, "who": 0.86, "causal": 0.56, "after": 0.68, "before": 0.53, "predict": 1}
    assert per_video == pytest.approx(expected, abs=0.06)
    chance = np.mean([1 / len(example.options) for kind in TYPES for example in by_type[kind]])
    assert chance == pytest.approx(0.246, abs=0.003)
