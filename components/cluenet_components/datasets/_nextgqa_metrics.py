"""NExT-GQA's grounding metrics and result files, as `code/TempGQA/eval_ground.py` of https://github.com/doc-doc/NExT-GQA
has them, with one difference: a question without a span counts as 0 instead of being skipped.

A question has one predicted span and one or more labelled ones. IoU = |I| / |U|, IoP = |I| / |prediction|, each the best
over the labelled spans. Acc@GQA: right answer and IoP >= 0.5. Short spans make IoP high, so IoU is always beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluenet.verdicts import Measure, Share, Verdict, accuracy_share
from cluenet_components.datasets._nextqa_metrics import as_json, result_rows

Span = tuple[float, float]

GROUNDED_IOP = 0.5
THRESHOLDS = (0.3, 0.5)
NOWHERE = (-1.0, -1.0)
"""In the result file where there is no span: it overlaps nothing, and the official script does not skip it."""


def overlap(span: Span, truth: Span) -> tuple[float, float]:
    """(IoU, IoP) of two spans in seconds. A span of no length has IoU 0, and IoP 1 if it lies within the labelled one."""
    if span[0] == span[1]:
        return 0.0, float(truth[0] <= span[0] <= truth[1])
    common = max(0.0, min(span[1], truth[1]) - max(span[0], truth[0]))
    return common / (max(span[1], truth[1]) - min(span[0], truth[0])), common / (span[1] - span[0])


def best_overlap(verdict: Verdict) -> tuple[float, float]:
    """(IoU, IoP), each the best over `meta["spans"]`; (0, 0) without a predicted span."""
    found = [(0.0, 0.0)]
    if verdict.span is not None:
        found += [overlap(verdict.span, (start, end)) for start, end in verdict.meta.get("spans", ())]
    return max(iou for iou, _ in found), max(iop for _, iop in found)


def grounding(verdicts: Sequence[Verdict]) -> list[Measure]:
    """Acc@QA, and for a split with labelled spans all others; every one a mean over all these questions."""
    answers = accuracy_share("Acc@QA", verdicts)
    if not any("spans" in one.meta for one in verdicts):
        return [answers]
    pairs = [best_overlap(one) for one in verdicts]
    iou_U, iop_U = [iou for iou, _ in pairs], [iop for _, iop in pairs]
    both_U = [float(one.correct and iop >= GROUNDED_IOP) for one, iop in zip(verdicts, iop_U, strict=True)]
    videos = answers.videos_U
    return [answers, Share("Acc@GQA", videos, both_U), *_about("IoP", videos, iop_U), *_about("IoU", videos, iou_U)]


def _about(name: str, videos_U: Sequence[str], values_U: Sequence[float]) -> list[Measure]:
    """Mean, and the share that reaches each threshold."""
    reached = {at: [float(value >= at) for value in values_U] for at in THRESHOLDS}
    return [
        Share(f"m{name}", videos_U, values_U),
        *(Share(f"{name}@{at}", videos_U, hit) for at, hit in reached.items()),
    ]


def result_texts(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """{file name: text}: answers, and spans in seconds (`gs=False` of the official script)."""
    spans = {one.id: list(NOWHERE if one.span is None else one.span) for one in verdicts}
    return {"res.json": as_json(result_rows(verdicts)), "ground_ada.json": as_json(spans)}
