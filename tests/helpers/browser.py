"""The browser that the tests of the page run in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRE = "CLUENET_REQUIRE_BROWSER"


def find_browser(environment: Mapping[str, str] = os.environ) -> str:
    """Path of an installed Chromium. Where there is none the test is skipped, or fails if the environment requires one."""
    for name in NAMES:
        if path := shutil.which(name, path=environment.get("PATH", "")):
            return path
    reason = f"no browser: none of {', '.join(NAMES)} is on the PATH (Debian: apt-get install chromium)"
    if environment.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1 asks for one", pytrace=False)
    pytest.skip(reason)
