"""The conformal threshold: exact ranks, its promise on fresh synthetic clips, what it adapts to."""

import math

import numpy as np
import pytest
import torch

from cluenet.contracts import Judged
from cluenet.model.conformal import FEATURES, LEAST_FIT, calibrate, features, least_clips, passes, quantile

SLOTS, TRIALS = 4, 500


def by_counting(scores, alpha):
    """The smallest score that at least (n + 1)(1 - alpha) of the scores do not exceed."""
    need = round((len(scores) + 1) * (1 - alpha), 9)
    return min((s for s in scores if sum(other <= s for other in scores) >= need), default=math.inf)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("count", [0, 1, 8, 9, 10, 19, 57])
def test_the_quantile_has_the_finite_sample_rank(count, alpha):
    scores = np.random.default_rng(count).normal(size=count)
    assert quantile(scores, alpha) == by_counting(scores.tolist(), alpha)
    assert math.isfinite(quantile(scores, alpha)) == (count >= least_clips(alpha))


def test_a_further_score_stays_below_the_quantile_as_often_as_promised():
    rng, alpha, count, trials = np.random.default_rng(0), 0.2, 22, 4000
    scores = rng.normal(size=(trials, count + 1))
    hits = np.mean([row[-1] <= quantile(row[:-1], alpha) for row in scores])
    exact = math.ceil((count + 1) * (1 - alpha)) / (count + 1)  # of continuous scores
    assert hits == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / trials))


def made_up(rng, *, hard=1.0):
    """A clip of 1 to 3 questions. A hard clip's gates are low for useful clues too; clues of one clip hang together."""
    questions, low = int(rng.integers(1, 4)), hard * rng.exponential()
    useful = rng.random((questions, SLOTS)) < 0.5
    logits = np.where(useful, 2.0, -1.0) - low + 0.7 * rng.normal() + 0.5 * rng.normal(size=useful.shape)
    present = rng.random(useful.shape) < 0.8
    return Judged(1 / (1 + np.exp(-logits)), present, useful)


def kept(clip, found):
    gate, present = torch.from_numpy(clip.gate_QK)[None], torch.from_numpy(clip.present_QK)[None]
    weights, shift = torch.from_numpy(found.weights), torch.tensor(found.shift, dtype=torch.float64)
    return passes(gate, present, weights, shift)[0].numpy()


def recall(clip, found):
    useful = clip.useful_QK & clip.present_QK
    return None if not useful.any() else kept(clip, found)[useful].mean()


@pytest.mark.parametrize(("clips", "alpha"), [(60, 0.1), (90, 0.25)])
def test_the_recall_of_useful_clues_on_fresh_clips_holds(clips, alpha):
    """Mean over many calibrations, each with a clip it has not seen: never below the promise, and hardly above."""
    rng, recalls, sizes = np.random.default_rng(1), [], []
    for trial in range(TRIALS):
        found = calibrate([made_up(rng) for _ in range(clips)], alpha=alpha, seed=trial)
        fresh = [recall(made_up(rng), found) for _ in range(4)]
        recalls.append(np.mean([value for value in fresh if value is not None]))
        sizes.append(found.clips)
    error = np.std(recalls) / math.sqrt(len(recalls))
    assert np.mean(recalls) >= 1 - alpha - 3 * error
    assert np.mean(recalls) <= 1 - alpha + 1 / (min(sizes) + 1) + 3 * error


def test_the_promise_holds_for_a_gate_that_knows_nothing():
    rng, recalls = np.random.default_rng(2), []
    for trial in range(TRIALS):
        blind = [
            Judged(rng.random(c.gate_QK.shape), c.present_QK, c.useful_QK) for c in (made_up(rng) for _ in range(61))
        ]
        value = recall(blind[-1], calibrate(blind[:-1], alpha=0.2, seed=trial))
        recalls += [] if value is None else [value]
    assert np.mean(recalls) >= 0.8 - 3 * np.std(recalls) / math.sqrt(len(recalls))


def test_it_adapts_a_threshold_that_follows_the_question_keeps_fewer_useless_clues():
    rng = np.random.default_rng(3)
    clips, fresh = ([made_up(rng, hard=3.0) for _ in range(count)] for count in (400, 400))
    found = calibrate(clips, alpha=0.1, seed=0)
    assert found.fitted >= LEAST_FIT
    flat = [np.log(g / (1 - g))[u & p] for g, p, u in ((c.gate_QK, c.present_QK, c.useful_QK) for c in clips)]
    fixed = -quantile(-np.concatenate(flat), 0.1)
    false = {"adaptive": [], "fixed": []}
    for clip in fresh:
        useless = ~clip.useful_QK & clip.present_QK
        false["adaptive"] += kept(clip, found)[useless].tolist()
        false["fixed"] += (np.log(clip.gate_QK / (1 - clip.gate_QK)) >= fixed)[useless].tolist()
    assert np.mean(false["adaptive"]) < np.mean(false["fixed"]) - 0.1


def test_features_by_hand():
    gate, present = torch.tensor([[[0.5, 0.9, 0.1]]]).double(), torch.tensor([[[True, True, False]]])
    entropies = [-sum(p * math.log(p) for p in (g, 1 - g)) for g in (0.5, 0.9)]
    wanted = [1.0, 0.7, 0.2, sum(entropies) / 2]
    assert features(gate, present)[0, 0].tolist() == pytest.approx(wanted)
    assert features(gate, present & False)[0, 0].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_threshold_by_hand():
    gate, present = torch.tensor([[[0.5, 0.9, 0.1]]]).double(), torch.ones(1, 1, 3, dtype=torch.bool)
    weights = torch.tensor([0.5, 2.0, 0.0, 0.0]).double()  # w . f = 0.5 + 2 * 0.5 = 1.5
    for shift, wanted in ((0.0, [False, True, False]), (1.6, [True, True, False]), (4.0, [True, True, True])):
        assert passes(gate, present, weights, torch.tensor(shift).double())[0, 0].tolist() == wanted


def test_too_few_clips_keep_everything_and_the_card_says_so():
    rng = np.random.default_rng(4)
    clip = Judged(np.full((1, SLOTS), 0.01), *[np.ones((1, SLOTS), dtype=bool)] * 2)
    few = calibrate([clip] * 6, alpha=0.1, seed=0)
    assert few.shift == math.inf
    assert kept(clip, few).all()
    assert "alpha 0.1 needs 9 calibration clips with a useful clue, not 3" in few.facts(0.1)["clue threshold"]
    many = calibrate([made_up(rng) for _ in range(80)], alpha=0.1, seed=0)
    assert "probability 0.9 at least" in many.facts(0.1)["clue threshold"]


@pytest.mark.parametrize("clips", [[], [Judged(np.zeros((2, 3)), *[np.zeros((2, 3), dtype=bool)] * 2)]])
def test_without_a_useful_clue_nothing_is_promised(clips):
    found = calibrate(clips, alpha=0.5, seed=0)
    assert (found.clips, found.fitted, found.shift) == (0, 0, math.inf)
    assert found.weights.shape == (FEATURES,)


def test_it_is_a_function_of_its_seed():
    rng = np.random.default_rng(5)
    clips = [made_up(rng) for _ in range(50)]
    one, again, other = (calibrate(clips, alpha=0.1, seed=seed) for seed in (1, 1, 2))
    assert one.shift == again.shift != other.shift
