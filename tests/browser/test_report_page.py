"""The report in a browser: no complaint, filters, clues that light their frames, keyboard, contrast, paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from pypdf import PdfReader

from cluenet.evaluate.compare import compare
from cluenet.report.build import build_report
from cluenet.report.comparison import build_comparison
from helpers.readable import assert_readable, rgb
from helpers.reports import evaluated_runs, samples_of

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def url(runs: Path) -> str:
    return build_report(runs / "run", runs / "base").as_uri()


@pytest.fixture
def page(open_page, url: str) -> Page:
    return open_page(url).page


def filters(page: Page) -> Locator:
    return page.locator("#filters")


def article(page: Page, runs: Path, **wanted: int) -> tuple[Locator, dict]:
    """An example whose number of stated clues, kept or dropped, is at least so many."""
    for sample in samples_of(runs / "run"):
        counts = {"clues": len(sample["clues"]), "dropped": sum(not clue["kept"] for clue in sample["clues"])}
        if all(counts[name] >= least for name, least in wanted.items()):
            return page.locator(f'article[data-id="{sample["id"]}"]'), sample
    raise AssertionError(f"no sample with {wanted}")


# ------------------------------------------------------------------------------------------------- the examples


def test_filters_show_what_they_say(page: Page, runs: Path) -> None:
    samples = samples_of(runs / "run")
    right, total = sum(s["correct"] for s in samples), len(samples)
    filters(page).get_by_label("Answer").select_option("right")
    expect(page.locator("#count")).to_have_text(f"{right} of {total} examples")
    expect(page.locator("article.right:visible")).to_have_count(right)
    expect(page.locator("article.wrong:visible")).to_have_count(0)
    filters(page).get_by_label("Clues").select_option("dropped")
    both = sum(s["correct"] and any(not clue["kept"] for clue in s["clues"]) for s in samples)
    expect(page.locator("article:visible")).to_have_count(both)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#count")).to_have_text(f"{total} examples")
    filters(page).get_by_label("Hallucinated").select_option("yes")
    invented = page.locator("article:visible")
    expect(invented).to_have_count(page.locator('article[data-hallucinated="yes"]').count())
    filters(page).get_by_label("Type").select_option("who")
    assert set(page.locator("article:visible").evaluate_all("all => all.map(one => one.dataset.type)")) <= {"who"}


def test_a_clue_lights_its_frames_box_and_column(page: Page, runs: Path) -> None:
    shown, sample = article(page, runs, clues=1)
    clue, stated = shown.locator(".clue").first, sample["clues"][0]
    clue.click()
    expect(clue).to_have_attribute("aria-pressed", "true")
    times = [0.0, 0.25, 0.5, 0.75]
    within = [at for at in times if stated["start_seconds"] <= at <= stated["end_seconds"]]
    lit = shown.locator(".frame.lit").evaluate_all(
        "all => all.map(one => parseFloat(one.querySelector('.soft').textContent))"
    )
    assert set(within) <= set(lit)
    assert len(lit) < len(times) or stated["end_seconds"] - stated["start_seconds"] > 0.7
    expect(shown.locator(".box.lit")).to_have_count(1)
    assert shown.locator("td.lit").count() == len(sample["options"])
    heats = shown.locator(".heat").evaluate_all("all => all.map(one => getComputedStyle(one).backgroundImage)")
    assert len(heats) == 4
    assert all(heat.startswith('url("data:image/png') for heat in heats)
    clue.click()
    expect(shown.locator(".lit")).to_have_count(0)


def test_a_word_in_the_chain_leads_to_its_clue(page: Page, runs: Path) -> None:
    shown, _ = article(page, runs, clues=1)
    shown.locator(".chain .link").first.click()  # the labelled reasoning says its clue
    expect(shown.locator('.clue[aria-pressed="true"]')).to_have_count(1)
    assert shown.locator(".frame.lit").count() > 0


def test_everything_by_keyboard(page: Page, runs: Path) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    filters(page).get_by_label("Answer").focus()
    page.keyboard.press("ArrowDown")
    assert filters(page).get_by_label("Answer").input_value() == "right"
    shown = page.locator("article:visible").filter(has=page.locator(".clue")).first
    shown.locator(".clue").first.focus()
    page.keyboard.press("Enter")
    expect(shown.locator(".clue").first).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


# --------------------------------------------------------------------------------------------------------- charts


def test_charts_tell_values_by_pointer_and_by_keys(page: Page) -> None:
    chart = page.locator(".chart", has_text="loss, stage1").first
    picture, tip = chart.locator(":scope > svg"), chart.locator(".tip")
    expect(tip).to_be_hidden()
    picture.hover()
    expect(tip).to_contain_text("loss, step")
    picture.focus()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.keyboard.press("ArrowRight")
    first = tip.text_content()
    page.keyboard.press("ArrowRight")
    assert tip.text_content() != first


def test_a_legend_switches_its_series(page: Page) -> None:
    chart = page.locator(".chart", has_text="Accuracy by question type").first
    button, series = chart.get_by_role("button", name="without clues"), chart.locator("g.s-none")
    expect(series).to_be_visible()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    expect(series).to_be_hidden()
    button.click()
    expect(series).to_be_visible()


def test_every_chart_names_its_axes_and_is_told_in_words(page: Page) -> None:
    charts = page.locator(".chart > svg").evaluate_all(
        "all => all.map(one => [one.getAttribute('aria-label'), one.querySelector('.axis.x')?.textContent, "
        "one.querySelector('.axis.y')?.textContent, one.querySelectorAll('.row').length])"
    )
    assert len(charts) > 15
    for label, x, y, rows in charts:
        assert len(label) > 30
        assert x
        assert y or rows, label  # a dot plot's rows have names


def test_every_picture_is_told_in_words(page: Page) -> None:
    assert page.locator("img").count() > 20
    assert page.locator("img:not([alt])").count() == page.locator('img[alt=""]').count() == 0
    assert page.locator("[role=img]:not([aria-label])").count() == 0
    assert page.locator("button, select").evaluate_all("all => all.filter(one => !one.textContent.trim()).length") == 0


# ------------------------------------------------------------------------------------------------------ everybody


@SCHEMES
def test_all_text_has_contrast(open_page, url: str, scheme: str) -> None:
    page = open_page(url, color_scheme=scheme).page
    ground = rgb(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (min(ground) > 127) == (scheme == "light")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.evaluate("document.querySelectorAll('article').forEach(one => one.querySelector('.clue')?.click())")
    page.locator(".chart > svg").first.hover()
    page.locator(".legend button").first.click()
    assert_readable(page)


def test_a_phone_shows_it_without_scrolling_sideways(open_page, url: str) -> None:
    page = open_page(url, **PHONE).page
    assert page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)") <= 360


def test_paper_has_the_examples_and_charts_in_light(open_page, url: str, tmp_path: Path) -> None:
    page = open_page(url, color_scheme="dark").page
    path = tmp_path / "report.pdf"
    page.pdf(path=path, format="A4")
    text = " ".join(re.sub(r"\s+", " ", sheet.extract_text()) for sheet in PdfReader(path).pages)
    for words in (
        "Accuracy by question type",
        "optimiser step",
        "which one hits blue ?",
        "95 % bootstrap intervals",
        "Frame policy",
    ):
        assert words in text, words
    page.emulate_media(media="print")
    assert min(rgb(page.evaluate("getComputedStyle(document.body).backgroundColor"))) == 255
    assert_readable(page)
    expect(page.locator("#filters")).to_be_hidden()
    expect(page.locator("article").first).to_be_visible()
    page.set_viewport_size({"width": 700, "height": 1000})  # about what A4 has
    tracks = page.locator(".clue .track").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert min(tracks) > 150


def test_without_scripts_it_is_all_there(open_page, url: str) -> None:
    page = open_page(url, java_script_enabled=False).page
    expect(page.locator("article").first).to_be_visible()
    expect(page.locator(".chart polyline.line").first).to_be_visible()


# ----------------------------------------------------------------------------------------------------- comparison


@SCHEMES
def test_a_comparison_has_the_same_look(open_page, runs: Path, tmp_path: Path, scheme: str) -> None:
    found = compare([runs / "base"], [runs / "run"]).to_dict()
    page = open_page(build_comparison(found, tmp_path / "comparison.html").as_uri(), color_scheme=scheme).page
    gain = 100 * found["rows"][0]["result"]["difference"]["value"]
    expect(page.locator(".big").first).to_have_text(f"{gain:+.1f} points")
    expect(page.locator(".chart").first).to_contain_text("Difference to base")
    assert page.locator(".chart .axis.x").count() == 2
    assert_readable(page)
