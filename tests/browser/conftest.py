"""One headless Chromium for all tests of the page. Playwright's own download is not used: the system's browser is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from cluenet.serve.api import build_app
from helpers.browser import find_browser
from helpers.page import RecordedService, serving, write_marked

PATIENCE_MS = 60_000  # a busy machine is not a failure
expect.set_options(timeout=PATIENCE_MS)
REFUSED = "Failed to load resource: the server responded with a status of"
"""What Chromium's console says of any status from 400 on."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marked(tmp_path_factory.mktemp("videos") / "marked.webm")


@dataclass
class Visit:
    """A visitor at the page. problems: what the console complained of, and requests to elsewhere."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda said: self._said(said.type, said.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.goto(self.url)

    def fill_in(
        self,
        video: Path,
        question: str = "which one hits blue ?",
        options: tuple[str, ...] = ("red", "green", "cyan"),
    ) -> None:
        self.page.get_by_label("Choose a video").set_input_files(video)
        self.page.get_by_label("What do you want to know?").fill(question)
        for number, option in enumerate(options, start=1):
            if number > 2:
                self.page.get_by_role("button", name="Add an option").click()
            self.page.get_by_label(f"Option {number}", exact=True).fill(option)

    def send(self) -> None:
        """Does not wait for the answer."""
        self.page.get_by_role("button", name="Ask").click()

    def ask(self, video: Path, **asked: Any) -> None:
        self.fill_in(video, **asked)
        self.send()

    def answered(self, video: Path, **asked: Any) -> Page:
        self.ask(video, **asked)
        self.page.locator("#result").wait_for()
        self.until("document.getElementById('player').readyState >= 2")
        return self.page

    def clue(self, text: str) -> Locator:
        return self.page.locator("#clues button").filter(has_text=text)

    def seconds(self) -> float:
        """Where the player is, once it has got there."""
        self.until("!document.getElementById('player').seeking")
        return self.page.evaluate("document.getElementById('player').currentTime")

    def until(self, expression: str) -> None:
        """Waits for JavaScript to hold. (Playwright's own `wait_for_function` is code that the page's policy forbids.)"""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never: {expression}"
            self.page.wait_for_timeout(20)

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(REFUSED):
            self.problems.append(text)

    def _requested(self, url: str) -> None:
        if not url.startswith((self.url, f"blob:{self.url}", "data:")):
            self.problems.append(f"a request to {url}")


Open = Callable[..., Visit]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens the page at a URL in a context of its own, with Playwright's settings of contexts; no visit may have problems."""
    visits: list[Visit] = []

    def opened(url: str, **context: Any) -> Visit:
        visits.append(Visit(browser.new_context(locale="en-US", **context).new_page(), url))
        return visits[-1]

    yield opened
    for visit in visits:
        visit.page.context.close()
    assert [problem for visit in visits for problem in visit.problems] == []


@pytest.fixture
def service() -> RecordedService:
    return RecordedService()


@pytest.fixture
def url(service: RecordedService) -> Iterator[str]:
    with serving(build_app(service)) as url:
        yield url
        service.held = False


@pytest.fixture
def visit(open_page: Callable[..., Visit], url: str) -> Visit:
    return open_page(url)
