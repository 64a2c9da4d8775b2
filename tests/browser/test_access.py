"""The page for everybody: by keyboard alone, on a phone, in light and dark, without motion, with names for screen readers."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from cluenet.serve.errors import ServeError
from helpers.page import clue, reply
from helpers.readable import assert_readable, rgb

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
LONG = "supercalifragilisticexpialidocious" * 3

FILE_BUTTON = """() => {
  const button = getComputedStyle(document.getElementById("video"), "::file-selector-button");
  return ["file button", button.color, button.backgroundColor, 1];
}"""
"""The one text that no element holds."""


def test_everything_can_be_done_by_keyboard(visit, service, video):
    page = visit.page
    page.get_by_label("Choose a video").set_input_files(video)  # the system's dialogue is not the page's
    page.get_by_label("Choose a video").focus()
    tab_to(page, "#question")
    page.keyboard.type("which one hits blue ?")
    for text in ("red", "green"):
        tab_to(page, "#options input")
        page.keyboard.type(text)
    tab_to(page, "#add-option")
    page.keyboard.press("Enter")
    page.keyboard.type("cyan")  # focus is in the new row
    tab_to(page, "#more summary")
    page.keyboard.press("Enter")
    tab_to(page, "#utilities")
    page.keyboard.press("Space")
    tab_to(page, "#submit")
    page.keyboard.press("Enter")
    expect(page.locator("#answer-heading")).to_be_focused()
    (wish,) = service.wishes
    assert (wish.question, wish.options, wish.utilities) == ("which one hits blue ?", ("red", "green", "cyan"), True)
    tab_to(page, "#chain button")
    page.keyboard.press("Enter")
    assert visit.seconds() == pytest.approx(0.5, abs=0.01)
    page.locator("#player").focus()
    for moment in (0.5, 2.0, 3.0):  # clues come right after the player; one without a moment is passed over
        tab_to(page, "#clues button")
        page.keyboard.press("Enter")
        assert visit.seconds() == pytest.approx(moment, abs=0.01)


def test_focus_is_seen(visit):
    page = visit.page
    for place in ("#question", "#add-option", "#more summary", "#submit"):
        tab_to(page, place)
        style = "getComputedStyle(document.activeElement)"
        assert page.evaluate(f"{style}.outlineStyle") == "solid"
        assert page.evaluate(f"parseFloat({style}.outlineWidth)") >= 2


def test_roles_and_names(visit, service, video):
    page = visit.answered(video)
    for role, name in (
        ("heading", "ClueNet"), ("textbox", "What do you want to know?"), ("group", "Options"), ("textbox", "Option 3"),
        ("button", "Remove option 3"), ("button", "Ask"), ("list", "Clues"), ("region", "Answer"),
        ("list", "Probability of each option"), ("img", "Boxes of clues at this moment"),
    ):  # fmt: skip
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    expect(page.get_by_role("list", name="Clues").get_by_role("listitem")).to_have_count(4)
    expect(page.get_by_role("button", name="green leaves ✕ dropped 0:03.0 to 0:03.5")).to_have_count(1)
    unnamed = (
        "[...document.querySelectorAll('input, textarea')].filter(one => !one.labels.length && !one.ariaLabel).length"
    )
    assert page.evaluate(unnamed) == 0


def test_a_phone_shows_it_without_scrolling_sideways(open_page, service, url, video):
    service.reply = reply(clues=(clue(LONG, 0.5, 1.5), clue("a", 3.9, 4.0, kept=False)), chain=LONG, answer=LONG)
    visit = open_page(url, **PHONE)
    assert width(visit.page) <= 360
    page = visit.answered(video, question=LONG, options=(LONG, "b", "c"))
    page.locator("summary", has_text="Tokens").click()
    page.locator("summary", has_text="More settings").click()
    assert width(page) <= 360
    visit.clue("dropped").click()
    expect(page.locator("#player")).to_be_in_viewport()
    small = "[...document.querySelectorAll('#ask button, .clue')].filter(one => one.offsetHeight && one.offsetHeight < 40).length"
    assert page.evaluate(small) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(open_page, service, url, video, scheme):
    visit = open_page(url, color_scheme=scheme)
    ground = rgb(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (min(ground) > 127) == (scheme == "light")
    service.held = True
    visit.ask(video)
    expect(visit.page.get_by_text("The model is at work.")).to_be_visible()
    assert_readable(visit.page, visit.page.evaluate(FILE_BUTTON))
    service.held = False
    visit.page.locator("#result").wait_for()
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    visit.clue("red hits blue").click()
    assert_readable(visit.page, visit.page.evaluate(FILE_BUTTON))
    service.reply = ServeError(400, "invalid_request_error", "no", param="question")
    visit.send()
    visit.page.locator("#error").wait_for()
    assert_readable(visit.page, visit.page.evaluate(FILE_BUTTON))


@pytest.mark.parametrize(("motion", "moving"), [("reduce", 0), ("no-preference", 1)])
def test_nothing_moves_for_who_wants_no_motion(open_page, service, url, video, motion, moving):
    visit = open_page(url, reduced_motion=motion)
    service.held = True
    visit.ask(video)
    expect(visit.page.get_by_text("The model is at work.")).to_be_visible()
    assert visit.page.evaluate("document.getAnimations().length") == moving


# -------------------------------------------------------------------------------------------------------- helpers


def tab_to(page: Page, place: str, most: int = 30) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("place => document.activeElement.matches(place)", place):
            return
    raise AssertionError(f"{place} is not reached by Tab")


def width(page: Page) -> int:
    return page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
