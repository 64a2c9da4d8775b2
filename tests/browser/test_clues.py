"""Clues under the player and boxes in its picture, where the reply says they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from helpers.page import CLUES, SECONDS, clue, marked_box, reply, write_marked

WHITE, YELLOW = np.array((255, 255, 255)), np.array((255, 214, 10))
SELECTED_STROKE = 4
NEAR = 0.01
RIM = 3
"""Pixels at the edge of a screenshot, which may show what is beside the player."""


def test_clues_lie_on_the_time_axis_kept_and_dropped_told_apart(visit, video):
    page = visit.answered(video)
    expect(page.locator("#clues-hint")).to_contain_text("2 of 4 kept")
    expect(page.locator("#clues .words")).to_have_text([one["text"] for one in CLUES])
    expect(page.locator("#clues .verdict")).to_have_text(["✓ kept", "✓ kept", "✕ dropped", "✕ dropped"])
    expect(visit.clue("red hits blue")).to_contain_text("0:00.5 to 0:01.5 · gate 0.91")
    expect(visit.clue("a white mark")).to_contain_text("box at 0:02.0")
    spans = page.locator("#clues .bar").evaluate_all(
        """bars => bars.map(bar => { const all = bar.parentNode.getBoundingClientRect(), one = bar.getBoundingClientRect();
        return [(one.left - all.left) / all.width, (one.right - all.left) / all.width] })"""
    )
    wanted = [(one["start_seconds"] / SECONDS, one["end_seconds"] / SECONDS) for one in CLUES[:3]]
    assert spans == [pytest.approx(span, abs=0.01) for span in wanted]
    styles = [
        visit.clue(text).locator(".bar").evaluate("bar => getComputedStyle(bar).borderStyle")
        for text in ("red", "green")
    ]
    assert styles == ["solid", "dashed"]
    assert page.locator("#axis i").count() == 4  # frames that the model looked at


def test_a_click_on_a_clue_moves_the_player(visit, video):
    visit.answered(video)
    for text, moment in (("green leaves", 3.0), ("red hits blue", 0.5), ("a white mark", 2.0)):
        visit.clue(text).click()
        assert visit.seconds() == pytest.approx(moment, abs=NEAR)
        expect(visit.clue(text)).to_have_attribute("aria-current", "true")
        expect(visit.page.locator("#clues [aria-current]")).to_have_count(1)
    expect(visit.clue("nothing to see")).to_be_disabled()
    expect(visit.clue("nothing to see")).to_contain_text("no place in time")


def test_the_line_of_now_follows_the_player(visit, video):
    page = visit.answered(video)
    visit.clue("green leaves").click()
    now = "parseFloat(document.getElementById('evidence').style.getPropertyValue('--now-at'))"
    visit.until(f"Math.abs({now} - 75) < 0.1")
    page.evaluate("document.getElementById('player').currentTime = 1")
    visit.until(f"Math.abs({now} - 25) < 0.1")


def test_boxes_and_line_follow_while_the_video_plays(visit, video):
    page = visit.answered(video)
    visit.clue("a white mark").click()
    expect(page.locator("#boxes rect")).to_have_count(1)
    page.evaluate("document.getElementById('player').play()")
    expect(page.locator("#boxes rect")).to_have_count(0)  # its moment is over
    visit.until("parseFloat(document.getElementById('evidence').style.getPropertyValue('--now-at')) > 60")


def test_the_chain_links_to_its_clues(visit, video):
    page = visit.answered(video)
    expect(page.locator("#chain")).to_have_text("red hits blue . a white mark appears . so red")
    expect(page.locator("#chain button")).to_have_text(["red hits blue", "a white mark appears"])
    page.locator("#chain button").nth(1).click()
    assert visit.seconds() == pytest.approx(2.0, abs=NEAR)
    expect(visit.clue("a white mark")).to_have_attribute("aria-current", "true")


def test_words_inside_other_words_are_no_links(visit, service, video):
    """The longest clue that fits is meant, a kept one before a dropped one, and parts of words never."""
    clues = (clue("red", 1.0, 1.5, kept=False), clue("red", 2.0, 2.5), clue("red hits", 3.0, 3.5))
    service.reply = reply(clues=clues, chain="Red hits covered red (c++ [x]")
    page = visit.answered(video)
    expect(page.locator("#chain button")).to_have_text(["Red hits", "red"])
    page.locator("#chain button").nth(1).click()
    assert visit.seconds() == pytest.approx(2.0, abs=NEAR)


# ---------------------------------------------------------------------------------------------------------- boxes


@pytest.fixture(scope="module", params=[(640, 360), (360, 640)], ids=["wide", "tall"])
def marked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264, as most uploads are."""
    width, height = request.param
    return write_marked(tmp_path_factory.mktemp("marked") / f"{width}.mp4", width=width, height=height)


def test_a_box_is_drawn_where_the_picture_has_it(visit, marked):
    """The mark in the pixels of the video says where: letterboxed above and below, or at the sides."""
    page = visit.answered(marked)
    visit.clue("a white mark").click()
    visit.seconds()
    expect(page.locator("#boxes rect")).to_have_count(1)
    page.evaluate("document.getElementById('player').controls = false")
    page.locator("#player").evaluate(
        "player => player.style.height = '430px'"
    )  # the wide one gets bars above and below
    drawn = extent(page, YELLOW, tolerance=40)
    page.evaluate("document.getElementById('boxes').style.visibility = 'hidden'")
    mark = extent(page, WHITE, tolerance=120)
    stroke = np.array((-1, -1, 1, 1)) * SELECTED_STROKE / 2  # the line's middle is the edge
    assert np.abs(drawn - stroke - mark).max() <= 2, (drawn, mark)


def test_boxes_are_seen_at_their_moment_only(visit, service, video):
    box = marked_box(1.0)
    service.reply = reply(clues=(*CLUES[:2], clue("dropped", 1.0, 2.0, kept=False, box=box)))
    page = visit.answered(video)
    expect(page.locator("#boxes rect")).to_have_count(0)
    visit.clue("dropped").click()
    expect(page.locator("#boxes rect.dropped.selected")).to_have_count(1)
    expect(page.locator("#boxes text")).to_have_text(["3"])
    visit.clue("red hits blue").click()
    visit.seconds()
    expect(page.locator("#boxes rect")).to_have_count(0)


def extent(page: Page, colour: np.ndarray, *, tolerance: int) -> np.ndarray:
    """[left, top, right, bottom] in CSS pixels of what has this colour in the player."""
    shot = Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    near_HW = (np.abs(np.asarray(shot, dtype=int) - colour).max(axis=-1)) <= tolerance
    inner_HW = near_HW[RIM:-RIM, RIM:-RIM]
    rows, columns = RIM + np.flatnonzero(inner_HW.any(axis=1)), RIM + np.flatnonzero(inner_HW.any(axis=0))
    assert rows.size, "nothing of that colour"
    return np.array((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
