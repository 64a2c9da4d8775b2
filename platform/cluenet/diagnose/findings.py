"""What `cluenet diagnose` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from cluenet.diagnose.draw_space import NAMES
from cluenet.metrics.biases import headlines
from cluenet.summary import findings_table


def tables(data: Mapping[str, Any]) -> Group:
    """Estimates of diagnostics.json, and the words of the layers."""
    asked = data["questions"]
    counts = f"{data['set']}: {asked['asked']} questions, {asked['right']} right, {asked['wrong']} wrong, {asked['unknown']} unknown"
    return Group(counts, *_tables(data))


def _tables(data: Mapping[str, Any]) -> Iterator[Table]:
    attention, space = data["attention"] or {}, data["space"] or {}
    block = {"perception": attention.get("scores") or {}, "proximity": space.get("nearest") or {}}
    lines = [
        (_about(words, attention.get("of")), _about(unit, attention.get("of")), *rest)
        for words, unit, *rest in headlines(block)
    ]
    if lines:
        yield findings_table("Where does it go wrong between seeing and answering?", lines)
    if data["lens"]:
        yield _lens(data["lens"])
    if space:
        yield _proximity(space)


def _about(words: str, of: str | None) -> str:
    """The same of the answer's attention, where there is none of clues."""
    if of != "answer":
        return words
    for clue, answer in (
        ("the peak of a clue's attention", "the peak of the answer's attention"),
        ("attention of a clue inside the region of its labelled clue", "attention of the answer inside labelled boxes"),
        ("stated clues", "answers"),
    ):
        words = words.replace(clue, answer)
    return words


def _lens(block: Mapping[str, Any]) -> Table:
    table = Table(
        "layer", "CCR@1 %", "CCR@5 %", "said first inside the boxes", "outside", title="What do the layers say?"
    )
    for row in block["words"]:
        rates = [f"{100 * one['rate']['value']:.1f}" for one in block["ccr"] if one["layer"] == row["layer"]]
        words = (", ".join(word for word, _ in row[where][:3]) for where in ("inside", "outside"))
        table.add_row(str(row["layer"]), *(rates or ["-", "-"]), *words)
    return table


def _proximity(block: Mapping[str, Any]) -> Table:
    groups = ("all", "right", "wrong")
    table = Table("mean cosine of", *groups, title=f"How near are {block['clues']} clues to question and answer?")
    for pair, row in block["proximity"].items():
        table.add_row(NAMES[pair], *(_estimate(row[group]) for group in groups))
    return table


def _estimate(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    ends = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['value']:.3f}{ends}"
