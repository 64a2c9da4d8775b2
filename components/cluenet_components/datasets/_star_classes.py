"""Names of STAR's classes: objects o###, relations r###, actions a###, and the verb and object of every action.

Format: the lines `<id> <name>` of `annotations/STAR_classes/*.txt` in https://github.com/csbobby/STAR_Benchmark; those of
`action_mapping.txt` are `<action id> <verb id> <object id>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluenet.errors import DataError
from cluenet_components._files import existing_file, text_lines

OBJECTS, RELATIONS, ACTIONS = "object_classes.txt", "relationship_classes.txt", "action_classes.txt"
MAPPING, VERBS = "action_mapping.txt", "verb_classes.txt"
OTHER_FILES = (RELATIONS, ACTIONS, MAPPING, VERBS)
ADVICE = "Take the class files of STAR (classes.zip), or set star.clues: false."


@dataclass(frozen=True)
class Classes:
    """Id -> name as the files have it (`closet/cabinet`, `in_front_of`, `hold some clothes`)."""

    objects: Mapping[str, str]
    relations: Mapping[str, str]
    actions: Mapping[str, str]
    doings: Mapping[str, tuple[str, str]]  # action id -> (verb, object id); {} without `action_mapping.txt`


def class_files(folder: Path) -> list[Path]:
    """Raises DataError when one that clues cannot do without is missing."""
    names = [OBJECTS, RELATIONS, ACTIONS, *([MAPPING, VERBS] if (folder / MAPPING).is_file() else [])]
    return [existing_file(folder / name, "star.classes (not needed with star.clues: false)") for name in names]


def read_classes(folder: Path) -> Classes:
    """Raises DataError for a missing file, and for a line that is none of its format."""
    files = {file.name: file for file in class_files(folder)}
    objects, relations, actions = (_names(files[name]) for name in (OBJECTS, RELATIONS, ACTIONS))
    return Classes(objects, relations, actions, _doings(files, objects) if MAPPING in files else {})


def _names(file: Path) -> dict[str, str]:
    names = {}
    for number, line in text_lines(file):
        key, _, name = line.strip().partition(" ")
        if not name.strip():
            raise DataError(f"{file}: line {number} is {line!r:.80}, must be an id and a name. {ADVICE}")
        names[key] = name.strip()
    return names


def _doings(files: Mapping[str, Path], objects: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    verbs = _names(files[VERBS])
    doings = {}
    for action, pair in _names(files[MAPPING]).items():
        verb, _, thing = pair.partition(" ")
        if verb not in verbs or thing.strip() not in objects:
            raise DataError(
                f"{files[MAPPING]}: {action} is {pair!r}, must be the ids of a verb and an object. {ADVICE}"
            )
        doings[action] = (verbs[verb], thing.strip())
    return doings
