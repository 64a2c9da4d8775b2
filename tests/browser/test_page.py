"""The page in a real browser: a video and a question go out, and what comes back is shown as it came."""

from __future__ import annotations

from hashlib import sha256
from shutil import copy

import pytest
from playwright.sync_api import expect

from cluenet.serve.api import build_app
from cluenet.serve.errors import ServeError
from helpers.page import clue, reply, serving

NASTY = "<img src=x onerror=\"document.title='broken'\"> & <b>bold</b>"


def test_the_answer_is_shown_with_probabilities_reasoning_and_what_it_took(visit, service, video):
    page = visit.answered(video)
    (wish,) = service.wishes
    assert (wish.question, wish.options) == ("which one hits blue ?", ("red", "green", "cyan"))
    assert (wish.start_seconds, wish.end_seconds, wish.utilities) == (0.0, None, False)
    assert service.contents == [sha256(video.read_bytes()).hexdigest()]
    expect(page.locator("#answer")).to_have_text("red")
    expect(page.locator("#asked")).to_have_text(wish.question)
    expect(page.locator("#probabilities li")).to_have_text(["red✓ 70.0 %", "green20.0 %", "cyan10.0 %"])
    widths = page.locator(".fill").evaluate_all("bars => bars.map(bar => bar.offsetWidth / bar.parentNode.clientWidth)")
    assert widths == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    expect(page.locator("#caches dd")).to_have_text(["found in the cache", "made anew"])
    expect(page.locator("#seconds div").filter(has_text="Watching the clip")).to_contain_text("0.120 s")
    expect(page.locator("#model")).to_contain_text("tiny")


def test_an_open_question_has_no_bars(visit, service, video):
    service.reply = reply(answer="it was pushed", index=None, option_logprobs=(), chain=None)
    page = visit.answered(video, options=())
    assert service.wishes[0].options == ()
    expect(page.locator("#answer")).to_have_text("it was pushed")
    expect(page.locator("#probabilities li")).to_have_count(0)
    expect(page.locator("#chain")).to_have_text("The model wrote no reasoning.")


def test_more_settings_are_sent(visit, service, video):
    service.reply = reply(clues=(clue("red hits blue", 1.0, 2.0, utility=-0.42),))
    visit.page.get_by_text("More settings").click()
    visit.page.get_by_label("From second").fill("0.5")
    visit.page.get_by_label("To second").fill("3.5")
    visit.page.get_by_label("Measure what every clue is worth").check()
    visit.answered(video)
    (wish,) = service.wishes
    assert (wish.start_seconds, wish.end_seconds, wish.utilities) == (0.5, 3.5, True)
    expect(visit.clue("red hits blue")).to_contain_text("worth −0.42 nats")


def test_options_come_and_go(visit, service, video):
    visit.fill_in(video, options=("red", "blue", "green"))
    visit.page.get_by_role("button", name="Remove option 2").click()
    expect(visit.page.get_by_label("Option 2", exact=True)).to_be_focused()
    visit.page.get_by_role("button", name="Add an option").click()
    expect(visit.page.get_by_label("Option 3", exact=True)).to_be_focused()
    visit.send()
    visit.page.locator("#result").wait_for()
    assert service.wishes[0].options == ("red", "green")  # rows that are empty are left out


def test_a_video_can_be_dropped(visit, service, video):
    page = visit.page
    content = page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped.webm", {type: "video/webm"})); return data }""",
        list(video.read_bytes()),
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": content})
    expect(page.locator("#drop")).to_have_class("over")
    page.dispatch_event("body", "drop", {"dataTransfer": content})
    expect(page.locator("#drop")).not_to_have_class("over")
    expect(page.locator("#player")).to_be_visible()
    page.get_by_label("What do you want to know?").fill("why ?")
    visit.send()
    page.locator("#result").wait_for()
    assert service.contents == [sha256(video.read_bytes()).hexdigest()]


def test_another_video_takes_the_old_answer_away(visit, video, tmp_path):
    page = visit.answered(video)
    page.get_by_label("Choose a video").set_input_files(copy(video, tmp_path / "other.webm"))
    expect(page.locator("#result")).to_be_hidden()
    expect(page.locator("#evidence")).to_be_hidden()


def test_a_file_that_cannot_be_played_can_be_asked_about(visit, service, tmp_path):
    path = tmp_path / "old.avi"
    path.write_bytes(b"RIFF....AVI nothing that a browser plays")
    visit.ask(path)
    expect(visit.page.locator("#video-note")).to_contain_text("cannot play")
    expect(visit.page.locator("#answer")).to_have_text("red")
    expect(visit.page.locator("#stage")).to_be_hidden()


# ------------------------------------------------------------------------------------------------------- refusals


def test_what_is_missing_is_said_before_anything_is_sent(visit, service, video):
    page = visit.page
    visit.send()
    expect(page.get_by_role("alert")).to_have_text("Choose a video first.")
    expect(page.get_by_label("Choose a video")).to_be_focused()
    page.get_by_label("Choose a video").set_input_files(video)
    visit.send()
    expect(page.get_by_role("alert")).to_have_text("Type a question first.")
    expect(page.get_by_label("What do you want to know?")).to_be_focused()
    assert service.wishes == []


def test_a_refusal_is_readable(visit, service, video):
    service.reply = ServeError(503, "overloaded_error", "too much work waits", retry_after=7)
    visit.ask(video)
    expect(visit.page.get_by_role("alert")).to_have_text("503: too much work waits Ask again in 7 s.")
    service.reply = ServeError(400, "invalid_request_error", "the clip ends too early", param="end_seconds")
    visit.send()
    expect(visit.page.get_by_role("alert")).to_have_text("400: the clip ends too early")
    expect(visit.page.get_by_label("To second")).to_be_focused()
    service.reply = reply()
    visit.send()
    visit.page.locator("#result").wait_for()
    expect(visit.page.locator("#error")).to_be_hidden()


def test_a_server_that_is_gone_is_told_from_one_that_refuses(open_page, service, video):
    with serving(build_app(service)) as url:
        visit = open_page(url)
    visit.ask(video)
    expect(visit.page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert [one for one in visit.problems if "ERR_CONNECTION_REFUSED" not in one] == []
    visit.problems.clear()


def test_a_key_is_asked_for_used_and_kept_nowhere(open_page, service, video):
    with serving(build_app(service, keys=("open-sesame",))) as url:
        visit = open_page(url)
        visit.ask(video)
        expect(visit.page.get_by_role("alert")).to_contain_text("401")
        key = visit.page.get_by_label("Key of this server")
        expect(key).to_be_focused()
        key.fill("öpen")
        key.press("Enter")
        expect(visit.page.get_by_role("alert")).to_contain_text("no key has")
        key.fill("open-sesame")
        key.press("Enter")
        visit.page.locator("#result").wait_for()
        stored = visit.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert stored == '[{},{},""]'
        visit.page.reload()
        assert visit.page.locator("#key").input_value() == ""


def test_a_question_can_be_cancelled(visit, service, video):
    service.held = True
    visit.ask(video)
    page = visit.page
    expect(page.get_by_text("The model is at work.")).to_be_visible()
    page.get_by_label("Option 1", exact=True).press("Enter")  # one at a time
    with page.expect_event("requestfailed") as broken_off:
        page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#said")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    expect(page.locator("#waiting")).to_be_hidden()
    assert broken_off.value.url == f"{visit.url}/v1/videoqa"
    service.held = False
    visit.send()
    expect(page.locator("#answer")).to_have_text("red")
    assert len(service.wishes) == 2


# --------------------------------------------------------------------------------------------------------- safety


def test_text_is_never_read_as_html(visit, service, video):
    service.reply = reply(answer=NASTY, clues=(clue(NASTY, 1.0, 2.0),), chain=f"{NASTY} . so {NASTY}")
    page = visit.answered(video, question=NASTY, options=(NASTY, "b", "c"))
    for place in ("#asked", "#answer", "#clues .words", "#probabilities .chosen .words"):
        expect(page.locator(place)).to_have_text(NASTY)
    expect(page.locator("#chain")).to_have_text(f"{NASTY} . so {NASTY}")
    assert page.locator("main img, main b").count() == 0
    assert page.title() == "ClueNet: ask about a video"
    expect(page.locator("#chain button")).to_have_count(2)
    service.reply = ServeError(400, "invalid_request_error", NASTY)
    visit.send()
    expect(page.get_by_role("alert")).to_have_text(f"400: {NASTY}")


def test_the_policy_lets_no_other_code_run(visit):
    visit.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    assert visit.page.title() == "ClueNet: ask about a video"
    (problem,) = visit.problems
    assert "Content Security Policy" in problem
    visit.problems.clear()
