"""From a run to the files of its `diagnostics/` folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluenet.diagnose.attention import attention_block
from cluenet.diagnose.draw_attention import FramesOf, draw_attention, draw_looking
from cluenet.diagnose.draw_lens import draw_lens
from cluenet.diagnose.draw_space import draw_space
from cluenet.diagnose.lens import lens_block
from cluenet.diagnose.looking import Looker, Seen
from cluenet.diagnose.questions import Source, chosen, source_of
from cluenet.diagnose.space import space_block
from cluenet.folders import atomic_write_text
from cluenet.metrics.biases import biases
from cluenet.metrics.statistics import RESAMPLES
from cluenet.plain import rounded
from cluenet.progress import Progress

FORMAT = 1
FOLDER, DATA = "diagnostics", "diagnostics.json"


def diagnose(
    run: Path, *, name: str | None = None, questions: int = 200, seed: int = 0, progress: type[Progress] = Progress
) -> tuple[Path, dict[str, Any]]:
    """Write `<run>/diagnostics/` (see the package) and return it with what diagnostics.json holds.

    name: of an evaluated test set, by default the first. questions: so many at most, of clips chosen by `seed`.
    Raises DataError where nothing was evaluated or a prepared set is damaged, CheckpointError for a model that cannot be
    loaded, StorageError.
    """
    run = Path(run).absolute()
    source = source_of(run, name)
    looker = Looker(source)
    batches, seen = chosen(source.prepared, questions, seed), []
    with progress(f"Looking at {source.name}", total=_count(batches), unit="questions") as display:
        for parts in batches:
            seen += looker(parts)
            display.advance(_count([parts]))
    data = rounded(_data(source, looker, seen, seed))
    folder = run / FOLDER
    _clear(folder)
    data["files"] = sorted(_draw(data, source.prepared.frames, folder))
    atomic_write_text(folder / DATA, json.dumps(data, allow_nan=False, ensure_ascii=False) + "\n")
    return folder, data


def _count(batches: Sequence[Sequence[Any]]) -> int:
    return sum(part.last - part.first for parts in batches for part in parts)


def _data(source: Source, looker: Looker, seen: Sequence[Seen], seed: int) -> dict[str, Any]:
    parts = _parts(looker, seen, seed)
    notes = {name: why for _, more in parts.values() for name, why in more.items()}
    verdicts = Counter({True: "right", False: "wrong", None: "unknown"}[one.sample["correct"]] for one in seen)
    return {
        "format": FORMAT, "run": source.run.name, "set": source.name, "model_address": source.model_address, "seed": seed,
        "questions": {"asked": len(seen), **{kind: verdicts[kind] for kind in ("right", "wrong", "unknown")}},
        "files": [], "notes": notes, **{name: block for name, (block, _) in parts.items()},
    }  # fmt: skip


def _parts(looker: Looker, seen: Sequence[Seen], seed: int) -> dict[str, tuple[dict[str, Any] | None, dict[str, str]]]:
    """Blocks of diagnostics.json by name, each with its notes; the figures of results.json come from the same code."""
    found = biases([one.as_sample() for one in seen], resamples=RESAMPLES)[0] or {}
    of, layer = looker.of, looker.answer_layer if looker.of == "answer" else None
    layers, clues = looker.model.vlm.layers, "stated" if looker.states_clues else "labelled"
    return {
        "attention": attention_block(seen, of=of, layer=layer, scores=found.get("perception", {}), seed=seed),
        "lens": lens_block(seen, word=looker.word, layers=layers, ccr=found.get("cognition", []), seed=seed),
        "space": space_block(seen, clues=clues, nearest=found.get("proximity"), resamples=RESAMPLES, seed=seed),
    }


def _clear(folder: Path) -> None:
    """Of what was drawn before: nothing of another test set may stand beside the new figures."""
    try:
        names = json.loads((folder / DATA).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return
    for name in (DATA, *names):
        (folder / name).unlink(missing_ok=True)


def _draw(data: dict[str, Any], frames_of: FramesOf, folder: Path) -> list[str]:
    names: list[str] = []
    if data["attention"] and data["attention"]["examples"]:
        names += draw_attention(data["attention"], frames_of, folder)
    if data["attention"] and data["attention"]["scores"]:
        names += draw_looking(data["attention"], folder)
    if data["lens"]:
        names += draw_lens(data["lens"], folder)
    if data["space"]:
        names += draw_space(data["space"], folder)
    return names
