"""Pictures of a real run's report for docs/report.md and README.md, made anew with

    CLUENET_SCREENSHOTS=docs/images CLUENET_REPORT=runs/quickstart-.../report.html python -m pytest tests/browser/test_report_pictures.py

and skipped without either.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Page

FOLDER, REPORT = os.environ.get("CLUENET_SCREENSHOTS"), os.environ.get("CLUENET_REPORT")
pytestmark = pytest.mark.skipif(
    not (FOLDER and REPORT), reason="CLUENET_SCREENSHOTS and CLUENET_REPORT do not name a folder and a report"
)
WINDOW = {"viewport": {"width": 1180, "height": 900}}
STILL = "nav { position: static !important } .values { display: none }"
"""For pictures: what sticks to the window would lie over them."""


@pytest.mark.parametrize(
    ("name", "place", "scheme"),
    [
        ("report", "#accuracy .chart", "light"),
        ("report_faithfulness", "#faithfulness .charts", "light"),
        ("report_filter", "#filter .charts", "light"),
        ("report_example", "article.wrong", "light"),
        ("report_example_dark", "article.right", "dark"),
    ],
)
def test_picture(open_page, name: str, place: str, scheme: str) -> None:
    page: Page = open_page(Path(REPORT or "").absolute().as_uri(), color_scheme=scheme, **WINDOW).page
    page.add_style_tag(content=STILL)
    shown = (
        page.locator(place).filter(has=page.locator(".clue[data-heat]")) if "example" in name else page.locator(place)
    )
    if "example" in name:
        shown.first.locator(".clue").first.click()
    shown.first.screenshot(path=Path(FOLDER or "") / f"{name}.png")
