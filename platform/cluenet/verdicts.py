"""How the questions of a benchmark ended, and how its authors' metric is said: as means over units with their videos.

A dataset component turns `Verdict`s into `Measure`s (`Dataset.measures`) and into its official result file
(`Dataset.result_files`). Saying a metric as units instead of a number lets the platform give every one its interval and
standard error by bootstrap over videos, whatever the benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Verdict:
    """One question, as a benchmark's own metric sees it.

    `prediction` None: no answer, because the video could not be used, the row was bad, or the model's reply could not be
    read; it is wrong, never left out. `type` None: a bad row whose type is not known; it counts in totals alone.
    `span`: seconds of the video file that the kept clues point at, None without any.
    """

    id: str
    video: str
    type: str | None
    options: tuple[str, ...] = ()
    answer: int | str | None = None
    prediction: int | str | None = None
    correct: bool = False
    span: tuple[float, float] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)  # of the example
    asked: bool = True  # False: it never reached the model
    hidden: bool = False  # its answer is not public: it counts nowhere, and is in the result file


@dataclass(frozen=True)
class Share:
    """sum(values) / sum(weights) over units (questions, pairs, ...); weights default to 1, so that it is a mean.

    `videos_U`: the video of every unit; one name may stand for several that were asked about together.
    """

    name: str
    videos_U: Sequence[str]
    values_U: Sequence[float]
    weights_U: Sequence[float] | None = None


@dataclass(frozen=True)
class MeanOf:
    """The unweighted (macro) mean of shares, those without units left out."""

    name: str
    of: tuple[str, ...]


Measure: TypeAlias = Share | MeanOf


def accuracy_share(name: str, verdicts: Sequence[Verdict]) -> Share:
    """The share of right answers."""
    return Share(name, [one.video for one in verdicts], [float(one.correct) for one in verdicts])
