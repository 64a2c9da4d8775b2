"""What a stage can be taught, found out before any worker starts: its loss terms, the labels of its training data, and the
components of its model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from cluenet.config.model import ModelSection
from cluenet.config.train import Stage
from cluenet.errors import SupervisionError
from cluenet.folders import read_manifest
from cluenet.recipe import Recipe
from cluenet.train.cut_labels import NOTHING, Cut, cut_of

LABEL_OF = {
    "answer": "answer", "chain": "chain", "concept": "clues", "attention": "boxes", "span": "times", "presence": "clues",
    "filter": "answer", "alignment": "answer", "counterfactual": "answer",
}  # fmt: skip
"""The count under `labels` in a prepared set's manifest that a loss term is taught by."""

TIES = ("alignment", "counterfactual")
"""Loss terms that need clues to be read, whoever states them."""

State = Literal["taught", "no labels", "not applicable", "off"]


@dataclass(frozen=True)
class Term:
    """One loss term of a stage. `labels` of `questions` training questions can teach it."""

    name: str
    weight: float
    state: State
    labels: int
    questions: int
    reason: str = ""  # why it does not apply

    def __str__(self) -> str:
        if self.state == "taught":
            masked = self.questions - self.labels
            rest = f", masked for the other {masked}" if masked else ""
            return f"{self.name} x {self.weight:g}: {self.labels} of {self.questions} questions have labels{rest}"
        if self.state == "no labels":
            return f"{self.name} x {self.weight:g}: masked everywhere, none of {self.questions} questions has labels"
        if self.state == "not applicable":
            return f"{self.name} x {self.weight:g}: does not apply, {self.reason}"
        return f"{self.name}: off"


@dataclass(frozen=True)
class Supervision:
    stage: str
    terms: tuple[Term, ...]
    notes: tuple[str, ...] = ()
    cut: Cut = NOTHING

    def lines(self) -> list[str]:
        """What is taught, masked and left out, in words; terms that are switched off are not mentioned."""
        return [f"{self.stage}: {term}" for term in self.terms if term.state != "off"] + [
            f"{self.stage}: {note}" for note in self.notes
        ]

    def to_dict(self) -> dict[str, Any]:
        return {"terms": [asdict(term) for term in self.terms], "notes": list(self.notes), "cut": asdict(self.cut)}


def supervision_of(recipe: Recipe, stage_name: str, train: Sequence[str | Path]) -> Supervision:
    """What the stage can learn from these prepared sets. Raises SupervisionError when that is nothing."""
    stage, model = getattr(recipe.train, stage_name), recipe.model
    cut = cut_of(model.clue_extractor, train) if uses_clue_labels(stage, model) else NOTHING
    return supervise(stage_name, stage, model, [read_manifest(folder) for folder in train], cut)


def supervise(
    stage_name: str, stage: Stage, model: ModelSection, manifests: Sequence[Mapping[str, Any]], cut: Cut = NOTHING
) -> Supervision:
    """What `stage` can learn from prepared training sets with these manifests, of whose clue labels `cut` has no room.

    Raises SupervisionError when that is nothing.
    """
    labels = _sum(manifest["labels"] for manifest in manifests)
    questions = sum(int(manifest["rows"]["ready"]) for manifest in manifests)
    terms = tuple(
        _term(name, weight, _labelled(name, stage, model, labels), questions, _obstacle(name, stage, model))
        for name, weight in stage.losses.model_dump().items()
    )
    if not any(term.state == "taught" for term in terms):
        raise SupervisionError(_nothing(stage_name, terms, labels, questions))
    if writes_chains(model) and not labels.get("chain"):
        raise SupervisionError(_NO_CHAIN.format(questions=questions, stage=stage_name))
    notes = (*_notes(stage, model, labels, questions), *cut.notes(model.clue_extractor))
    return Supervision(stage_name, terms, notes, cut)


def extracts(model: ModelSection) -> bool:
    """Whether the model learns to state clues that its reasoner reads: a learned extractor is a torch module (contracts)."""
    return issubclass(model.clue_extractor.component, nn.Module) and model.reasoner.component.sees_clues


def states_its_own(model: ModelSection) -> bool:
    """Whether the clues that its reasoner reads come from the video, by training or without."""
    return extracts(model) or (model.clue_extractor.component.training_free and model.reasoner.component.sees_clues)


def has_clues(model: ModelSection) -> bool:
    """Whether its reasoner reads clues at all, learned or from the labels."""
    return model.clue_extractor.name != "none" and model.reasoner.component.sees_clues


def writes_chains(model: ModelSection) -> bool:
    """Whether its reasoner writes a chain before it answers."""
    return bool(model.reasoner.to_dict().get("generate_chain"))


def uses_clue_labels(stage: Stage, model: ModelSection) -> bool:
    """Whether clue labels are taught or read in this stage."""
    weights = stage.losses.model_dump()
    taught = extracts(model) and any(weights[name] for name in weights if LABEL_OF[name] in ("clues", "boxes", "times"))
    read = has_clues(model) and (stage.clues == "truth" or not states_its_own(model) or any(stage.truth_share))
    return taught or read


def _reads_truth(stage: Stage, model: ModelSection) -> bool:
    """Whether the reasoner reads ground-truth clues and no others."""
    return has_clues(model) and (stage.clues == "truth" or not states_its_own(model))


def _labelled(name: str, stage: Stage, model: ModelSection, labels: Mapping[str, int]) -> int:
    """How many questions can teach a term: what ties answers to ground-truth clues needs both."""
    count = labels.get(LABEL_OF[name], 0)
    return min(count, labels.get("clues", 0)) if name in TIES and _reads_truth(stage, model) else count


def _term(name: str, weight: float, labels: int, questions: int, obstacle: str | None) -> Term:
    if not weight:
        return Term(name, weight, "off", labels, questions)
    if obstacle:
        return Term(name, weight, "not applicable", labels, questions, obstacle)
    return Term(name, weight, "taught" if labels else "no labels", labels, questions)


def _obstacle(name: str, stage: Stage, model: ModelSection) -> str | None:
    """Why a term cannot be computed with these components, whatever the labels."""
    if name in ("answer", "chain"):
        return None
    if not model.reasoner.component.sees_clues:
        return f"the reasoner `{model.reasoner.name}` reads no clues"
    if name in TIES:
        return None if has_clues(model) else f"the clue extractor `{model.clue_extractor.name}` states no clues"
    if name != "filter":
        return _untaught(name, model)
    if not states_its_own(model):
        return f"the clue extractor `{model.clue_extractor.name}` states no clues of its own"
    if not model.clue_filter.component.learned:
        return f"the clue filter `{model.clue_filter.name}` has no gate"
    return None if stage.clues == "own" else "the filter is taught on the model's own clues, and `clues` is `truth`"


def _untaught(name: str, model: ModelSection) -> str | None:
    """Why a clue loss teaches the clue extractor nothing."""
    extractor = model.clue_extractor
    if not extracts(model):
        return f"the clue extractor `{extractor.name}` learns nothing"
    if name in extractor.component.taught_by(extractor):
        return None
    hint = " (set `presence: learned`)" if name == "presence" and "presence" in type(extractor).model_fields else ""
    return f"the clue extractor `{extractor.name}` is not taught by it{hint}"


def _notes(stage: Stage, model: ModelSection, labels: Mapping[str, int], questions: int) -> Iterable[str]:
    """What is legal, and most likely not meant."""
    without = questions - labels.get("clues", 0)
    if _reads_truth(stage, model) and without:
        yield f"the reasoner reads ground-truth clues, and {without} of {questions} questions have none labelled"
    without_chain = questions - labels.get("chain", 0)
    if writes_chains(model) and without_chain:
        yield f"{without_chain} of {questions} questions have no labelled chain: their answers are taught after an empty one"
    scores_presence = extracts(model) and "presence" in model.clue_extractor.component.taught_by(model.clue_extractor)
    if scores_presence and not stage.losses.presence:
        yield "the presence score, which tells what slots have something to say, is not taught: losses.presence is 0"


_NO_CHAIN = (
    "{stage}: model.reasoner.generate_chain is true, and none of {questions} training questions has a labelled chain, so that "
    "the model cannot learn to write one. Set `data.clue_source` to one that brings chains, or generate_chain to false."
)


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for row in counts:
        for name, count in row.items():
            total[name] = total.get(name, 0) + count
    return total


def _nothing(stage_name: str, terms: Sequence[Term], labels: Mapping[str, int], questions: int) -> str:
    losses = f"train.{stage_name}.losses"
    if all(term.state == "off" for term in terms):
        return f"{losses}: every weight is 0, so there is nothing to learn. Give one of {', '.join(LABEL_OF)} a weight."
    used = "\n".join(f"  {term}" for term in terms if term.state != "off")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(labels.items())) or "none"
    return (
        f"{stage_name} has nothing to learn from: no term of {losses} has both labels and a component that it teaches.\n"
        f"{used}\nLabels among {questions} training questions: {counts}.\n"
        "Set `data.clue_source` to one that brings the missing labels, give weight to a term that has some, or set "
        f"`train.{stage_name}.steps: 0` to skip the stage."
    )
