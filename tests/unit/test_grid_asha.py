"""Asynchronous successive halving against the published rule, written down plainly; and how many go on, counted over all orders."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from cluenet.grid.asha import Bracket
from cluenet.grid.bounds import rungs_of_seed
from cluenet.grid.rungs import Point, rungs_of
from cluenet.grid.spec import Asha

RUNGS = 3


def bracket(trials: int, eta: int, kept: tuple[int, ...] = ()) -> Bracket[tuple[int, int]]:
    """Trial i at rung k is (i, k)."""
    rungs = [[(i, k) for i in range(trials)] for k in range(RUNGS)]
    return Bracket(rungs, eta=eta, kept=[(i, k) for i in kept for k in range(RUNGS)])


class Published:
    """`get_job` of algorithm 2 in arXiv 1810.05934, with lists: for k = K - 1, ..., 0 the best |rung k| / eta that were not promoted
    from there; else a new trial. Equal accuracies in the order of their numbers."""

    def __init__(self, eta: int):
        self.eta = eta
        self.rungs: list[list[tuple[float, int]]] = [[] for _ in range(RUNGS)]
        self.gone: list[list[int]] = [[] for _ in range(RUNGS)]

    def get_job(self) -> tuple[int, int] | None:
        for k in (2, 1, 0):
            top = sorted(self.rungs[k], key=lambda one: (-one[0], one[1]))[: int(len(self.rungs[k]) / self.eta)]
            for _, trial in top:
                if trial not in self.gone[k]:
                    self.gone[k].append(trial)
                    return trial, k
        return None


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_trials_go_on_as_in_the_publication(eta, workers):
    """Workers take their time, so results come late and in any order; few different accuracies, so that there are draws."""
    for seed in range(20):
        rng = random.Random(seed)
        mine, theirs = bracket(20, eta), Published(eta)
        new, busy, jobs = iter(range(20)), [], 0
        while True:
            while len(busy) < workers:
                wanted = theirs.get_job()
                found = next(mine.promotable(), None)
                assert found == wanted
                if found is not None:
                    mine.promote(found)
                    job = (found[0], found[1] + 1)
                elif (trial := next(new, None)) is not None:
                    job = (trial, 0)
                else:
                    break
                busy.append(job)
            if not busy:
                break
            trial, rung = busy.pop(rng.randrange(len(busy)))
            jobs += 1
            if rung < RUNGS:  # else it came to its end
                accuracy = rng.randrange(6) / 6
                theirs.rungs[rung].append((accuracy, trial))
                mine.report((trial, rung), accuracy)
        assert jobs > 20


def test_a_late_worker_is_promoted_after_worse_ones():
    one = bracket(4, eta=2)
    for trial, accuracy in ((0, 0.2), (1, 0.3), (2, 0.1)):
        one.report((trial, 0), accuracy)
    assert list(one.promotable()) == [(1, 0)]
    one.promote((1, 0))
    one.report((3, 0), 0.9)
    assert list(one.promotable()) == [(3, 0)]
    assert one.standing((1, 0)).rank == 2


def test_a_draw_goes_to_the_first_in_the_grid_whoever_came_first():
    one = bracket(2, eta=2)
    one.report((1, 0), 0.5)
    one.report((0, 0), 0.5)
    assert list(one.promotable()) == [(0, 0)]


def test_the_highest_rung_comes_first_and_in_it_the_best():
    one = bracket(8, eta=2)
    for trial in range(8):
        one.report((trial, 0), trial / 8)
    for trial in (6, 7):
        one.promote((trial, 0))
        one.report((trial, 1), trial / 8)
    assert list(one.promotable()) == [(7, 1), (5, 0), (4, 0)]


def test_a_kept_trial_goes_on_and_is_ranked_all_the_same():
    one = bracket(4, eta=4, kept=(2,))
    for trial, accuracy in enumerate((0.9, 0.5, 0.0, 0.7)):
        one.report((trial, 0), accuracy)
    assert list(one.promotable()) == [(0, 0), (2, 0)]
    standing = one.standing((2, 0))
    assert (standing.accuracy, standing.rank, standing.of, standing.places) == (0.0, 4, 4, 1)


def test_rungs_end_before_the_run_does():
    assert rungs_of(Asha(first=100, eta=3), 480) == [100, 300]
    assert rungs_of(Asha(first=100, eta=3), 900) == [100, 300]
    assert rungs_of(Asha(first=100, eta=3), 901) == [100, 300, 900]
    assert rungs_of(Asha(first=100, eta=3), 100) == []


# --------------------------------------------------------------------------------------------- how many will go on


def going_on(accuracies: tuple[int, ...], eta: int) -> int:
    """How many of these go on from one rung, one coming after the other, where the first one is kept."""
    one, gone = Bracket([range(len(accuracies))], eta=eta, kept=[0]), 0
    for trial, accuracy in enumerate(accuracies):
        one.report(trial, accuracy)
        for going in list(one.promotable()):
            one.promote(going)
            gone += 1
    return gone


@pytest.mark.parametrize(("trials", "eta"), [(3, 3), (5, 2), (6, 2), (6, 3), (6, 4)])
def test_bounds_are_those_of_all_orders(trials, eta):
    counts = [going_on(order, eta) for order in itertools.permutations(range(trials))]
    (rung,) = rungs_of_seed(points(trials, rungs=1), Asha(first=1, eta=eta))
    assert (rung.trainings, rung.least, rung.most) == (trials, min(counts), max(counts))


def test_how_many_go_on_in_random_order():
    """What docs/ablations.md says: 4.0 of 9 on average, 5.2 of 12, where 3 and 4 would with all scores known."""
    rng = random.Random(0)
    for trials, mean in ((9, 4.0), (12, 5.2)):
        counts = [going_on(tuple(rng.sample(range(trials), trials)), 3) for _ in range(2000)]
        assert sum(counts) / len(counts) == pytest.approx(mean, abs=0.1)


def points(cells: int, rungs: int, shared: int = 0) -> list[tuple[Point, ...]]:
    """Of cells that share their first `shared` rungs."""

    def of(cell: int) -> Iterator[Point]:
        for rung in range(rungs):
            yield Point(("stage1", "all" if rung < shared else str(cell)), 2**rung, 2**rung)

    return [tuple(of(cell)) for cell in range(cells)]


def test_trainings_that_are_sure_to_reach_a_rung():
    """Three of nine go on, then one of three; where all share the first rung, all nine come to the second one."""
    asha = Asha(first=1, eta=3)
    alone = [(rung.trainings, rung.sure, rung.least) for rung in rungs_of_seed(points(9, 2), asha)]
    assert alone == [(9, 9, 3), (9, 3, 1)]
    first, second = rungs_of_seed(points(9, 2, shared=1), asha)
    assert (first.trainings, first.decides, first.least, first.most) == (1, False, 1, 1)
    assert (second.trainings, second.sure, second.decides) == (9, 9, True)


def test_cells_that_end_before_a_rung_do_not_come_to_it():
    long, short = points(3, 2), [one[:1] for one in points(9, 1)[3:]]
    second = rungs_of_seed([*long, *short], Asha(first=1, eta=3))[1]
    assert (second.trainings, second.sure) == (
        3,
        1,
    )  # two of the three that go on may be short ones; the reference is not
