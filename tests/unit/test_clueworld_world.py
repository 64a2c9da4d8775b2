"""ClueWorld's scenes: physics that hold, splits that share nothing, names that lead back to a scene."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluenet.errors import DataError
from cluenet.testing.clueworld import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SPLITS,
    Scene,
    WorldSettings,
    sample_scene,
    scene_of,
    scene_seed,
    split_scene,
    split_settings,
)

DEFAULT = WorldSettings()
WORLDS = st.builds(
    WorldSettings,
    grid=st.sampled_from([4, 5, 8]),
    objects=st.integers(5, 7),
    steps=st.integers(8, 24),
    combinations=st.sampled_from(["usual", "held_out"]),
)


def distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def is_border(cell: tuple[int, int], grid: int) -> bool:
    return any(line in (0, grid - 1) for line in cell)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), world=WORLDS)
def test_each_step_shows_exactly_the_event_it_is_said_to_show(seed: int, world: WorldSettings) -> None:
    scene = sample_scene(seed, world)
    assert len(scene.cells) == len(scene.lit) == world.steps == len(scene.events) + 1
    for k, event in enumerate(scene.events):
        before, after = scene.cells[k], scene.cells[k + 1]
        changed = [i for i in range(world.objects) if before[i] != after[i]]
        lit = [i for i in range(world.objects) if scene.lit[k][i] != scene.lit[k + 1][i]]
        assert (changed, lit) == (([], [event.who]) if event.verb == "lights" else ([event.who], []))
        shown = [cell for cell in after if cell is not None]
        assert len(set(shown)) == len(shown), "two objects in one cell"
        assert all(0 <= line < world.grid for cell in shown for line in cell)
        start, end = before[event.who], after[event.who]
        assert (start is None) == (event.verb == "enters")
        assert (end is None) == (event.verb == "leaves")
        if event.verb in ("enters", "leaves"):
            assert is_border(start or end, world.grid)  # type: ignore[arg-type]
        if event.verb == "moves":
            assert distance(start, end) == 1  # type: ignore[arg-type]
        if event.verb == "hits":
            assert distance(end, after[event.whom]) == 1  # type: ignore[arg-type, index]
            follow = scene.events[k + 1]
            assert (follow.verb, follow.who, follow.cause) == ("moves", event.whom, event.who)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), world=WORLDS)
def test_the_last_move_leaves_one_free_cell_before_whom_it_approaches(seed: int, world: WorldSettings) -> None:
    scene = sample_scene(seed, world)
    who, whom = scene.approach
    start, stop, goal = scene.cells[-2][who], scene.cells[-1][who], scene.cells[-1][whom]
    assert scene.events[-1].who == who
    assert scene.events[-1].cause is None
    assert start is not None
    assert stop is not None
    step = stop[0] - start[0], stop[1] - start[1]
    assert goal == (stop[0] + 2 * step[0], stop[1] + 2 * step[1])
    assert (stop[0] + step[0], stop[1] + step[1]) not in scene.cells[-1]


def test_only_an_object_that_was_hit_is_moved_by_another() -> None:
    for index in range(200):
        scene = split_scene(DEFAULT, "train", index)
        for k, event in enumerate(scene.events):
            if event.cause is not None:
                assert (scene.events[k - 1].verb, scene.events[k - 1].who) == ("hits", event.cause)


def test_a_scene_depends_on_its_seed_and_settings_alone() -> None:
    random.seed(1)
    first = sample_scene(7, DEFAULT)
    random.seed(2)
    assert sample_scene(7, DEFAULT) == first
    assert sample_scene(8, DEFAULT).content != first.content
    larger = sample_scene(7, WorldSettings(cell=64, noise=3, contrast=0.5, fps=8))
    assert larger.content == first.content, "size and looks change the picture, not what happens"


def test_splits_and_worlds_share_neither_seed_nor_scene() -> None:
    seeds, contents = Counter[int](), Counter[object]()
    for world in (DEFAULT, WorldSettings(seed=1)):
        for split in SPLITS:
            for index in range(200):
                seeds[scene_seed(world, split, index)] += 1
                contents[split_scene(world, split, index).content] += 1
    assert max(seeds.values()) == max(contents.values()) == 1
    assert len(contents) == 2 * len(SPLITS) * 200


def pairs_of(scene: Scene) -> set[tuple[str, str]]:
    return set(zip(scene.colours, scene.shapes, strict=True))


def test_held_out_combinations_are_seen_in_their_split_only() -> None:
    seen = {split: [pairs_of(split_scene(DEFAULT, split, i)) for i in range(400)] for split in SPLITS}
    everything = {(colour, shape) for colour in COLOURS for shape in SHAPES}
    for split, scenes in seen.items():
        if split == "ood_combinations":
            assert all(len(pairs & HELD_OUT) >= 2 for pairs in scenes)
        else:
            assert set.union(*scenes) == everything - HELD_OUT


def test_each_out_of_distribution_split_changes_one_thing() -> None:
    objects = Counter(len(split_scene(DEFAULT, "ood_objects", i).colours) for i in range(100))
    assert objects == {6: 50, 7: 50}
    assert {len(split_scene(DEFAULT, "ood_long", i).cells) for i in range(20)} == {12}
    changes = {
        split: {
            name
            for name, value in split_settings(DEFAULT, split, 0).model_dump().items()
            if value != DEFAULT.model_dump()[name]
        }
        for split in SPLITS
    }
    assert changes == {
        **{split: set() for split in ("train", "validation", "test", "hallucination")},
        "ood_combinations": {"combinations"},
        "ood_objects": {"objects"},
        "ood_long": {"steps"},
    }


def test_more_objects_than_there_are_colours_are_refused() -> None:
    with pytest.raises(DataError, match=r"ood_objects .* objects: 7 .* Set objects to 6 or fewer"):
        split_scene(WorldSettings(objects=7), "ood_objects", 0)
    assert len(split_scene(WorldSettings(objects=6), "ood_objects", 0).colours) == 7


def test_an_id_leads_back_to_its_scene() -> None:
    for split in SPLITS:
        expected = split_scene(DEFAULT, split, 17)
        for name in (f"{split}-000017", f"{split}-000017-shape", f"{split}-000017-exists_object-pair0-yes"):
            assert scene_of(name, DEFAULT) == expected
    assert scene_of("train-1234567-shape", DEFAULT) == split_scene(DEFAULT, "train", 1234567)


@pytest.mark.parametrize("name", ["", "train", "tests-000017-shape", "train-17-shape", "train-000017shape", "x-000001"])
def test_a_foreign_id_is_refused(name: str) -> None:
    with pytest.raises(
        DataError, match=r"is not the id of a clueworld question.*Splits: hallucination, ood_combinations"
    ):
        scene_of(name, DEFAULT)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("objects", 4), ("objects", 8), ("grid", 3), ("cell", 20), ("steps", 7), ("contrast", 0), ("types", ["what"]), ("types", [])],
)  # fmt: skip
def test_settings_that_no_world_can_have_are_refused(setting: str, value: object) -> None:
    with pytest.raises(ValidationError, match=setting):
        WorldSettings.model_validate({setting: value})


def test_the_default_world_keeps_the_mix_of_events_that_models_were_measured_on() -> None:
    """Per video, within the sampling error of 1,000 videos; lights uniform over 0 to 3 have the mean 1.5."""
    verbs = Counter(event.verb for i in range(1000) for event in split_scene(DEFAULT, "train", i).events)
    expected = {"lights": 1.5, "hits": 1.12, "enters": 0.57, "leaves": 0.57, "moves": 3.24}
    assert {verb: count / 1000 for verb, count in verbs.items()} == pytest.approx(expected, abs=0.1)
