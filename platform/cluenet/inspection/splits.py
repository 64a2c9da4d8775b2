"""Which splits of a dataset are on disk: tried one after the other, each read once."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from cluenet.contracts import Dataset
from cluenet.errors import CluenetError, DataError, MissingDataError, Problem, RecipeError, suggestion
from cluenet.inspection.facts import SplitFacts
from cluenet.plugins import load_components
from cluenet.problems import problems_of
from cluenet.progress import Progress
from cluenet.records import content_hash
from cluenet.registry import ComponentConfig, register

COMMON = ("train", "validation", "val", "test")
"""Tried where a dataset does not list its splits."""
SYNONYMS = {"val": "validation", "validation": "val"}
PATH_SETTINGS = ("folder", "files", "file", "path")
"""The setting that PATH stands for: the first one that the dataset has."""
ROWS_BETWEEN_UPDATES = 500


@dataclass(frozen=True)
class Source:
    """A dataset as the command line names it."""

    component: type[Dataset]
    settings: Mapping[str, Any]  # without `split`, unless it was asked for

    @property
    def name(self) -> str:
        return self.component.name

    def config(self, split: str) -> ComponentConfig:
        """Raises RecipeError with every setting that is wrong or lacking."""
        Config = self.component.Config
        try:
            return Config.model_validate({**self.settings, "split": split})
        except ValidationError as error:
            raise RecipeError(f"inspect {self.name}", problems_of(error, Config)) from None

    def split_names(self) -> Sequence[str]:
        """The one that was asked for, those that the dataset lists, or the common ones."""
        if "split" in self.settings:
            return (str(self.settings["split"]),)
        annotation = self.component.Config.model_fields["split"].annotation
        return _without_synonyms(get_args(annotation)) if get_origin(annotation) is Literal else COMMON

    def official(self, split: str) -> Mapping[str, int]:
        """What the dataset's authors state of a split, under either word for validation."""
        counts = self.component.official_counts
        return counts.get(split) or counts.get(SYNONYMS.get(split, split), {})


def _without_synonyms(names: Sequence[str]) -> Sequence[str]:
    """A dataset that lists both val and validation means the same by them: the first one stays."""
    both = [name for name in names if name in SYNONYMS]
    return [name for name in names if name not in both[1:]]


def source_of(name: str, words: Sequence[str]) -> Source:
    """words: PATH and key=value, in any order. Raises CluenetError for an unknown dataset, RecipeError for wrong words."""
    load_components()
    if name not in register.dataset:
        raise CluenetError(f"no dataset named {name!r}. {suggestion(name, register.dataset, label='Datasets')}")
    component: type[Dataset] = register.dataset[name]
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    settings = dict(_setting(word) for word in words if word not in paths)
    if len(paths) > 1:
        message = f"one PATH is wanted, not {', '.join(paths)}. Quote what belongs to --against: 'NAME PATH'"
        raise RecipeError(f"inspect {name}", [Problem("", message)])
    if paths:
        settings[_path_setting(component)] = paths[0]
    return Source(component, settings)


def words_of(text: str) -> tuple[str, list[str]]:
    """`nextqa data/nextqa videos=films`, quoted as a shell wants it -> (name, words). Raises RecipeError."""
    try:
        name, *words = shlex.split(text)
    except ValueError as error:
        message = f"{text!r}: {error}. Write: --against 'NAME PATH KEY=VALUE'"
        raise RecipeError("command line", [Problem("--against", message)]) from None
    return name, words


def _setting(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError("command line", [Problem(key, f"cannot be set to {value!r}: {error}")]) from None


def _path_setting(component: type[Dataset]) -> str:
    fields = component.Config.model_fields
    found = next((name for name in PATH_SETTINGS if name in fields), None)
    if found is None:
        settings = ", ".join(fields)
        message = f"none of its settings takes PATH; give them as key=value. Settings: {settings}"
        raise RecipeError(f"inspect {component.name}", [Problem("", message)])
    return found


@dataclass(frozen=True)
class Splits:
    """The splits that were read by name, and why the others were not: not there, or unreadable."""

    read: Mapping[str, SplitFacts]
    absent: Mapping[str, str]
    broken: Mapping[str, str]


def read_splits(source: Source, progress: type[Progress]) -> Splits:
    """Every split once, whatever its names (val, validation). Raises DataError when none is there, RecipeError."""
    read: dict[str, SplitFacts] = {}
    absent: dict[str, str] = {}
    broken: dict[str, str] = {}
    contents: set[str] = set()
    for split in source.split_names():
        try:
            facts, content = _facts(source, split, progress)
        except MissingDataError as error:
            absent[split] = str(error)
        except DataError as error:
            broken[split] = str(error)
        else:
            if content not in contents:
                read[split] = facts
            contents.add(content)
    if not read:
        raise DataError([*broken.values(), *absent.values()][0])
    return Splits(read, absent, broken)


def _facts(source: Source, split: str, progress: type[Progress]) -> tuple[SplitFacts, str]:
    """The facts of a split, and what tells it from others."""
    dataset: Dataset = source.config(split).build()
    facts = SplitFacts()
    with progress(f"Reading {source.name} {split}", total=None, unit="rows") as display:
        for row in islice(dataset.described(), dataset.config.max_samples):  # type: ignore[attr-defined]
            facts.add(row)
            if facts.rows % ROWS_BETWEEN_UPDATES == 0:
                display.advance(ROWS_BETWEEN_UPDATES)
        display.advance(facts.rows % ROWS_BETWEEN_UPDATES)
    return facts, content_hash(dataset.sources(), sorted(facts.ids))
