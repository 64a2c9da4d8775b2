"""`ask` on real small videos with the real tiny model, and how its answer is shown."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluenet.ask import AskResult, ask, decode, render, timeline
from cluenet.cli import call
from cluenet.decoding import FramePolicy
from cluenet.errors import CheckpointError, CluenetError, MediaError
from cluenet.model.checkpoint import CONFIG, POLICY
from cluenet.records import VideoRef
from cluenet.testing.videos import write_empty, write_frame_folder, write_garbage, write_video
from helpers.evaluation import NO_CLUES, model_folder, recipe

OPTIONS = ("red", "blue", "green")
PLUGIN = "helpers.bad_readers"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ask")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return model_folder(folder / "model", recipe=recipe())


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    path = folder / "video.mp4"
    write_video(path, _frames(), fps=8)
    return path


def _frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def result(model: Path, video: Path) -> AskResult:
    return ask(model, video, "which one hits red ?", OPTIONS)


def test_the_answer_is_the_most_probable_option(result: AskResult) -> None:
    assert sum(result.probabilities) == pytest.approx(1.0, abs=1e-5)
    assert result.index == int(np.argmax(result.probabilities))
    assert result.answer == OPTIONS[result.index]


def test_it_says_what_it_looked_at(result: AskResult, video: Path) -> None:
    assert (result.start_seconds, result.end_seconds) == (0.0, pytest.approx(2.0))
    assert len(result.frame_seconds) == 4
    assert result.policy["size"]["width"] == 48
    assert result.video == str(video)
    assert result.reader in ("decord", "pyav")
    assert set(result.seconds) == {"load", "decode", "answer"}
    for clue in (*result.clues, *result.dropped):
        assert 0 <= clue["start_seconds"] <= clue["end_seconds"] <= 2.0


def test_every_stated_clue_is_kept_or_dropped(video: Path, folder: Path) -> None:
    all_dropped = model_folder(folder / "strict", recipe=recipe(), clue_filter={"name": "adaptive", "threshold": 1.0})
    result = ask(all_dropped, video, "which one hits red ?", OPTIONS)
    assert result.clues == ()
    assert result.dropped
    assert not any(clue["kept"] for clue in result.dropped)


def test_json_is_the_whole_result(result: AskResult) -> None:
    values = json.loads(result.to_json())
    assert values["answer"] == result.answer
    assert values["options"] == list(OPTIONS)
    assert values["probabilities"] == pytest.approx(result.probabilities, abs=1e-6)
    assert [clue["text"] for clue in values["clues"]] == [clue["text"] for clue in result.clues]
    assert set(values) == set(vars(result))


def test_a_part_of_the_video_in_its_own_time(model: Path, video: Path) -> None:
    part = ask(model, video, "which one hits red ?", OPTIONS, start_seconds=1.0, end_seconds=2.0)
    assert min(part.frame_seconds) >= 1.0
    assert part.end_seconds == pytest.approx(2.0)
    for clue in (*part.clues, *part.dropped):
        assert 1.0 <= clue["start_seconds"] <= clue["end_seconds"] <= 2.01


def test_an_open_question_is_answered_in_words(model: Path, video: Path) -> None:
    result = ask(model, video, "which one hits red ?")
    assert (result.index, result.probabilities, result.options) == (None, (), ())
    assert isinstance(result.answer, str)


def test_a_model_without_clues(video: Path, folder: Path) -> None:
    direct = model_folder(folder / "direct", recipe=recipe(), **NO_CLUES)
    result = ask(direct, video, "which one hits red ?", OPTIONS)
    assert (result.clues, result.dropped) == ((), ())
    assert "The model states no clues." in _text(result)


def test_a_chain_that_was_written_first_is_shown(result: AskResult, video: Path, folder: Path) -> None:
    assert result.chain is None
    assert "Reasoning:" not in _text(result)
    writes = model_folder(folder / "writes", recipe=recipe(), reasoner={"name": "evidence", "generate_chain": True})
    reasoned = ask(writes, video, "which one hits red ?", OPTIONS)
    assert json.loads(reasoned.to_json())["chain"] == reasoned.chain
    assert "Reasoning:" in _text(reasoned)


def test_a_folder_of_frames(model: Path, folder: Path) -> None:
    write_frame_folder(folder / "frames", _frames())
    assert ask(model, folder / "frames", "which one hits red ?", OPTIONS, fps=8).end_seconds == pytest.approx(2.0)


def test_frames_pass_through_the_models_codec(video: Path) -> None:
    """A model trained on JPEGs is asked about JPEGs."""
    data = {"size": {"height": 32, "width": 48}, "sampler": {"name": "uniform", "frames": 4}}
    lossless, jpeg = (
        decode(VideoRef(str(video)), FramePolicy.from_section(recipe(data={**data, "codec": codec}).data))[
            0
        ].frames_THWC
        for codec in ("lossless", "jpeg95")
    )
    difference = np.abs(lossless.astype(int) - jpeg.astype(int))
    assert 0 < difference.mean() < 12


# ------------------------------------------------------------------------------------------- bad decoders


def bad_policy(fallback: str | None = None) -> FramePolicy:
    """A reader that does to videos of certain names what C++ decoders do."""
    policy = FramePolicy.from_section(recipe().data)
    return replace(policy, reader={"name": "bad"}, fallback=fallback and {"name": fallback})


def named(folder: Path, video: Path, name: str) -> Path:
    link = folder / f"{name}.mp4"
    if not link.exists():
        link.symlink_to(video)
    return link


def test_the_second_reader_is_tried(folder: Path, video: Path) -> None:
    broken = VideoRef(str(named(folder, video, "broken")))
    frames, reader = decode(broken, bad_policy("pyav"), plugins=[PLUGIN])
    assert reader == "pyav"
    assert frames.frames_THWC.shape == (4, 32, 48, 3)
    with pytest.raises(MediaError, match=r"corrupt: .*broken\.mp4: broken"):
        decode(broken, bad_policy(), plugins=[PLUGIN])


@pytest.fixture(scope="module")
def fragile(model: Path, folder: Path) -> Path:
    """The model as if it had been trained with the bad reader of a plug-in."""
    made = shutil.copytree(model, folder / "fragile")
    (made / POLICY).write_text(json.dumps(bad_policy().to_dict()))
    settings = json.loads((made / CONFIG).read_text())
    (made / CONFIG).write_text(json.dumps({**settings, "plugins": [PLUGIN]}))
    return made


def test_a_file_that_aborts_the_decoder_costs_an_error_message(
    fragile: Path, folder: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["which one hits red ?", "--option", "red", "--option", "blue"]
    assert call(["ask", str(fragile), str(named(folder, video, "abort")), *words]) == 2
    told = capfd.readouterr().err
    assert "crashed" in told
    assert "abort.mp4" in told
    assert "Traceback" not in told
    assert call(["ask", str(fragile), str(video), *words]) == 0


def test_a_file_that_hangs_costs_its_time_limit(fragile: Path, folder: Path, video: Path) -> None:
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"timeout: .*hang\.mp4: not decoded within 1 s by bad"):
        ask(fragile, named(folder, video, "hang"), "why ?", OPTIONS, decode_timeout_seconds=1.0)
    assert time.monotonic() - started < 60, "not the reader's 600 s"


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        ("why ?", ("red",), r"one option \('red'\) is not a choice. Give two or more, or none"),
        ("why ?", ("red", " "), "option 2 of 2 is empty"),
        ("why ?", tuple(map(str, range(27))), "27 options are more than the 26 letters"),
        (" ", (), "the question is empty"),
    ],
)
def test_questions_that_are_none(
    model: Path, video: Path, question: str, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CluenetError, match=message):
        ask(model, video, question, options)


def test_videos_that_cannot_be_read(model: Path, video: Path, folder: Path) -> None:
    with pytest.raises(MediaError, match=r"missing: nowhere\.mp4: no such file or folder"):
        ask(model, "nowhere.mp4", "why ?", OPTIONS)
    write_empty(folder / "empty.mp4")
    with pytest.raises(MediaError) as error:
        ask(model, folder / "empty.mp4", "why ?", OPTIONS)
    assert error.value.reason == "empty"
    write_garbage(folder / "garbage.mp4")
    with pytest.raises(MediaError, match=r"corrupt: .*garbage\.mp4"):
        ask(model, folder / "garbage.mp4", "why ?", OPTIONS)
    with pytest.raises(MediaError, match="outside"):
        ask(model, video, "why ?", OPTIONS, start_seconds=50.0)
    with pytest.raises(CluenetError, match=r"the clip ends at 1\.0 s, not after its start"):
        ask(model, video, "why ?", OPTIONS, start_seconds=1.0, end_seconds=1.0)


def test_a_folder_that_is_no_model(video: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a ClueNet model folder"):
        ask(tmp_path, video, "why ?", OPTIONS)


def test_a_model_folder_that_lacks_a_file_is_told_though_the_video_is_fine(
    model: Path, video: Path, tmp_path: Path
) -> None:
    made = shutil.copytree(model, tmp_path / "incomplete")
    (made / CONFIG).unlink()
    with pytest.raises(CheckpointError, match=f"no {CONFIG}"):
        ask(made, video, "why ?", OPTIONS)


# ------------------------------------------------------------------------------------------------- terminal


def _text(result: AskResult) -> str:
    with open("/dev/null", "w") as nowhere:
        console = Console(width=120, record=True, file=nowhere)
        console.print(render(result))
    return console.export_text()


def test_the_terminal_shows_options_clues_and_costs(result: AskResult) -> None:
    text = _text(result)
    for option, share in zip(OPTIONS, result.probabilities):
        assert any(option in line and f"{share:.1%}" in line for line in text.splitlines())
    for clue in (*result.clues, *result.dropped):
        assert clue["text"] in text
    assert f"4 frames of 0.00 - 2.00 s, read by {result.reader}. load" in text


@pytest.mark.parametrize(
    ("start", "end", "line"),
    [(0.0, 2.0, "████████"), (0.5, 1.0, "··██····"), (1.0, 1.0, "····█···"), (2.0, 2.0, "·······█"), (None, None, "")],
)
def test_timeline(result: AskResult, start: float | None, end: float | None, line: str) -> None:
    assert timeline({"start_seconds": start, "end_seconds": end}, result, width=8) == line
