"""Questions in the formats of instruction tuning: one's own data, without writing code.

data:
  train: [{name: messages, files: data/train.jsonl, video_root: videos}]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from cluenet.contracts import Dataset
from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, VideoRef
from cluenet.registry import register
from cluenet_components._files import existing_file, existing_folder, source_of
from cluenet_components._labels import Labels, problems
from cluenet_components.datasets._chat import Turn, read_chat
from cluenet_components.datasets._options import LETTERS, answer_index, split_options, without_letters
from cluenet_components.datasets._rows import BadRowError, Row, json_rows, number_field, rate_field
from cluenet_components.datasets._videos import NamedVideo, video_ref

LABEL_FIELDS = ("clues", "distractors", "chain")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Name = Annotated[str, Field(min_length=1)]
_Names = Annotated[
    tuple[_Name, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=_Name | list[_Name])
]


@register.dataset("messages")
class MessagesDataset(Dataset):
    """JSON Lines or JSON list rows as ms-swift, LLaMA-Factory, LLaVA, OpenAI and Qwen-VL write them.

    A row is a conversation about one video (`cluenet_components.datasets._chat` lists the shapes), or a `question`.
    Each (user, assistant) pair is an example of its own, `<row id>#<turn>` where there are several; earlier turns and
    system messages are not shown to the model, so a later turn that leans on them is kept but stands alone.

    Options come from the fields `options`, `choices` or `candidates`, or from the question's text; the answer from the
    field `answer` (index from 0, letter or text), or from what the assistant says where the row has no such field. Further fields: `id`, `question_id`
    or `qid`; `start` and `end` of the clip in seconds; `fps` of a video given by its frames; `type`; `pair`, a name that
    a question shares with those it must be right together with; `clues`, `distractors` and `chain`
    (`cluenet_components._labels`). Fields not named here are left alone.

    Bad rows are quarantined: malformed, no_video, several_videos, placeholder_mismatch, unsupported_media,
    unsupported_url, frame_list, no_fps, bad_bounds, no_answer, bad_options, answer_outside_options, no_options,
    ambiguous_fields, bad_clues.
    """

    class Config(Dataset.Config):
        files: _Names = Field(
            ..., description="The JSON Lines or JSON list file, or several; {split} in a name stands for the split."
        )
        video_root: str | None = Field(
            None, min_length=1, description="Folder that relative video paths start at; null: the folder of their file."
        )
        frame_list_fps: float | None = Field(
            None, gt=0, description="Frames per second of videos given as images, where their row has no fps."
        )
        label: str | None = Field(
            None, min_length=1, description="Name of these questions in results and clue files; null: messages."
        )
        split_field: str | None = Field(
            None, min_length=1, description="Row field that names its split; rows of other splits are left out."
        )
        id_fields: tuple[str, ...] = Field(
            ("id", "question_id", "qid"),
            description="Row fields that may hold its id, first found wins; otherwise <file name>-<line>.",
        )
        options_fields: tuple[str, ...] = Field(
            ("options", "choices", "candidates"), description="Row fields that may hold the options, first found wins."
        )
        answer_field: str = Field(
            "answer", min_length=1, description="Row field of the answer, instead of what the assistant says."
        )
        type_field: str = Field("type", min_length=1, description="Row field that holds the question's type.")
        parse_options: bool = Field(True, description="Look for lettered options in the question's text.")

    config: Config

    def rows(self) -> Iterator[Example | Quarantined]:
        seen: dict[str, str] = {}
        splits: set[str] = set()
        for file in self._files():
            root = self._root(file)
            for row in json_rows(file):
                if self._is_selected(row, splits):
                    for result in self._results(row, root):
                        _claim(result.id, f"{file} {row.where}", seen)
                        yield result
        if not seen:
            raise DataError(
                f"{', '.join(map(str, self._files()))}: empty dataset: no row has {self.config.split_field!r} = "
                f"{self.config.split!r}. Splits found: {', '.join(sorted(splits))}."
            )

    def sources(self) -> list[str]:
        return [source_of(file) for file in self._files()]

    @property
    def _label(self) -> str:
        return self.config.label or self.name

    def _files(self) -> list[Path]:
        names = (name.replace("{split}", self.config.split) for name in self.config.files)
        return [existing_file(name, "messages.files") for name in names]

    def _root(self, file: Path) -> Path:
        root = self.config.video_root
        return file.parent if root is None else existing_folder(root, "messages.video_root")

    def _is_selected(self, row: Row, splits: set[str]) -> bool:
        """Whether the row is of the wanted split; a row without a value is kept, so that it is accounted for."""
        if self.config.split_field is None or row.problem:
            return True
        split = row.value.get(self.config.split_field)
        if split is None:
            return True
        splits.add(str(split))
        return str(split) == self.config.split

    def _results(self, row: Row, root: Path) -> Iterator[Example | Quarantined]:
        row_id = self._id(row)
        try:
            if row.problem:
                raise BadRowError("malformed", row.problem)
            if self.config.split_field is not None and row.value.get(self.config.split_field) is None:
                raise BadRowError("malformed", f"{self.config.split_field} is missing, so the row's split is not known")
            turns, named = read_chat(row.value)
            video = self._video(row.value, named, root)
            self._check_turns(row.value, len(turns))
            labels = _labels(row.value)
        except BadRowError as bad:
            yield self._quarantined(row_id, row, bad)
            return
        for number, turn in enumerate(turns, start=1):
            example_id = f"{row_id}#{number}" if len(turns) > 1 else row_id
            try:
                yield self._example(example_id, row.value, turn, video, labels)
            except BadRowError as bad:
                yield self._quarantined(example_id, row, bad)

    def _check_turns(self, row: Mapping[str, Any], turns: int) -> None:
        """Fields about one question cannot stand in a row with several."""
        names = (*LABEL_FIELDS, "pair", *self.config.options_fields, self.config.answer_field)
        about_one = [name for name in names if row.get(name) is not None]
        if turns > 1 and about_one:
            detail = (
                f"{', '.join(about_one)} cannot be told to one of {turns} turns; give each question a row of its own"
            )
            raise BadRowError("ambiguous_fields", detail)

    def _id(self, row: Row) -> str:
        for name in self.config.id_fields:
            value = row.value.get(name)
            if isinstance(value, str | int) and str(value).strip():
                return str(value)
        return f"{row.file.stem}-{row.number}"

    def _video(self, row: Mapping[str, Any], named: NamedVideo, root: Path) -> VideoRef:
        start, end, fps = number_field(row, "start"), number_field(row, "end"), rate_field(row, "fps")
        clip = NamedVideo(
            named.name,
            named.fps or fps,
            named.start_seconds if start is None else start,
            named.end_seconds if end is None else end,
        )
        return video_ref(clip, root, self.config.frame_list_fps)

    def _example(self, example_id: str, row: Mapping[str, Any], turn: Turn, video: VideoRef, labels: Labels) -> Example:
        question, options = self._options(row, turn.question)
        given = row.get(self.config.answer_field)
        answer = turn.answer if given in (None, "") else given
        kind = row.get(self.config.type_field)
        try:
            return Example(
                id=example_id,
                dataset=self._label,
                video=video,
                question=question,
                options=options,
                answer=_answer(answer, options),
                type="all" if kind in (None, "") else str(kind),
                clues=labels.clues,
                distractors=labels.distractors,
                chain=labels.chain,
                meta=_meta(row),
            )
        except ValueError as error:
            raise BadRowError("malformed", str(error)) from None

    def _options(self, row: Mapping[str, Any], text: str) -> tuple[str, tuple[str, ...]]:
        """The question without its options, and the options: the row's own, or those of the text."""
        given = next((row[name] for name in self.config.options_fields if row.get(name)), None)
        stem, in_text = split_options(text) if self.config.parse_options else (text, ())
        options = in_text if given is None else _given_options(given)
        if in_text and in_text != options:
            raise BadRowError("bad_options", f"the question's text lists {list(in_text)}, its field {list(options)}")
        if not all(options):
            raise BadRowError("bad_options", f"an option is empty: {list(options)}")
        return stem, options

    def _quarantined(self, example_id: str, row: Row, bad: BadRowError) -> Quarantined:
        return Quarantined(example_id, self._label, str(row.file), bad.reason, f"{row.where}: {bad.detail}")


def _given_options(given: Any) -> tuple[str, ...]:
    if isinstance(given, Mapping) and list(given) == list(LETTERS[: len(given)]):  # {"A": "yes", "B": "no"}
        given = list(given.values())
    if not isinstance(given, list) or len(given) < 2 or not all(isinstance(option, str) for option in given):
        raise BadRowError("bad_options", f"options are a list of two or more texts, not {given!r:.200}")
    return without_letters(given)


def _answer(answer: Any, options: tuple[str, ...]) -> int | str:
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise BadRowError("no_answer", "no assistant message and no answer field")
    if options:
        try:
            return answer_index(answer, options)
        except ValueError as error:
            raise BadRowError("answer_outside_options", str(error)) from None
    if not isinstance(answer, str):
        raise BadRowError(
            "no_options", f"answer {answer!r:.80} is not text, and there are no options it could be an index of"
        )
    return answer.strip()


def _meta(row: Mapping[str, Any]) -> dict[str, Any]:
    pair = row.get("pair")
    if pair is not None and not (isinstance(pair, str) and pair.strip()):
        raise BadRowError("malformed", f"pair is {pair!r:.80}, must be the name that the questions of a pair share")
    return {} if pair is None else {"pair": pair}


def _labels(row: Mapping[str, Any]) -> Labels:
    given = {name: row[name] for name in LABEL_FIELDS if row.get(name) is not None}
    try:
        return Labels.model_validate_json(json.dumps(given))
    except ValidationError as error:
        raise BadRowError("bad_clues", "; ".join(problems(error, Labels))) from None


def _claim(example_id: str, place: str, seen: dict[str, str]) -> None:
    if example_id in seen:
        raise DataError(
            f"two examples have the id {example_id!r}: {seen[example_id]} and {place}. Give each row an id of its own, "
            "or set messages.id_fields: [] to number the rows instead."
        )
    seen[example_id] = place
