"""The order of training examples: complete, in proportion, the same on any number of workers, and found without replay."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluenet.train import plan as planning
from cluenet.train.plan import Draw, Plan, evenly, seed_of

datasets = st.lists(st.tuples(st.integers(0, 40), st.floats(0.05, 20, allow_nan=False)), min_size=1, max_size=4).filter(
    lambda rows: any(clips for clips, _ in rows)
)


@st.composite
def plans(draw, clips_per_batch=None):
    rows = draw(datasets)
    sizes, weights = zip(*rows)
    return Plan(
        sizes,
        weights,
        draw(st.integers(0, 2**60)),
        clips_per_batch or draw(st.integers(1, 24)),
        draw(st.integers(1, 8)),
    )


@given(plans())
def test_every_clip_is_seen_before_any_is_seen_again(plan):
    draws = [plan.draw(number) for number in range(300)]
    for s, clips in enumerate(plan.num_clips):
        mine = [draw.clip for draw in draws if draw.dataset == s]
        for start in range(0, len(mine), max(1, clips)):
            visit = mine[start : start + clips]
            assert len(set(visit)) == len(visit)
            assert set(visit) <= set(range(clips))
        assert (
            [d.visit for d in draws if d.dataset == s] == [i // clips for i in range(len(mine))] if clips else not mine
        )


@given(plans())
def test_datasets_are_drawn_in_proportion_to_weight_times_clips(plan):
    count = 400
    drawn = Counter(plan.draw(number).dataset for number in range(count))
    shares = np.array(plan.num_clips) * np.array(plan.weights)
    wanted = shares / shares.sum() * count
    round_size = float((shares / max(w for w, n in zip(plan.weights, plan.num_clips) if n)).sum())
    for dataset, expected in enumerate(wanted):
        # within a round the order is random, so a part of the last round may be off, and each round is rounded
        assert abs(drawn[dataset] - expected) <= round_size + len(wanted) + 1


def test_weights_count_over_whole_rounds_exactly():
    plan = Plan((10, 10), (1.0, 0.25), 3, 1, 1)
    drawn = Counter(plan.draw(number).dataset for number in range(25 * 4))  # a round is 12.5 draws on average
    assert drawn == {0: 80, 1: 20}


def test_a_rare_dataset_is_not_lost_to_rounding():
    plan = Plan((1000, 3), (1.0, 0.1), 0, 1, 1)
    drawn = Counter(plan.draw(number).dataset for number in range(10_003))
    assert drawn == {0: 10_000, 1: 3}


@given(plans(clips_per_batch=24), st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([1, 2]))
def test_the_union_over_workers_is_the_batch_whatever_their_number(plan, step, world_size, accumulate):
    parts = [plan.slice(step, rank=rank, world_size=world_size, accumulate=accumulate) for rank in range(world_size)]
    assert [len(micro) for worker in parts for micro in worker] == [24 // world_size // accumulate] * (
        world_size * accumulate
    )
    assert [draw for worker in parts for micro in worker for draw in micro] == plan.batch(step)


@given(plans(), st.integers(0, 60))
def test_any_step_is_found_without_the_ones_before(plan, step):
    again = Plan(plan.num_clips, plan.weights, plan.seed, plan.clips_per_batch, plan.questions_per_clip)
    walked = [again.batch(number) for number in range(step + 1)][-1]
    assert plan.batch(step) == walked


@pytest.mark.parametrize("step", [3, 10**6, 10**9])
def test_far_steps_cost_as_little_as_near_ones(monkeypatch, step):
    streams: list[tuple] = []
    original = planning._rng
    monkeypatch.setattr(planning, "_rng", lambda *parts: streams.append(parts) or original(*parts))
    planning._round.cache_clear()
    assert len(Plan((5000, 300), (1.0, 2.0), 1, 16, 6).batch(step)) == 16
    assert 1 <= len(streams) <= 6  # two rounds and two permutations of each dataset, if the batch lies on their borders


@given(plans(), st.integers(1, 30), st.integers(0, 30), st.integers(0, 50))
def test_questions_go_round_and_repeat_only_when_there_are_too_few(plan, num_questions, clip, visit):
    asked = plan.questions(Draw(0, clip, visit), num_questions)
    assert len(asked) == plan.questions_per_clip
    counts = Counter(asked)
    assert set(counts) <= set(range(num_questions))
    assert max(counts.values()) - min(counts.get(q, 0) for q in range(num_questions)) <= 1


@given(plans(), st.integers(1, 30))
def test_all_questions_of_a_clip_are_asked_over_its_visits(plan, num_questions):
    visits = -(-num_questions // plan.questions_per_clip)
    asked = {q for visit in range(visits) for q in plan.questions(Draw(0, 0, visit), num_questions)}
    assert asked == set(range(num_questions))


def test_seeds_and_visits_change_the_order():
    one, other = (Plan((50,), (1.0,), seed, 50, 1) for seed in (1, 2))
    assert one.batch(0) != other.batch(0)
    assert [d.clip for d in one.batch(0)] != [d.clip for d in one.batch(1)]
    assert one.batch(0) == Plan((50,), (3.0,), 1, 50, 1).batch(0)  # a single dataset's weight says nothing


def test_the_order_is_pinned():
    """A change here breaks the resuming of runs that an older version began."""
    batch = Plan((5, 3), (1.0, 1.0), 7, 8, 1).batch(0)
    assert [(draw.dataset, draw.clip) for draw in batch] == PINNED


PINNED = [(0, 1), (1, 1), (1, 2), (1, 0), (0, 3), (0, 0), (0, 4), (0, 2)]


@pytest.mark.parametrize(("sizes", "weights"), [((), ()), ((0, 0), (1.0, 1.0)), ((3,), (1.0, 2.0))])
def test_nothing_to_draw_from(sizes, weights):
    with pytest.raises(ValueError, match="nothing to draw from"):
        Plan(sizes, weights, 0, 4, 1)


def test_uneven_slices_are_refused():
    plan = Plan((10,), (1.0,), 0, 6, 1)
    with pytest.raises(ValueError, match="6 clips do not split into 4 x 1 equal parts"):
        plan.slice(0, rank=0, world_size=4)
    with pytest.raises(ValueError, match="rank 2 is outside"):
        plan.slice(0, rank=2, world_size=2)


@given(st.integers(0, 500), st.none() | st.integers(1, 200))
def test_evenly_spread_numbers(count, most):
    chosen = evenly(count, most)
    assert len(chosen) == (count if most is None else min(count, most))
    assert chosen == sorted(set(chosen))
    if len(chosen) > 1:
        gaps = np.diff([*chosen, count])
        assert gaps.max() - gaps.min() <= 1


def test_seeds_differ_and_fit():
    seeds = {seed_of(0, "stage1", step, rank, part) for step in range(20) for rank in range(4) for part in range(4)}
    assert len(seeds) == 320
    assert max(seeds) < 2**60


def test_each_order_is_made_once_and_one_is_kept_for_each_of_many_datasets(monkeypatch):
    made = []
    make = planning._rng
    monkeypatch.setattr(planning, "_rng", lambda *parts: (made.append(parts), make(*parts))[1])
    plan = Plan((20,) * 40, (1.0,) * 40, seed=3, clips_per_batch=8, questions_per_clip=1)
    rounds = [plan.draw(number) for number in range(3 * 800)]
    assert {(draw.dataset, draw.visit) for draw in rounds} == {(s, visit) for s in range(40) for visit in range(3)}
    assert len([parts for parts in made if "clips" in parts]) == 3 * 40
    assert sum(order.nbytes for _, order in plan._orders.values()) == 8 * 800
