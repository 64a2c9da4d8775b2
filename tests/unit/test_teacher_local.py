"""The teacher on this machine: its tokens and letters against Hugging Face's own generation, and its accounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from cluenet.errors import DataError
from cluenet.model.vlm import VisionLanguageModel
from cluenet.records import Clue, Frames
from cluenet_components._files import checkpoint_hash
from cluenet_components.clue_sources._teacher_cache import Request
from cluenet_components.clue_sources._teacher_local import LocalTeacher
from cluenet_components.clue_sources._teacher_replies import Reply
from cluenet_components.clue_sources.teacher import TeacherClues
from helpers.chat_server import proposal
from helpers.models import base_folder, clip, example

PROMPT = "which one hits red ? Options: (A) blue (B) green (C) cyan"


@pytest.fixture(scope="module")
def local() -> LocalTeacher:
    return LocalTeacher(str(base_folder()), max_tokens=16)


def inputs(frames: Frames | None) -> dict[str, torch.Tensor]:
    """Of Hugging Face's model, for the prompt as one string."""
    vlm = VisionLanguageModel.load(base_folder())
    head, between, after = vlm.chat_parts()
    if frames is None:
        ids = torch.tensor([vlm.ids(head + between + PROMPT + after)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    grid = vlm.grid(frames.frames_THWC, frames.seconds_T)
    ids = torch.tensor([vlm.video_ids(grid) + vlm.ids(PROMPT + after)])
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": vlm.pixels(frames.frames_THWC, grid),
        "video_grid_thw": vlm.grid_thw([grid]), "mm_token_type_ids": (ids == vlm.placeholder).int() * 2,
    }  # fmt: skip


def hugging_face() -> Any:
    return AutoModelForImageTextToText.from_pretrained(base_folder(), dtype=torch.float32).eval()


@torch.no_grad()
@pytest.mark.parametrize("frames", [clip(3), clip(4, frames=3, height=32, width=32), None])
def test_text_equals_hugging_faces_greedy_generation(local: LocalTeacher, frames: Frames | None) -> None:
    given = inputs(frames)
    ids = hugging_face().generate(**given, max_new_tokens=16, do_sample=False)[0, given["input_ids"].shape[1] :]
    expected = VisionLanguageModel.load(base_folder()).tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert local.ask(Request(PROMPT, frames)) == Reply(expected)
    assert len(ids) > 1


@torch.no_grad()
@pytest.mark.parametrize("frames", [clip(3), None])
def test_letters_equal_hugging_faces_log_probabilities(local: LocalTeacher, frames: Frames | None) -> None:
    logprobs_V = hugging_face()(**inputs(frames)).logits[0, -1].log_softmax(-1)
    tokenizer = VisionLanguageModel.load(base_folder()).tokenizer
    expected = {name: float(logprobs_V[tokenizer.convert_tokens_to_ids(f"({name})")]) for name in "ABC"}
    reply = local.ask(Request(PROMPT, frames, num_options=3))
    assert reply.letters == pytest.approx(expected, abs=1e-5)
    assert reply.text == max(expected, key=lambda name: expected[name])


def test_more_options_than_letters_are_answered_in_words(local: LocalTeacher) -> None:
    reply = local.ask(Request(PROMPT, num_options=20))
    assert reply.letters is None
    assert len(reply.text.split()) <= 8


def test_an_untrained_model_writes_no_json(tmp_path: Path) -> None:
    source = TeacherClues.Config(path=str(base_folder()), retries=1, max_tokens=16).build()
    given = [example(0, clues=None, chain=None), example(1)]
    seen = [(item, clip(1)) for item in given]
    assert list(source.attach_seen(seen, tmp_path)) == given
    assert (source.summary()["unparsable"], source.summary()["labelled"]) == (1, 1)
    assert source.costs() == {"asked": 1, "from_cache": 0, "requests": 2}
    again = TeacherClues.Config(path=str(base_folder()), retries=1, max_tokens=16).build()
    list(again.attach_seen(seen, tmp_path))
    assert again.costs() == {"asked": 0, "from_cache": 1, "requests": 0}


def test_the_model_judges_the_clues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With proposals written for it, the tiny model's own letters decide, as computed here from its replies."""
    monkeypatch.setattr(LocalTeacher, "_text", lambda self, request: proposal("red hits blue"))
    source = TeacherClues.Config(path=str(base_folder()), max_tokens=16).build()
    given = [
        example(index, clues=None, chain=None, id=f"q{index}-{answer}", answer=answer)
        for index in range(4)
        for answer in range(3)
    ]
    found = list(source.attach_seen([(item, clip(1)) for item in given], tmp_path))
    expected = [likelier(item) for item in given]
    assert [item.clues is not None for item in found] == expected
    assert set(expected) == {True, False}
    assert source.summary()["kept"] == sum(expected)


def likelier(item: Any) -> bool:
    ask, prompts = (
        LocalTeacher(str(base_folder()), 16).ask,
        TeacherClues.Config(path=str(base_folder())).build()._prompts,
    )

    def share(clues: tuple[Clue, ...]) -> float:
        letters = ask(Request(prompts.answer(item, clues), None, len(item.options))).letters or {}
        values = torch.tensor([letters[chr(65 + index)] for index in range(len(item.options))]).softmax(0)
        return float(values[item.answer])

    return share((Clue("red hits blue", 0.25, 0.75),)) > share(())


# ------------------------------------------------------------------------------------------------- the folder


def copy_of_base(folder: Path) -> Path:
    folder.mkdir()
    for file in base_folder().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_weights_are_part_of_the_address_and_their_place_is_not(tmp_path: Path) -> None:
    folder = copy_of_base(tmp_path / "copy")
    assert checkpoint_hash(folder) == checkpoint_hash(base_folder())
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert checkpoint_hash(folder) != checkpoint_hash(base_folder())
    sources = TeacherClues.Config(path=str(folder)).build().sources()
    assert checkpoint_hash(folder) in sources[-1]
    assert sources != TeacherClues.Config(path=str(base_folder())).build().sources()


def test_folders_that_are_none_are_explained_before_anything_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data.clue_source.path: .*empty has no config.json"):
        TeacherClues.Config(path=str(tmp_path / "empty")).build().sources()
    with pytest.raises(DataError, match=r"data.clue_source.path: no such folder: .*emty. Did you mean 'empty'"):
        TeacherClues.Config(path=str(tmp_path / "emty")).build().attach(example())


def test_a_reply_ends_where_the_model_ends_it(local: LocalTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    end = local._vlm.tokenizer.eos_token_id
    words = iter([*local._vlm.ids("red hits blue"), end, 0])
    size = len(local._vlm.tokenizer)
    monkeypatch.setattr(
        LocalTeacher, "_next", lambda *_: torch.nn.functional.one_hot(torch.tensor(next(words)), size).float()
    )
    assert local.ask(Request(PROMPT)) == Reply("red hits blue")
