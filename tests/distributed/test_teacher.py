"""The teacher inside `prepare`: clues for what was decoded, counted in the manifest, and no request twice."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cluenet.data.prepare import prepare
from cluenet.errors import DataError
from cluenet.folders import read_manifest
from cluenet.prepared import PreparedSet
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.records import Clue, Example, VideoRef
from cluenet.testing.videos import counting_frames, read_number, write_garbage, write_video
from helpers.chat_server import ChatServer, asks_for_clues, chat_server, error, wise
from helpers.listed import openings, write_rows

pytestmark = pytest.mark.usefixtures("ray_session")
FPS = 10
SPANS = ((0.0, None), (1.0, 2.0), (0.5, 1.5), (0.0, None))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(wise) as chat:
        yield chat


def rows(folder: Path) -> list[Example]:
    """Four useful clues, one useless, one given by people, one hidden answer, one broken video."""
    for number in range(2):
        write_video(folder / f"good{number}.mp4", np.roll(counting_frames(20), number, axis=0), fps=FPS, gop=5)
    write_garbage(folder / "garbage.mp4")

    def row(name: str, text: str, video: str, *span: Any, **changes: Any) -> Example:
        options = {"options": ("no", "yes", "maybe"), "answer": 1, **changes}
        return Example(name, "listed", VideoRef(str(folder / video), *span), text, **options)

    useful = [
        row(f"useful{n}", f"{n} ? [clue: it points to B]", f"good{n % 2}.mp4", *span) for n, span in enumerate(SPANS)
    ]
    return [
        row("broken", "is it ? [clue: it points to B]", "garbage.mp4"),
        *useful[:2],
        row("useless", "is it ? [clue: it is red]", "good0.mp4"),
        row("given", "is it ?", "good0.mp4", clues=(Clue("from people"),), chain="so"),
        row("hidden", "is it ?", "good1.mp4", answer=None),
        *useful[2:],
    ]


def recipe(folder: Path, server: ChatServer, **settings: Any) -> Recipe:
    file = folder / "rows.json"
    if not file.exists():
        write_rows(file, rows(folder))
    source = {"name": "teacher", "endpoint": server.url, "model": "wise-vl", "frames": 2, "retries": 0, **settings}
    data = {
        "reader": {"name": "logged", "log": str(folder / "openings.log")}, "fallback_reader": None, "clue_source": source,
        "sampler": {"name": "uniform", "frames": 4}, "size": {"height": 32, "width": 32},
        "train": [{"name": "listed", "file": str(file)}],
    }  # fmt: skip
    return Recipe.from_dict({"plugins": ["helpers.listed"], "store": str(folder / "store"), "data": data})


def prepared(made: Recipe, **more: Any) -> Path:
    return prepare(made, made.data.train[0], **more)


class Counting(Progress):
    shown: list[tuple[str, int, int | None]] = []

    def __exit__(self, *given: Any) -> None:
        super().__exit__(*given)
        self.shown.append((self.title, self.done, self.total))


def test_clues_accounts_and_no_request_twice(server: ChatServer, tmp_path: Path) -> None:
    folder = prepared(recipe(tmp_path, server), progress=Counting)
    assert Counting.shown[-1] == ("Looking for clues in listed train", 7, 7)
    manifest = read_manifest(folder)
    assert manifest["rows"] == {"in": 8, "ready": 7, "quarantined": 1}
    assert manifest["clue_source_summary"] == {
        "kept": 4, "dropped": 1, "unparsable": 0, "failed": 0, "labelled": 1, "unjudged": 1,
    }  # fmt: skip
    assert manifest["run"]["clue_source"] == {"asked": 5, "from_cache": 0, "requests": len(server.bodies)}
    assert (manifest["labels"]["clues"], manifest["labels"]["chain"], manifest["labels"]["times"]) == (5, 5, 4)

    found = {item.id: item for item in PreparedSet(folder).examples()}
    given = [row for row in rows(tmp_path) if row.id != "broken"]
    assert list(found) == [row.id for row in given]
    for number, (start, _) in enumerate(SPANS):
        (clue,) = found[f"useful{number}"].clues or ()
        assert (clue.start_seconds, clue.end_seconds) == (start + 0.25, start + 0.75)  # of the file
    assert all(found[row.id] == row for row in given if not row.id.startswith("useful"))
    assert "api_key" not in json.dumps(manifest["sources"])

    (folder / "manifest.json").unlink()
    questions = (folder / "questions" / "part-00000.parquet").read_bytes()
    server.respond = lambda body: error(500)
    assert prepared(recipe(tmp_path, server, concurrency=1)) == folder  # how it is asked is not part of the address
    assert (folder / "questions" / "part-00000.parquet").read_bytes() == questions
    again = read_manifest(folder)
    assert again["run"]["clue_source"] == {"asked": 0, "from_cache": 5, "requests": 0}
    assert again["clue_source_summary"] == manifest["clue_source_summary"]


def test_the_teacher_sees_the_frames_of_the_question(server: ChatServer, tmp_path: Path) -> None:
    opened = PreparedSet(prepared(recipe(tmp_path, server, keep_if="all", concurrency=1)))
    shown = [body["messages"][0]["content"] for body in server.bodies if asks_for_clues(body)]
    asked = [row for row in opened.examples() if row.id != "given"]
    assert len(shown) == len(asked) == 6
    keys = {item.id: key for key in opened.clip_keys for item in opened.examples_of(key)}
    for parts, row in zip(shown, asked, strict=True):
        assert row.question in parts[-1]["text"]
        frames = opened.frames(keys[row.id]).frames_THWC[[0, -1]]
        images = [base64.b64decode(part["image_url"]["url"].split(",")[1]) for part in parts[1::2]]
        seen = [read_number(np.asarray(Image.open(io.BytesIO(image)))) for image in images]
        assert seen == [read_number(frame) for frame in frames]


def test_a_server_that_goes_away_costs_no_decoding_and_no_reply(server: ChatServer, tmp_path: Path) -> None:
    made = recipe(tmp_path, server, concurrency=1)
    server.respond = lambda body: wise(body) if len(server.bodies) < 5 else error(401, "expired")
    with pytest.raises(DataError, match=r"data.clue_source.api_key_env"):
        prepared(made)
    decoded, sent = openings(tmp_path / "openings.log"), len(server.bodies)
    server.respond = wise
    manifest = read_manifest(prepared(made))
    assert openings(tmp_path / "openings.log") == decoded
    assert manifest["clue_source_summary"]["kept"] == 4
    assert manifest["run"]["clue_source"]["requests"] == len(server.bodies) - sent
    assert manifest["run"]["clue_source"]["from_cache"] >= 1


def test_a_missing_key_is_told_before_anything_is_decoded(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(DataError, match="NO_SUCH_KEY is not set"):
        prepared(recipe(tmp_path, server, api_key_env="NO_SUCH_KEY"))
    assert openings(tmp_path / "openings.log") == []
