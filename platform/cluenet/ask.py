"""One question about one video: decode it as the model was trained, answer, and show the clues behind the answer. Ray-free.

The video is decoded in a process of its own: one that hangs or aborts the decoder costs an error message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluenet.config.data import DataSection
from cluenet.decoding import FramePolicy, decode_frames, encode_frames
from cluenet.errors import CluenetError, MediaError
from cluenet.isolation import IsolatedDecoder
from cluenet.model.checkpoint import load_model, read_frame_policy, read_plugins
from cluenet.model.pipeline import ClueNet
from cluenet.plain import clue_row, rounded
from cluenet.records import Answer, Example, Frames, VideoRef

Result = TypeVar("Result")
MOST_OPTIONS = 26
DECODE_SECONDS: float = DataSection.model_fields["decode_timeout_seconds"].default
"""Time limit of one reader."""
TIMELINE = 32
"""Characters of a clue's timeline on the terminal."""


@dataclass(frozen=True)
class AskResult:
    """An answer with its reasons, as plain values. Times are seconds of the video file."""

    question: str
    options: tuple[str, ...]
    answer: str
    index: int | None  # of the answer among the options, None for an open question
    probabilities: tuple[float, ...]
    clues: tuple[dict[str, Any], ...]  # {text, words, start_seconds, end_seconds, box, gate, kept} that the answer used
    dropped: tuple[dict[str, Any], ...]  # stated, and not kept by the filter
    chain: str | None  # what the model wrote before it answered, None where it writes nothing
    video: str
    start_seconds: float
    end_seconds: float
    frame_seconds: tuple[float, ...]
    reader: str  # which one read the video
    policy: dict[str, Any]
    model: str
    seconds: dict[str, float]  # load and decode (at the same time), answer

    def to_dict(self) -> dict[str, Any]:
        return dict(rounded(vars(self)))

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)


def ask(
    model_folder: str | Path, video: str | Path, question: str, options: Sequence[str] = (), *, start_seconds: float = 0.0,
    end_seconds: float | None = None, fps: float | None = None, device: str = "cpu",
    decode_timeout_seconds: float = DECODE_SECONDS,
) -> AskResult:  # fmt: skip
    """Ask a trained model. `options` empty: an open question. `fps`: only for a folder of numbered frames.

    It starts a process: in a script, call it below `if __name__ == "__main__":`. Raises CluenetError for a question that is
    none, CheckpointError for a folder that is no model, MediaError for a video that cannot be read, also where it hangs
    (`timeout`) or ends (`crashed`) its decoder.
    """
    example = example_of(str(video), question, options, start_seconds, end_seconds, fps)
    if not Path(video).exists():
        raise MediaError("missing", f"{video}: no such file or folder. Check the path; it is relative to {Path.cwd()}")
    policy = FramePolicy.from_dict(read_frame_policy(model_folder))
    with ThreadPoolExecutor(1) as background:  # decoding starts a process, which takes about as long as loading
        loading = background.submit(_timed, lambda: load_model(model_folder, device=device))
        (frames, reader), decode_seconds = _timed(
            lambda: decode(
                example.video, policy, plugins=read_plugins(model_folder), timeout_seconds=decode_timeout_seconds
            )
        )
        model, load_seconds = loading.result()
    answer, answer_seconds = _timed(lambda: _answer(model, frames, example, device))
    rows = [clue_row(clue, start_seconds) for clue in answer.clues]
    index = answer.prediction if isinstance(answer.prediction, int) else None
    return AskResult(
        question=question, options=example.options, answer=str(answer.prediction) if index is None else example.options[index],
        index=index, probabilities=answer.option_probabilities,
        clues=tuple(row for row in rows if row["kept"]), dropped=tuple(row for row in rows if not row["kept"]),
        chain=answer.chain, video=str(video), start_seconds=start_seconds, end_seconds=start_seconds + frames.duration_seconds,
        frame_seconds=tuple((frames.seconds_T + start_seconds).tolist()), reader=reader, policy=policy.to_dict(),
        model=str(model_folder),
        seconds={"load": load_seconds, "decode": decode_seconds, "answer": answer_seconds},
    )  # fmt: skip


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _answer(model: ClueNet, frames: Frames, example: Example, device: str) -> Answer:
    batch = model.collate([(frames, [example])], seed=0, shuffle_options=False).to(device)
    (answer,) = model.predict(batch)
    return answer


def example_of(
    video: str,
    question: str,
    options: Sequence[str] = (),
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    fps: float | None = None,
) -> Example:
    """A question that nobody knows the answer to. Raises CluenetError for one that cannot be asked, saying why."""
    if len(options) == 1:
        raise CluenetError(
            f"one option ({options[0]!r}) is not a choice. Give two or more, or none to get an answer in words."
        )
    if len(options) > MOST_OPTIONS:
        raise CluenetError(
            f"{len(options)} options are more than the {MOST_OPTIONS} letters that name them. Give fewer."
        )
    if blank := [index for index, option in enumerate(options) if not option.strip()]:
        raise CluenetError(f"option {blank[0] + 1} of {len(options)} is empty. Every option needs words.")
    try:
        return Example("ask", "ask", VideoRef(video, start_seconds, end_seconds, fps), question, tuple(options))
    except ValueError as error:
        raise CluenetError(f"the question cannot be asked: {error}") from None


def decode(
    video: VideoRef, policy: FramePolicy, *, plugins: Sequence[str] = (), timeout_seconds: float = DECODE_SECONDS
) -> tuple[Frames, str]:
    """Frames exactly as a prepared set would hold them, and the reader that delivered. Raises MediaError of the last one."""
    job = (video.path, video.fps, ((video.start_seconds, video.end_seconds),))
    with IsolatedDecoder(policy, timeout_seconds=timeout_seconds, plugins=plugins) as decoder:
        (decoded,) = decoder.decode([job])
    (outcome,) = decoded.outcomes
    if isinstance(outcome, MediaError):
        raise outcome
    return decode_frames(encode_frames(outcome, policy.codec)), str(decoded.reader)


# ----------------------------------------------------------------------------------------------- for the terminal


def render(result: AskResult) -> Group:
    """Answer, options, clues on a time line, and what it took; print it with rich."""
    parts: list[Any] = [Text(result.question, style="italic"), Text(f"\n{result.answer}\n", style="bold green")]
    if result.options:
        parts.append(_options(result))
    parts.append(_clues(result) if result.clues or result.dropped else Text("The model states no clues.", style="dim"))
    if result.chain is not None:
        parts.append(Text(f"\nReasoning: {result.chain}"))
    parts.append(Text(_facts(result), style="dim"))
    return Group(*parts)


def _options(result: AskResult) -> Table:
    table = Table("", "option", "probability", "", box=None)
    for index, (option, share) in enumerate(zip(result.options, result.probabilities)):
        style = "bold green" if index == result.index else None
        table.add_row(f"({chr(65 + index)})", Text(option), f"{share:.1%}", "█" * round(share * 20), style=style)
    return table


def _clues(result: AskResult) -> Table:
    table = Table(
        "clue", "seconds", "when", "gate", "", title="What the answer rests on", title_justify="left", box=None
    )
    for row in (*result.clues, *result.dropped):
        gate = "" if row["gate"] is None else f"{row['gate']:.2f}"
        verdict, style = ("kept", None) if row["kept"] else ("dropped", "dim")
        table.add_row(Text(row["text"]), _span(row), Text(timeline(row, result)), gate, verdict, style=style)
    return table


def _span(row: dict[str, Any]) -> str:
    return "" if row["start_seconds"] is None else f"{row['start_seconds']:.2f} - {row['end_seconds']:.2f}"


def timeline(row: dict[str, Any], result: AskResult, width: int = TIMELINE) -> str:
    """ "····████····": where in the clip a clue holds, at least one mark wide; empty for a clue without times."""
    if row["start_seconds"] is None:
        return ""
    length = max(result.end_seconds - result.start_seconds, 1e-9)
    first, last = (
        min(max((float(row[name]) - result.start_seconds) / length, 0.0), 1.0) * width
        for name in ("start_seconds", "end_seconds")
    )
    begin = min(int(first), width - 1)
    end = max(begin + 1, min(width, round(last)))
    return "·" * begin + "█" * (end - begin) + "·" * (width - end)


def _facts(result: AskResult) -> str:
    took = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result.seconds.items())
    clip = f"{result.start_seconds:.2f} - {result.end_seconds:.2f} s"
    return f"\n{len(result.frame_seconds)} frames of {clip}, read by {result.reader}. {took}."
