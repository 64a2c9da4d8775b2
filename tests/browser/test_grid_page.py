"""The page of a grid in a browser: no complaint, readable in light and dark, no wider than a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from cluenet.grid import running
from helpers.grids import evaluated, grid_of
from helpers.readable import assert_readable


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two axes, a cell that is not run and one that has other frames."""
    axes = {"model.clue_filter": ["keep_all", "random"], "train.stage1.steps": [4, 5, 6]}
    grid = grid_of(Path(tmp_path_factory.mktemp("grid")), axes=axes)
    missing, other = grid.cells[-1], grid.cells[-2]
    evaluated(grid, lambda cell, seed: None if cell in (missing, other) else [True, False, True] * 8)
    evaluated(grid, lambda cell, seed: [True] * 24 if cell is other else None, policy_fingerprint="other")
    running.write(grid)
    return (grid.folder / "grid.html").as_uri()


def test_it_says_what_was_found_and_what_is_missing(open_page, url: str) -> None:
    page = open_page(url).page
    expect(page.get_by_role("row").filter(has_text="clue_filter=keep_all steps=5").first).to_contain_text("66.7")
    expect(page.locator("#missing li").first).to_contain_text("other frames")
    expect(page.locator("#missing li").last).to_contain_text("not run yet with seed 0")
    expect(page.locator("#effects tbody tr")).to_have_count(3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(open_page, url: str, scheme: str) -> None:
    assert_readable(open_page(url, color_scheme=scheme).page)


def test_no_wider_than_a_phone(open_page, url: str) -> None:
    page = open_page(url, viewport={"width": 360, "height": 740}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
