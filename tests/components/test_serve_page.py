"""The files of the page, as the endpoint gives them out; tests/browser has what they do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from cluenet.serve.api import POLICY, build_app
from helpers.page import RecordedService

FOLDER = files("cluenet.serve") / "page"
NAMES = sorted(path.name for path in FOLDER.iterdir())
SVG = "http://www.w3.org/2000/svg"  # a name, which nobody fetches


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(build_app(RecordedService(), keys=("secret",))) as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served_without_a_key_and_under_the_policy(client: TestClient, name: str):
    reply = client.get(f"/static/{name}")
    assert reply.status_code == 200
    assert reply.content == (FOLDER / name).read_bytes()
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    kind = {"html": "text/html", "js": "text/javascript", "css": "text/css"}[name.rpartition(".")[2]]
    assert reply.headers["content-type"].startswith(kind)


def test_the_page_is_at_the_root_and_nothing_else_is_given_out(client: TestClient):
    assert client.get("/").content == (FOLDER / "index.html").read_bytes()
    for name in ("other.js", "..%2Fapi.py", "%2E%2E/api.py"):
        assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_elsewhere_and_no_code_is_inline(name: str):
    text = (FOLDER / name).read_text().replace(SVG, "")
    assert not re.findall(r"https?://|url\(|@import|innerHTML|insertAdjacentHTML|eval\(", text)
    assert not re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
    wanted = re.findall(r'from "\./([^"]+)"', text) + re.findall(r'(?:src|href)="static/([^"]+)"', text)
    assert set(wanted) <= set(NAMES)
