"""The page for everybody: by keyboard alone, on a phone, in light and dark, without motion, with names for screen readers."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from cluenet.serve.errors import ServeError
from helpers.page import clue, reply

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
LEAST_CONTRAST = 4.5
"""Of text, WCAG 2.2, success criterion 1.4.3 (AA)."""
LONG = "supercalifragilisticexpialidocious" * 3

TEXTS = """() => {
  const shown = node => node.checkVisibility({visibilityProperty: true}) && node.getClientRects().length;
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const node of document.querySelectorAll("body *:not(svg *, script, noscript, noscript *)")) {
    const own = [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim());
    const field = ["INPUT", "TEXTAREA"].includes(node.tagName);
    if ((own || field) && shown(node)) {
      found.push([node.tagName + "." + node.className + " " + (node.textContent || node.id), getComputedStyle(node).color, ground(node)]);
    }
  }
  const button = getComputedStyle(document.getElementById("video"), "::file-selector-button");
  return [...found, ["file button", button.color, button.backgroundColor]];
}"""
"""[what, colour of the text, colour behind it] of all that can be read."""


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
    ground = luminance(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    service.held = True
    visit.ask(video)
    expect(visit.page.get_by_text("The model is at work.")).to_be_visible()
    assert_readable(visit.page)
    service.held = False
    visit.page.locator("#result").wait_for()
    visit.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    visit.clue("red hits blue").click()
    assert_readable(visit.page)
    service.reply = ServeError(400, "invalid_request_error", "no", param="question")
    visit.send()
    visit.page.locator("#error").wait_for()
    assert_readable(visit.page)


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


def assert_readable(page: Page) -> None:
    texts = page.evaluate(TEXTS)
    assert len(texts) > 20
    assert [text for text in texts if contrast(text[1], text[2]) < LEAST_CONTRAST] == []


def contrast(first: str, second: str) -> float:
    """Of two CSS colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Of `rgb(r, g, b)` (WCAG 2.2, "relative luminance")."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
