"""What the tests of the report share: runs to report, small and large, and a reader of pages."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import json_lines
from cluenet.evaluate.results import summarise
from cluenet.folders import write_manifest
from cluenet.recipe import Recipe
from helpers.evaluation import NO_CLUES, Silent, model_folder, prepared_test, recipe
from helpers.prepared import prepared_set
from helpers.samples import sample

VOID = {"meta", "img", "br", "link", "input"}
SETTINGS = {"questions_per_batch": 8, "bootstrap": 100, "shuffles": 0, "faithfulness": True}
TYPES = ("after", "causal", "count", "who")


class Page(HTMLParser):
    """Checks nesting, and collects attributes, text and the numbers in `data-value`."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> in {self.open[-3:]}, line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def find(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of tags whose attribute (class for cls) contains the wanted words."""
        names = {"cls": "class"}
        return [
            attrs for name, attrs in self.tags
            if name == tag and all(set(words.split()) <= set((attrs.get(names.get(key, key)) or "").split()) for key, words in wanted.items())
        ]  # fmt: skip

    @property
    def values(self) -> list[float]:
        return [float(value) for _, attrs in self.tags if (value := attrs.get("data-value")) not in (None, "None")]


def training_log() -> list[dict[str, Any]]:
    """Two stages of a logging.jsonl, of 300 and 12 steps."""
    lines = []
    for stage, steps in (("stage1", 300), ("stage2", 12)):
        for step in range(1, steps + 1):
            line = {"stage": stage, "step": step, "loss": 3 / step, "answer": 1.0, "concept": 2 / step, "lr": 0.01, "grad_norm": 1.0,
                    "labels/answer": 96, "seconds": 0.5, "samples_per_second": 190.0}  # fmt: skip
            scores = {"validation/accuracy": step / 1000, "validation/questions": 60} if step % 6 == 0 else {}
            lines.append({**line, **scores})
    return lines


def evaluated_runs(folder: Path) -> Path:
    """`run` and `base` in the folder, evaluated with real, untrained models on one prepared set; the run's log has two stages."""
    settings = recipe(evaluate=SETTINGS)
    prepared = prepared_test(folder / "store/prepared/abc", recipe=settings, clips=9, lost=2)
    for name, section in (("run", {"clue_filter": {"name": "top_k", "k": 1}}), ("base", NO_CLUES)):
        model = model_folder(folder / name / "model", recipe=settings, **section)
        _evaluate(settings, model, prepared, folder / name)
    (folder / "run/recipe.yaml").write_text(settings.to_yaml())
    (folder / "base/recipe.yaml").write_text(settings.to_yaml().replace("name: tiny", "name: base", 1))
    (folder / "run/logging.jsonl").write_text(json_lines(training_log()))
    return folder


def _evaluate(settings: Recipe, model: Path, prepared: Path, run: Path) -> None:
    out = run / "evaluation"
    evaluate(settings, model_folder=model, prepared=[prepared], out=out, progress=Silent, local=True)


def samples_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "evaluation/fake-test/samples.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------- invented runs


def invented_run(folder: Path, *, questions: int, clips: int, prepared: Path | None = None) -> Path:
    """A run folder with so many invented answers, faithfulness and diagnostics among them, and no model. `prepared`: its set."""
    prepared = prepared or prepared_set(folder / "store/prepared/abc", clips=clips, questions=(1,))
    keys = [f"{prepared.name}-{i:04d}" for i in range(clips)]
    lines = [_invented(number, keys[number % clips]) for number in range(questions)]
    results = summarise(lines, [], extracts=True, notes={}, resamples=1000)
    target = folder / "evaluation/fake-test"
    target.mkdir(parents=True)
    (target / "samples.jsonl").write_text(json_lines(lines))
    (target / "results.json").write_text(json.dumps(results))
    write_manifest(target, {"prepared": str(prepared), "model": str(folder / "model"), "bootstrap": 1000, "card": {}})
    (folder / "logging.jsonl").write_text(json_lines(training_log()))
    return folder


def _invented(number: int, clip: str) -> dict[str, Any]:
    rng = random.Random(number)
    prediction, utility = rng.choice((0, 0, 1)), [rng.gauss(0.2, 1), rng.gauss(0, 0.5)]
    line = sample(number, prediction=prediction, video=clip, type=TYPES[number % len(TYPES)])
    first = {**line["clues"][0], "gate": round(rng.random(), 4)}
    second = {
        **first,
        "text": "green leaves",
        "words": ["<t2>", "green", "leaves", "_"],
        "gate": round(rng.random(), 4),
        "kept": number % 3 > 0,
    }
    noise = {"source": "q1", "words": ["<t1>", "cyan"], "replaces": False, "after": rng.choice((0, 1)), "through": 0, "kept": False,
             "unfiltered": 0}  # fmt: skip
    curve = [0.9, 0.5, 0.25] if second["kept"] else [0.9, 0.3]
    worth = {"kind": "leave_one_out", "delta": 0.02, "promised": None, "utility": utility, "useful": [value > 0.02 for value in utility],
             "unfiltered": prediction}  # fmt: skip
    tests = {"order": list(range(len(curve) - 1)), "importance": [0.9, 0.4][: len(curve) - 1], "deletion": curve,
             "insertion": curve[::-1], "random": curve[::-1], "swap": {"donor": "q1", "prediction": 1, "target": 1},
             "edit": None, "noise": noise, "text_only": 0}  # fmt: skip
    lens = {"vocabulary": 100, "k": [1, 5], "words": []}
    return {**line, "clip": clip, "clues": [first, second], "faithfulness": tests,
            "diagnostics": {"energy": [None, None], "lens": lens, "proximity": None, "filter": worth}}  # fmt: skip
