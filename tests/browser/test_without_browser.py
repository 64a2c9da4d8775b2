"""Where no browser is installed the tests skip, visibly, unless they must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.browser import find_browser


def test_without_a_browser_tests_skip_and_say_why(tmp_path: Path):
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        find_browser({"PATH": str(tmp_path)})


def test_they_fail_where_a_browser_is_required(tmp_path: Path):
    with pytest.raises(pytest.fail.Exception, match="CLUENET_REQUIRE_BROWSER=1 asks for one"):
        find_browser({"PATH": str(tmp_path), "CLUENET_REQUIRE_BROWSER": "1"})


def test_a_browser_on_the_path_is_found(tmp_path: Path):
    program = tmp_path / "chromium"
    program.touch(0o755)
    assert find_browser({"PATH": str(tmp_path)}) == str(program)
