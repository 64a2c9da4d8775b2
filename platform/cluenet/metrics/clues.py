"""How well stated clues agree with the labelled ones: as whole clues, word by word, and with the time they hold.

Clues are compared as the words the model can say (`when`, then who, what, whom; see `cluenet.model.vocabulary`), so that
a label's longer word counts as its first token, like in training. Order and slots do not matter: per question the stated
clues are matched with the true ones, each at most once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from cluenet.metrics.statistics import RESAMPLES, bootstrap, intervals, ratio
from cluenet.records import CONCEPT_ROLES

ROLES = ("when", *CONCEPT_ROLES)
SILENT = ("_", "none")
"""Words of a clue that say nothing: an absent role, an unused slot."""
LEAST_TIOU = 0.3

Span = tuple[float, float]


class Stated(NamedTuple):
    """A clue as words and the seconds it holds, None where it says no time."""

    words: tuple[str, ...]
    span: Span | None


@dataclass(frozen=True)
class Counts:
    """Of one question, or summed over questions."""

    hits: int
    stated: int
    true: int


def count_all(stated: Sequence[Stated], true: Sequence[Stated]) -> dict[str, Counts]:
    """Of one question: `exact` (all words equal), `timed` (`timed_counts`), and each role of `ROLES` on its own."""
    roles = {role: role_counts(stated, true, column) for column, role in enumerate(ROLES)}
    return {"exact": exact_counts(stated, true), "timed": timed_counts(stated, true), **roles}


def exact_counts(stated: Sequence[Stated], true: Sequence[Stated]) -> Counts:
    """A hit has every word right, `when` included."""
    return _overlap([clue.words for clue in stated], [clue.words for clue in true])


def role_counts(stated: Sequence[Stated], true: Sequence[Stated], column: int) -> Counts:
    """A hit names a word that a true clue has in that role. Roles that say nothing are not counted."""
    return _overlap(_words(stated, column), _words(true, column))


def _words(clues: Sequence[Stated], column: int) -> list[str]:
    return [clue.words[column] for clue in clues if column < len(clue.words) and clue.words[column] not in SILENT]


def _overlap(stated: Sequence[Any], true: Sequence[Any]) -> Counts:
    return Counts((Counter(stated) & Counter(true)).total(), len(stated), len(true))


def timed_counts(stated: Sequence[Stated], true: Sequence[Stated], least: float = LEAST_TIOU) -> Counts:
    """A hit has every word but `when` right and overlaps in time: tIoU >= `least`. The most hits that a one-to-one
    matching can give. True clues without times are hit by their words alone."""
    fits = np.array([[_fits(clue, other, least) for other in true] for clue in stated], dtype=int)
    if not fits.size:
        return Counts(0, len(stated), len(true))
    matched = maximum_bipartite_matching(csr_array(fits), perm_type="column")
    return Counts(int((matched >= 0).sum()), len(stated), len(true))


def _fits(stated: Stated, true: Stated, least: float) -> bool:
    if stated.words[1:] != true.words[1:]:
        return False
    return true.span is None or (stated.span is not None and temporal_iou(stated.span, true.span) >= least)


def temporal_iou(a: Span, b: Span) -> float:
    """Length of the common time over the length of the union, in 0..1; two equal instants agree fully."""
    common = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - common
    return common / union if union > 0 else float(a == b)


def scores(
    counts_N: Sequence[Mapping[str, Counts]], videos_N: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Precision, recall and F1 of every kind of match with intervals by video, over questions with labelled clues.

    Sums over all questions come first (micro average): precision = hits / stated, recall = hits / true,
    F1 = 2 hits / (stated + true).
    """
    return {
        kind: _score([counts[kind] for counts in counts_N], videos_N, resamples, seed)
        for kind in ("exact", "timed", *ROLES)
    }


def _score(counts_N: Sequence[Counts], videos_N: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    values_N3 = np.array([astuple(counts) for counts in counts_N], dtype=float).reshape(-1, 3)

    def statistic(sums: np.ndarray) -> np.ndarray:
        hits, stated, true = sums[..., 0], sums[..., 1], sums[..., 2]
        return np.stack([ratio(hits, stated), ratio(hits, true), ratio(2 * hits, stated + true)], axis=-1)

    found = bootstrap(videos_N, values_N3, statistic, resamples=resamples, seed=seed)
    hits, stated, true = values_N3.sum(0).astype(int).tolist()
    names = ("precision", "recall", "f1")
    values = dict(zip(names, (item.to_dict() for item in intervals(found, (stated, true, stated + true)))))
    return {**values, "hits": hits, "stated": stated, "true": true}
