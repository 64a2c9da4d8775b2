"""Where clues lie between question and answer: cosines with intervals, and maps by PCA and t-SNE.

All vectors are of the language model's input space, where the projector puts visual tokens beside words: a text is the mean
over its tokens, the same in every question, so that nothing of the answer leaks into a clue or back.

proximity, of every question and as means with intervals, over all, rightly and wrongly answered ones:

    clue_question     the shown clues' words (without `when`) and the question
    clue_answer       the same and the right option
    clue_wrong        the same and the other options, their mean
    question_answer   the question and the right option: what clues have to beat
    clue_inside       the shown clues and the visual tokens on the labelled boxes, their mean vector
    clue_outside      the same and all other visual tokens
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from cluenet.diagnose.looking import Seen
from cluenet.metrics.faithfulness import estimates, mean

PAIRS = ("clue_question", "clue_answer", "clue_wrong", "question_answer", "clue_inside", "clue_outside")
ROLES = ("question", "option", "clue", "inside", "outside")
MOST = {"question": 120, "option": 120, "clue": 120, "inside": 80, "outside": 80}
"""Points of a role, the most frequent texts first: more make a map nobody can read."""
FEWEST_POINTS = 8
PERPLEXITY = 30

NO_CLUES = "no question has a clue, so there is nothing between question and answer"
FEW_POINTS = f"fewer than {FEWEST_POINTS} different texts and visual tokens, too few for a map"


class Point(NamedTuple):
    role: str
    text: str
    count: int
    vector_D: np.ndarray


def space_block(
    seen: Sequence[Seen], *, clues: str, nearest: dict[str, Any] | None, resamples: int, seed: int
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """`space` of diagnostics.json, and notes. clues: stated or labelled. nearest: `proximity` of `metrics.biases`."""
    if not any(len(one.vectors.clues_KD) for one in seen):
        return None, {"space": NO_CLUES}
    points, notes = points_of(seen)
    if len(points) < FEWEST_POINTS:
        return None, {"space": FEW_POINTS}
    pca_M2, explained, tsne_M2 = maps(np.stack([point.vector_D for point in points]), seed)
    placed = [
        {"role": point.role, "text": point.text, "count": point.count, "pca": pca.tolist(), "tsne": tsne.tolist()}
        for point, pca, tsne in zip(points, pca_M2, tsne_M2)
    ]
    found = proximity(seen, resamples=resamples)
    return {"clues": clues, "points": placed, "explained": explained, "proximity": found, "nearest": nearest}, notes


# ------------------------------------------------------------------------------------------------- how near


def cosine(a_D: np.ndarray | None, b_D: np.ndarray | None) -> float | None:
    """None without one of the vectors, or where one is zero."""
    if a_D is None or b_D is None:
        return None
    norm = float(np.linalg.norm(a_D) * np.linalg.norm(b_D))
    return float(a_D @ b_D) / norm if norm > 0 else None


def cosines(one: Seen) -> dict[str, float | None]:
    """Of PAIRS, of one question; None where a side is missing."""
    vectors, answer = one.vectors, one.sample["answer"]
    clues_D = vectors.clues_KD.mean(0) if len(vectors.clues_KD) else None
    known = isinstance(answer, int)
    right_D = vectors.options_AD[answer] if known else None
    wrong = [cosine(clues_D, vectors.options_AD[i]) for i in range(len(vectors.options_AD)) if known and i != answer]
    met = [value for value in wrong if value is not None]
    return {
        "clue_question": cosine(clues_D, vectors.question_D), "clue_answer": cosine(clues_D, right_D),
        "clue_wrong": fmean(met) if met else None, "question_answer": cosine(vectors.question_D, right_D),
        "clue_inside": cosine(clues_D, vectors.inside_D), "clue_outside": cosine(clues_D, vectors.outside_D),
    }  # fmt: skip


def proximity(seen: Sequence[Seen], *, resamples: int) -> dict[str, dict[str, Any]]:
    """{pair: {all, right, wrong}}, mean cosines with intervals by video; pairs that were not met anywhere are left out."""
    found, verdicts = [cosines(one) for one in seen], [one.sample["correct"] for one in seen]
    columns = {
        (pair, group): mean([row[pair] if wanted in (None, verdict) else None for row, verdict in zip(found, verdicts)])
        for pair in PAIRS
        for group, wanted in (("all", None), ("right", True), ("wrong", False))
    }
    named = estimates([one.sample["video"] for one in seen], {"/".join(key): column for key, column in columns.items()}, resamples=resamples)  # fmt: skip
    rows = {pair: {group: named[f"{pair}/{group}"] for group in ("all", "right", "wrong")} for pair in PAIRS}
    return {pair: row for pair, row in rows.items() if row["all"]["n"]}


# ---------------------------------------------------------------------------------------------------- maps


def points_of(seen: Sequence[Seen]) -> tuple[list[Point], dict[str, str]]:
    """A point for every different text of a role, and for some visual tokens of every clip; notes on those left out."""
    every = [pair for one in seen for pair in _points(one)]
    counts = Counter((point.role, point.text) for point in every)
    different = {(point.role, point.text): point for point in every}
    kept, notes = [], {}
    for role in ROLES:
        mine = [point._replace(count=counts[key]) for key, point in different.items() if key[0] == role]
        mine.sort(key=lambda point: (-point.count, point.text))
        kept += mine[: MOST[role]]
        if len(mine) > MOST[role]:
            notes[f"space.points.{role}"] = f"{MOST[role]} of {len(mine)} stand in the map, the most frequent ones"
    return kept, notes


def _points(one: Seen) -> Iterator[Point]:
    vectors, sample = one.vectors, one.sample
    yield Point("question", sample["question"], 1, vectors.question_D)
    yield from (Point("option", text, 1, row) for text, row in zip(sample["options"], vectors.options_AD))
    yield from (Point("clue", text, 1, row) for text, row in zip(vectors.clue_texts, vectors.clues_KD))
    for role, tokens_ND in (("inside", vectors.inside_ND), ("outside", vectors.outside_ND)):
        for number, row in enumerate(tokens_ND):
            yield Point(role, f"{sample['id']} token {number + 1}", 1, row)


def maps(vectors_MD: np.ndarray, seed: int) -> tuple[np.ndarray, list[float], np.ndarray]:
    """(PCA [M, 2], the share of variance along its axes, t-SNE [M, 2]) of the vectors, brought to length 1 first: near is what
    has a high cosine. One thread, so that a seed gives the same bytes."""
    units_MD = vectors_MD / np.maximum(np.linalg.norm(vectors_MD, axis=1, keepdims=True), 1e-12)
    units_MD = units_MD.astype(np.float64)
    with threadpool_limits(1):
        pca = PCA(n_components=2, svd_solver="full")
        pca_M2 = pca.fit_transform(units_MD)
        perplexity = min(PERPLEXITY, (len(units_MD) - 1) / 3)
        tsne_M2 = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(units_MD)
    return pca_M2, pca.explained_variance_ratio_.tolist(), tsne_M2
