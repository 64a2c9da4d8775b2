"""No reader of ClueWorld's words alone beats chance: two models, trained on questions and options to convergence.

A conditional logistic regression scores every option from its words, its position, all pairs of a question word and an
option word, and how often its words stand in the other options (so it knows the majority answer, each type's and each
question's favourites, and the odd one out). A transformer over all words (`helpers.blind_reader`) finds what nobody
thought of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.stats import norm

from cluenet.records import Example, VideoRef
from cluenet.testing.clueworld import COLOURS, TYPES, YES_NO_TYPES, Split, WorldSettings, questions_of, split_scene
from helpers.blind_reader import NeuralReader

Features = Callable[[Example], list[list[str]]]
DEFAULT = WorldSettings()
RIDGE = 3.0


class Reader(Protocol):
    def hits(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """The chance of a right answer per question."""


def ask(split: Split, videos: int, types: Sequence[str]) -> list[Example]:
    scenes = (split_scene(DEFAULT, split, index) for index in range(videos))
    return [question for scene in scenes for question in questions_of(scene, "s", VideoRef("v.mp4"), types)]  # type: ignore[arg-type]


def pattern(text: str) -> str:
    return " ".join("<colour>" if word in COLOURS else word for word in text.split())


def features(example: Example) -> list[list[str]]:
    """For every option, the names of what is true of it."""
    asked, form = example.question.split(), pattern(example.question)
    told = Counter(word for option in example.options for word in set(option.split()))
    found = []
    for position, option in enumerate(example.options):
        words = option.split()
        common = [f"{pattern(word)}x{told[word]}" for word in words]
        found.append(
            [
                f"{example.type} position {position} of {len(example.options)}",
                f"{example.type} {option}",
                f"{form} {pattern(option)}",
                *(f"{example.type} {a} {b}" for a in asked for b in words),
                *(f"{form} {word}" for word in common),
            ]
        )
    return found


class BlindReader:
    """Multinomial logit over the options of each question."""

    def __init__(self, describe: Features, examples: Sequence[Example]):
        self.describe = describe
        self.names: dict[str, int] = {}
        for example in examples:
            for option in describe(example):
                for name in option:
                    self.names.setdefault(name, len(self.names))
        x, starts = self._matrix(examples)
        gold = starts + np.array([example.answer for example in examples])
        owner = np.repeat(np.arange(len(examples)), [len(example.options) for example in examples])

        def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            scores = x @ weights
            scores -= np.maximum.reduceat(scores, starts)[owner]
            share = np.exp(scores)
            share /= np.add.reduceat(share, starts)[owner]
            error = share.copy()
            error[gold] -= 1
            return -np.log(share[gold]).sum() + RIDGE / 2 * weights @ weights, x.T @ error + RIDGE * weights

        fitted = minimize(loss, np.zeros(len(self.names)), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
        assert fitted.success, fitted.message
        self.weights = fitted.x

    def _matrix(self, examples: Sequence[Example]) -> tuple[csr_matrix, npt.NDArray[np.int64]]:
        rows = [option for example in examples for option in self.describe(example)]
        columns = [[self.names[name] for name in set(row) if name in self.names] for row in rows]
        bounds = np.cumsum([0, *map(len, columns)])
        x = csr_matrix((np.ones(bounds[-1]), np.concatenate(columns), bounds), shape=(len(rows), len(self.names)))
        return x, np.cumsum([0, *(len(example.options) for example in examples)])[:-1]

    def hits(self, examples: Sequence[Example]) -> npt.NDArray[np.float64]:
        """The chance of a right answer per question; ties share it."""
        x, starts = self._matrix(examples)
        found = []
        for example, scores in zip(examples, np.split(x @ self.weights, starts[1:]), strict=True):
            best = np.flatnonzero(scores >= scores.max() - 1e-9)
            found.append((example.answer in best) / len(best))
        return np.array(found)


def assert_at_chance(reader: Reader, examples: Sequence[Example], *, alpha: float | None = None) -> None:
    """Within the interval around chance, over all questions and over those of each type.

    alpha: how often one interval is left by luck. None: 95 % intervals that hold together (Bonferroni), for one of eight
    plain ones would be left in a third of all cases.
    """
    hits, chances = reader.hits(examples), np.array([1 / len(example.options) for example in examples])
    types = np.array([example.type for example in examples])
    kinds = ("all", *dict.fromkeys(types))
    deviations, outside = norm.isf((alpha or 0.05 / len(kinds)) / 2), []
    for kind in kinds:
        chosen = np.ones(len(types), bool) if kind == "all" else types == kind
        chance = chances[chosen].mean()
        margin = deviations * np.sqrt((chances * (1 - chances))[chosen].sum()) / chosen.sum()
        z = (hits[chosen].mean() - chance) / margin * deviations
        line = f"{kind}: {hits[chosen].mean():.3f}, chance {chance:.3f} +- {margin:.3f}, z {z:.2f}, n {chosen.sum()}"
        print(line)
        if abs(hits[chosen].mean() - chance) > margin:
            outside.append(line)
    assert not outside, outside


@pytest.fixture(scope="module")
def training() -> list[Example]:
    return ask("train", 3000, TYPES)


@pytest.fixture(scope="module")
def validation() -> list[Example]:
    return ask("validation", 1500, TYPES)


def test_words_alone_do_not_tell_the_answer(training: list[Example], validation: list[Example]) -> None:
    assert len(validation) > 8000
    assert_at_chance(BlindReader(features, training), validation)


def test_words_alone_do_not_tell_yes_from_no() -> None:
    reader = BlindReader(features, ask("train", 1500, YES_NO_TYPES))
    assert_at_chance(reader, ask("hallucination", 1000, YES_NO_TYPES))


def test_the_blind_reader_finds_a_leak_where_there_is_one(training: list[Example], validation: list[Example]) -> None:
    """Of the questions about causes it gets to see only those that are answered alike, and half of the others."""

    def leaky(examples: list[Example]) -> list[Example]:
        causal = [example for example in examples if example.type == "causal"]
        return [e for i, e in enumerate(causal) if e.answer_text == "it moves itself" or i % 2]

    with pytest.raises(AssertionError, match="causal"):
        assert_at_chance(BlindReader(features, leaky(training)), leaky(validation))


def with_leak(examples: Sequence[Example]) -> list[Example]:
    """The same questions, the first option in the alphabet being the right one."""
    return [replace(e, answer=min(range(len(e.options)), key=lambda i: e.options[i])) for e in examples]


@pytest.mark.slow
def test_a_transformer_learns_nothing_from_words_alone_and_a_planted_leak_at_once() -> None:
    """Both are trained alike; the second proves that the first could have learned."""
    training, validation = ask("train", 2000, TYPES), ask("validation", 5000, TYPES)
    reader = NeuralReader(training)
    losses = reader.fit(training, epochs=4)
    assert losses[-1] == pytest.approx(losses[-2], rel=0.001), "it has converged"
    assert len(validation) > 25_000
    assert_at_chance(reader, validation, alpha=0.001)

    leaky = with_leak(validation[:8000])
    control = NeuralReader(training)
    control.fit(with_leak(training), epochs=4)
    assert control.hits(leaky).mean() > 0.9
    with pytest.raises(AssertionError, match="all: "):
        assert_at_chance(control, leaky, alpha=0.001)
