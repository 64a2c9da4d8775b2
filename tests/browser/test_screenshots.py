"""Pictures of the page for docs/serving_page.md, made anew with `CLUENET_SCREENSHOTS=docs/images` and skipped without it.

What they show is no model's answer: the labels of a generated video stand for one.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cluenet.records import Clue, Example
from cluenet.serve.messages import ClipFacts
from cluenet.testing.clueworld import WorldSettings, scene_examples, write_clueworld
from helpers.page import clue, reply

FOLDER = os.environ.get("CLUENET_SCREENSHOTS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="CLUENET_SCREENSHOTS names no folder for the pictures")
WORLD = WorldSettings(cell=128, frames_per_step=16)  # 512 x 512 pixels, 8 seconds
SCENE = 1
MOST_DROPPED = 3
SETTLED_MS = 2000  # the player's own controls fade


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("clueworld")
    write_clueworld(folder, "test", SCENE + 1, WORLD)
    return next(one for one in scene_examples(folder, "test", SCENE, WORLD) if one.type == "causal")


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("page", {"viewport": {"width": 1280, "height": 900}}),
        ("page_dark", {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}),
        ("page_phone", {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}),
    ],
)
def test_picture(open_page, service, url, labelled, name, context):
    service.reply = label_reply(labelled)
    visit = open_page(url, **context)
    visit.page.get_by_text("More settings").click()
    visit.page.get_by_label("Measure what every clue is worth").check()
    visit.page.get_by_text("More settings").click()
    page = visit.answered(Path(labelled.video.path), question=labelled.question, options=labelled.options)
    visit.clue(labelled.clues[0].text).click()
    visit.seconds()
    page.wait_for_timeout(SETTLED_MS)
    assert FOLDER is not None
    page.screenshot(path=Path(FOLDER) / f"{name}.png", full_page="is_mobile" not in context)


def label_reply(labelled: Example):
    """A reply that states the labels: the right clues kept, others dropped."""
    rows = [row(one, kept=True) for one in labelled.clues] + [
        row(one, kept=False) for one in labelled.distractors[:MOST_DROPPED]
    ]
    count, right = len(labelled.options), labelled.answer
    chances = [0.82 if place == right else 0.18 / (count - 1) for place in range(count)]
    return reply(
        answer=labelled.options[right], index=right, option_logprobs=tuple(map(math.log, chances)), clues=tuple(rows),
        chain=labelled.chain, facts=ClipFacts(tuple(place / 2 for place in range(16)), 8.0, "pyav"),
    )  # fmt: skip


def row(one: Clue, *, kept: bool):
    """With the box at the end of the clue, when what moved has arrived in it."""
    inside = [box for box in one.boxes if one.start_seconds <= box.seconds <= one.end_seconds] or one.boxes
    box = replace(inside[0], seconds=one.end_seconds - 1 / WORLD.fps)
    values = {"gate": 0.93, "utility": 0.61} if kept else {"gate": 0.08, "utility": -0.02}
    return clue(one.text, one.start_seconds, one.end_seconds, kept=kept, box=asdict(box), **values)
