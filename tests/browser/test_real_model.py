"""The page with the real routes, the real decoder and a real, untrained model: an upload, an answer, a click on a clue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from cluenet.serve.api import build_app
from cluenet.serve.service import Service
from helpers.evaluation import model_folder, recipe
from helpers.page import SECONDS, serving, write_marked
from helpers.serving import local_service


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return local_service(model_folder(tmp_path_factory.mktemp("real") / "model", recipe=recipe()), name="really-tiny")


@pytest.fixture(scope="module")
def real_url(real: Service) -> Iterator[str]:
    with serving(build_app(real)) as url:
        yield url


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_an_upload_is_answered_and_its_clues_move_the_player(open_page, real, real_url, tmp_path, suffix):
    video = write_marked(tmp_path / f"marked{suffix}")
    visit = open_page(real_url)
    expect(visit.page.locator("#model")).to_have_text("This server runs really-tiny.")
    visit.page.locator("summary", has_text="More settings").click()
    visit.page.get_by_label("Measure what every clue is worth").check()
    with visit.page.expect_response("**/v1/videoqa") as told:
        page = visit.answered(video)
    said = told.value.json()
    expect(page.locator("#answer")).to_have_text(said["answer"])
    shares = [f"{100 * share:.1f} %" for share in said["probabilities"]]
    assert [text.removeprefix("✓ ") for text in page.locator("#probabilities .share").all_inner_texts()] == shares
    clues = page.locator("#clues button")
    expect(clues).to_have_count(len(said["clues"]))
    placed = [(place, clue) for place, clue in enumerate(said["clues"]) if clue["start_seconds"] is not None]
    assert placed, "a model whose clues have moments is needed here"
    for place, clue in placed:
        expect(clues.nth(place)).to_contain_text(
            f"worth {'−' if clue['utility'] < 0 else '+'}{abs(clue['utility']):.2f}"
        )
        clues.nth(place).click()
        moment = clue["box"]["seconds"] if clue["box"] else clue["start_seconds"]
        assert visit.seconds() == pytest.approx(min(moment, SECONDS), abs=0.01)
    expect(page.locator("#caches dd")).to_have_text(["made anew", "made anew"])
    visit.send()  # the same clip again
    expect(page.locator("#caches dd")).to_have_text(["found in the cache", "found in the cache"])


def test_a_file_that_is_no_video_is_refused_in_words(open_page, real_url, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    visit = open_page(real_url)
    visit.ask(path)
    expect(visit.page.get_by_role("alert")).to_contain_text("400: ")
    expect(visit.page.get_by_role("alert")).to_contain_text("video")
    expect(visit.page.get_by_label("Choose a video")).to_be_focused()
