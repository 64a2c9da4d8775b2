"""What a clue filter is worth, by what its clues are worth to the right answer. `filter` of results.json.

utility, delta       a stated clue is useful when its exact utility of that kind is above delta nats (`cluenet.model.utilities`)
useful               share of stated clues that are
useful_kept          share of useful clues that the filter keeps
useful_kept_by_clip  mean over clips of the share of their useful clues that it keeps; a conformal threshold promises that this
                     is `promised` at least (`cluenet.model.conformal`)
useless_dropped      share of the other clues that it drops
auroc                how often the gate of a useful clue is above that of one that is not, equal ones counting half (Hanley and
                     McNeil 1982, Radiology 143)
own, unfiltered      accuracy, and accuracy with all stated clues behind no filter; gained = own - unfiltered
noise                {own, unfiltered, gained}: the same with a foreign clue among those that are offered

Clues are those of questions with a known answer. Made from samples.jsonl alone; estimates are {value, low, high, n}, intervals
by video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cluenet.metrics.accuracy import is_right
from cluenet.metrics.biases import Samples
from cluenet.metrics.faithfulness import Column, estimates, mean
from cluenet.metrics.statistics import RESAMPLES, bootstrap_weights, intervals, ratio

UNFILTERED = "no clue of the model passes a filter"
NO_ANSWERS = "no question of this test set has a known answer and a stated clue, so no clue has a known worth"
NO_GATE = "the filter has no gate"


def filter_worth(samples: Samples, *, resamples: int = RESAMPLES) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The block, None without anything to measure, and notes on what is missing from it.

    samples: lines of samples.jsonl. Raises KeyError for those of an evaluation without diagnostics.
    """
    if not any(sample["diagnostics"]["filter"] for sample in samples):
        return None, {"filter": UNFILTERED}
    known = [sample for sample in samples if sample["correct"] is not None]
    if not any(sample["clues"] for sample in known):
        return None, {"filter": NO_ANSWERS}
    facts = known[0]["diagnostics"]["filter"]
    gates = [clue["gate"] for sample in known for clue in sample["clues"]]
    promise = {} if facts["promised"] is None else {"promised": facts["promised"]}
    block = {
        "utility": facts["kind"], "delta": facts["delta"], **_decisions(known, resamples), **promise,
        **({} if None in gates else {"auroc": _auroc(known, gates, resamples)}), **_answers(known, resamples),
    }  # fmt: skip
    return block, {"filter.auroc": NO_GATE} if None in gates else {}


def _useful(sample: Mapping[str, Any]) -> list[bool]:
    useful: list[bool] = sample["diagnostics"]["filter"]["useful"]
    return useful


# ------------------------------------------------------------------------------------------------ its decisions


def _decisions(known: Samples, resamples: int) -> dict[str, Any]:
    """Of all clues: [N, 4] stated, useful, useful and kept, neither useful nor kept."""
    counts_N4 = np.array([_counts(sample) for sample in known], dtype=float)
    stated, useful, kept, dropped = counts_N4.T.tolist()
    useless = (counts_N4[:, 0] - counts_N4[:, 1]).tolist()
    columns: dict[str, Column] = {
        "useful": (useful, stated), "useful_kept": (kept, useful), "useless_dropped": (dropped, useless)
    }  # fmt: skip
    found = estimates([sample["video"] for sample in known], columns, resamples=resamples)
    by_clip = _by_clip(known, counts_N4[:, 1], counts_N4[:, 2], resamples)
    return {
        "useful": found.pop("useful"),
        "useful_kept": found.pop("useful_kept"),
        "useful_kept_by_clip": by_clip,
        **found,
    }


def _counts(sample: Mapping[str, Any]) -> tuple[int, int, int, int]:
    pairs = [(useful, clue["kept"]) for useful, clue in zip(_useful(sample), sample["clues"], strict=True)]
    useful, kept = (sum(pair[0] for pair in pairs), sum(pair[0] and pair[1] for pair in pairs))
    return len(pairs), useful, kept, sum(not any(pair) for pair in pairs)


def _by_clip(known: Samples, useful_N: np.ndarray, kept_N: np.ndarray, resamples: int) -> dict[str, Any]:
    """Clips without a useful clue are left out."""
    clips: dict[tuple[str, str], np.ndarray] = {}
    for sample, *counts in zip(known, kept_N, useful_N):
        key = (sample["video"], sample["clip"])
        clips[key] = clips.get(key, np.zeros(2)) + counts
    shares = [kept / useful if useful else None for kept, useful in clips.values()]
    return estimates([video for video, _ in clips], {"": mean(shares)}, resamples=resamples)[""]


def _auroc(known: Samples, gates_N: Sequence[float], resamples: int) -> dict[str, Any]:
    videos_N = [sample["video"] for sample in known for _ in sample["clues"]]
    useful_N = np.array([useful for sample in known for useful in _useful(sample)], dtype=float)
    found_31 = bootstrap_weights(
        videos_N, lambda weights_RN: auroc(np.array(gates_N), useful_N, weights_RN)[:, None], resamples=resamples
    )
    return intervals(found_31, [len(useful_N)])[0].to_dict()


def auroc(scores_N: np.ndarray, positive_N: np.ndarray, weights_RN: np.ndarray) -> np.ndarray:
    """[R] how often a positive one scores above a negative one, equal scores counting half; NaN without either kind.

    weights: how often each of the N counts. The Mann-Whitney statistic over the product of the two numbers.
    """
    order = np.argsort(scores_N, kind="stable")
    _, starts = np.unique(scores_N[order], return_index=True)
    good_RG, bad_RG = (
        np.add.reduceat((weights_RN * kind)[:, order], starts, axis=1) for kind in (positive_N, 1 - positive_N)
    )
    below_RG = np.cumsum(bad_RG, axis=1) - bad_RG / 2
    found: np.ndarray = ratio((good_RG * below_RG).sum(1), good_RG.sum(1) * bad_RG.sum(1))
    return found


# -------------------------------------------------------------------------------------------------- its answers


def _answers(known: Samples, resamples: int) -> dict[str, Any]:
    own = [bool(sample["correct"]) for sample in known]
    without = [is_right(sample["diagnostics"]["filter"]["unfiltered"], sample["answer"]) for sample in known]
    met = [sample for sample in known if sample["faithfulness"] and sample["faithfulness"]["noise"]]
    noises = [sample["faithfulness"]["noise"] for sample in met]
    through, loose = (
        [is_right(noise[name], sample["answer"]) for noise, sample in zip(noises, met)]
        for name in ("through", "unfiltered")
    )
    noise = {"noise": _pair(met, through, loose, resamples)} if met else {}
    return {**_pair(known, own, without, resamples), **noise}


def _pair(samples: Samples, own: Sequence[bool], without: Sequence[bool], resamples: int) -> dict[str, Any]:
    columns = {
        "own": mean(list(map(float, own))), "unfiltered": mean(list(map(float, without))),
        "gained": mean([float(a) - float(b) for a, b in zip(own, without)]),
    }  # fmt: skip
    return estimates([sample["video"] for sample in samples], columns, resamples=resamples)


# ----------------------------------------------------------------------------------------------- for people

_LINES = (
    ("useful", "a stated clue is useful to the right answer", "stated clues"),
    ("useful_kept", "the filter keeps a useful clue", "useful clues"),
    ("useful_kept_by_clip", "the same, mean over clips", "clips"),
    ("useless_dropped", "it drops a clue that is not", "other clues"),
    ("auroc", "its gate ranks a useful clue above another (AUROC)", "stated clues"),
    ("gained", "accuracy that it gains over no filter", "accuracy, points"),
    ("noise.gained", "the same with a foreign clue among those offered", "accuracy, points"),
)


def headlines(block: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], float | None]]:
    """(what it says, unit, estimate, what it promised or chance would give) of what was measured, in order."""
    beside = {"auroc": 0.5, "useful_kept_by_clip": block.get("promised")}
    for path, words, unit in _LINES:
        found: Any = block
        for part in path.split("."):
            found = (found or {}).get(part)
        if found and found["value"] is not None:
            yield words, unit, found, beside.get(path)
