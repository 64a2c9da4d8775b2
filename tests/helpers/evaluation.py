"""Model folders and prepared test sets for evaluation, reports and `ask`: tiny, untrained, no video file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cluenet.decoding import FramePolicy
from cluenet.folders import read_manifest, write_manifest
from cluenet.model.checkpoint import save_model
from cluenet.prepared import write_quarantine
from cluenet.recipe import Recipe
from cluenet.records import Example, Quarantined
from helpers.models import example, tiny_model
from helpers.prepared import prepared_set

NO_CLUES = {"clue_extractor": "none", "clue_filter": "keep_all", "reasoner": "direct"}


def recipe(**changes) -> Recipe:
    """The recipe of `helpers.models.tiny_model`; `evaluate` and other sections as keywords."""
    model = {
        "backbone": "tiny",
        "clue_extractor": {"name": "latent_slots", "slots": 2, "heads": 2},
        "clue_filter": "adaptive",
    }
    data = {"size": {"height": 32, "width": 48}, "sampler": {"name": "uniform", "frames": 4}}
    return Recipe.from_dict({"name": "tiny", "data": data, "model": model, **changes})


def model_folder(folder: Path, *, recipe: Recipe, seed: int = 0, **section) -> Path:
    """An untrained model with the recipe's frame policy; keywords are fields of the `model:` section."""
    policy = FramePolicy.from_section(recipe.data).to_dict()
    return save_model(
        tiny_model(seed, **section), folder, recipe={**recipe.to_dict(), "model": _section(recipe, section)}, frame_policy=policy,
        card={"training": "none"},
    )  # fmt: skip


def _section(recipe: Recipe, changes: dict) -> dict:
    return recipe.model.model_validate({**recipe.model.model_dump(), **changes}).model_dump(mode="json")


def prepared_test(
    folder: Path, *, recipe: Recipe, clips: int = 5, questions: Sequence[int] = (2, 3), split: str = "test", lost: int = 0,
    make: Callable[[int], Example] = example, labels: dict[str, int] | None = None, seed: int = 0,
) -> Path:  # fmt: skip
    """A prepared set with the recipe's frame policy, and `lost` quarantined questions about videos of their own."""
    prepared_set(folder, clips=clips, questions=questions, make=make, labels=labels, seed=seed)
    policy = FramePolicy.from_section(recipe.data)
    manifest = read_manifest(folder)
    ready = manifest["rows"]["ready"]
    rows = [
        Quarantined(f"{folder.name}/lost{i}", "fake", f"lost{i}.mp4", "missing", "no such file") for i in range(lost)
    ]
    write_quarantine(folder, rows)
    write_manifest(folder, {
        **manifest, "dataset": {"name": "fake", "split": split}, "policy": policy.to_dict(),
        "policy_fingerprint": policy.fingerprint(), "rows": {"in": ready + lost, "ready": ready, "quarantined": lost},
        "quarantined": {"reasons": {"missing": lost} if lost else {}, "readers": {}},
    })  # fmt: skip
    return folder


class Silent:
    """A progress display that shows nothing and counts."""

    def __init__(self, title: str, total: int | None = None, unit: str = "items"):
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        Silent.last = self

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def advance(self, n: int = 1, **values: float) -> None:
        self.done += n

    def update(self, done: int, total: int | None = None, **values: float) -> None:
        self.done, self.total = done, self.total if total is None else total

    last: Silent
