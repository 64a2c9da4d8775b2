"""NExT-QA, multiple choice: https://github.com/doc-doc/NExT-QA (annotations MIT; the videos are VidOR's, under its terms).

Format: `dataset/nextqa/{train,val,test}.csv` of that repository, with `video` (digits, kept as text), `question`,
`answer` (0..4), `qid` (a number that is unique only within its video), `type`, `a0` ... `a4`; or the {train,val}.json
that SeViLA makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from cluenet.errors import DataError
from cluenet.registry import register
from cluenet.verdicts import Measure, Verdict
from cluenet_components._files import existing_file, existing_folder
from cluenet_components.datasets._nextqa_dataset import NextQaFamily
from cluenet_components.datasets._nextqa_metrics import accuracies, as_json, result_rows
from cluenet_components.datasets._nextqa_rows import is_sevila, official_rows, sevila_rows
from cluenet_components.datasets._rows import BadRowError, Row

ADVICE = "Take the multiple-choice csv of doc-doc/NExT-QA."
ANSWERS = ("0", "1", "2", "3", "4")
SUFFIXES = (".csv", ".json", ".jsonl")


@register.dataset("nextqa")
class NextQaDataset(NextQaFamily):
    """NExT-QA multiple choice: five options per question; causal, temporal and descriptive types.

    Reads the official csv, or SeViLA's JSON of the same questions; both give the same examples. Ids are `<video>_<qid>`,
    the key of the official result files. A video is looked for as `<videos>/<vidor folder>/<id>` (the raw archive, through
    the repository's map_vid_vidorID.json) and as `<videos>/<id>` (flat copies), with .mp4, .mkv, .avi or .webm, or as a
    folder of frames. One that is nowhere keeps the path it should have, and is counted as missing when it is opened.

    Metric and result file are those of the repository's eval_mc.py. Bad rows are quarantined: malformed,
    answer_outside_options, bad_options, unknown_type, no_fps, corrupt_archive.
    """

    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {
        "train": {"questions": 34132},
        "val": {"questions": 4996, "videos": 570, "CW": 1924, "CH": 683, "TN": 895, "TC": 663, "TP": 54, "DL": 295,
                "DO": 305, "DC": 177},
        "test": {"questions": 8564, "videos": 1000, "CW": 3329, "CH": 1173, "TN": 1399, "TC": 1165, "TP": 93, "DL": 483,
                 "DO": 600, "DC": 322},
    }  # fmt: skip

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        return accuracies(verdicts)

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        return {"result.json": as_json(result_rows(verdicts))}

    def _files(self) -> list[Path]:
        folder = existing_folder(self.config.folder, "nextqa.folder")
        found = [file for suffix in SUFFIXES if (file := folder / f"{self._split}{suffix}").is_file()]
        if len(found) > 1:
            names = " and ".join(file.name for file in found)
            raise DataError(f"nextqa.folder: {folder} has {names}, which may differ. Keep one of them there.")
        return found or [existing_file(folder / f"{self._split}.csv", "nextqa.folder")]

    def _rows(self) -> Iterator[Row]:
        (file,) = self._files()
        return sevila_rows(file) if is_sevila(file) else official_rows(file, ADVICE)

    def _answer(self, row: Row) -> int:
        answer = row.value["answer"]
        if answer not in ANSWERS:
            raise BadRowError("answer_outside_options", f"answer {answer!r} is none of {', '.join(ANSWERS)}")
        return int(answer)
