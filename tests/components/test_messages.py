"""The `messages` dataset: every shape of row people have, and what happens to those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluenet.errors import DataError
from cluenet.records import Example, Quarantined, VideoRef
from cluenet_components.datasets._options import LETTERS, answer_index, split_options, without_letters
from cluenet_components.datasets.messages import MessagesDataset

ANIMALS = ("cat", "dog", "horse")
QUESTION = "Which animal sleeps?"
LETTERED = f"{QUESTION}\n(A) cat\n(B) dog\n(C) horse"


def dataset(files: Any, **settings: Any) -> MessagesDataset:
    return MessagesDataset.Config(files=files, **settings).build()


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def results(tmp_path: Path, *rows: Any, **settings: Any) -> list[Example | Quarantined]:
    return list(dataset(write(tmp_path / "train.jsonl", *rows), **settings).rows())


def only(tmp_path: Path, row: Any, **settings: Any) -> Any:
    (result,) = results(tmp_path, row, **settings)
    return result


def chat(user: Any = f"<video>{LETTERED}", assistant: str | None = "(B)", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": user}]
    if assistant is not None:
        messages.append({"role": "assistant", "content": assistant})
    return {"messages": messages, "videos": ["a.mp4"], **fields}


# ---------------------------------------------------------------------------------------------- shapes of rows

TALK = [{"role": "user", "content": f"<video>\n{LETTERED}"}, {"role": "assistant", "content": "B"}]
SHAREGPT = [{"from": "human", "value": f"<video>\n{LETTERED}"}, {"from": "gpt", "value": "B. dog"}]


def parts(*media: dict[str, Any]) -> list[dict[str, Any]]:
    content = [*media, {"type": "text", "text": LETTERED}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "B"}]}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK, "videos": ["a.mp4"]},
        {"messages": [{"role": "system", "content": "Be brief."}, *TALK], "videos": ["a.mp4"]},
        {"messages": TALK, "videos": [{"path": "a.mp4", "bytes": None}]},
        {"conversations": SHAREGPT, "videos": ["a.mp4"]},
        {"conversations": SHAREGPT, "videos": "a.mp4", "images": [], "audios": []},
        {"conversations": SHAREGPT, "video": "a.mp4"},
        {"conversations": SHAREGPT, "video": ["a.mp4"]},
        {"conversations": [{"from": "human", "value": f"<image>\n{LETTERED}"}, SHAREGPT[1]], "video": "a.mp4"},
        {"conversations": [{"from": "human", "value": LETTERED}, SHAREGPT[1]], "video": "a.mp4"},
        {"messages": parts({"type": "video_url", "video_url": {"url": "a.mp4"}})},
        {"messages": parts({"type": "video_url", "video_url": "a.mp4"})},
        {"messages": parts({"type": "video", "video": "a.mp4"})},
        {"messages": parts({"type": "video", "path": "a.mp4"})},
        {"messages": parts({"type": "video"}), "videos": ["a.mp4"]},
        {"question": QUESTION, "video": "a.mp4", "candidates": list(ANIMALS), "answer": "dog"},
    ],
)
def test_each_shape_of_row_gives_the_same_example(tmp_path: Path, row: dict[str, Any]) -> None:
    assert only(tmp_path, row) == Example(
        id="train-1",
        dataset="messages",
        video=VideoRef(str(tmp_path / "a.mp4")),
        question=QUESTION,
        options=ANIMALS,
        answer=1,
    )


def test_json_list_and_json_lines_give_the_same_examples(tmp_path: Path) -> None:
    rows = [chat(id="x"), chat(id="y", assistant="C")]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(rows, indent=1))
    assert list(dataset(str(listed)).rows()) == results(tmp_path, *rows)


def test_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(f"\n{json.dumps(chat())}\n\n{json.dumps(chat())}\n", encoding="utf-8-sig")
    assert [row.id for row in dataset(str(file)).rows()] == ["train-2", "train-4"]


def test_each_turn_of_a_conversation_is_an_example_without_the_turns_before_it(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": f"<video>{LETTERED}"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "What does it do then?"},
        {"role": "assistant", "content": "It wakes up."},
        {"role": "user", "content": "And then?"},
    ]
    first, second, third = results(tmp_path, {"messages": talk, "videos": ["a.mp4"], "id": 7})
    assert (first.id, first.options, first.answer) == ("7#1", ANIMALS, 0)
    assert (second.id, second.question, second.options, second.answer) == (
        "7#2",
        "What does it do then?",
        (),
        "It wakes up.",
    )
    assert isinstance(third, Quarantined)
    assert (third.id, third.reason) == ("7#3", "no_answer")


def test_row_fields_for_bounds_type_and_id(tmp_path: Path) -> None:
    row = only(tmp_path, chat(question_id="Q9", start=2, end=4.5, type="causal"))
    assert (row.id, row.type, row.video) == ("Q9", "causal", VideoRef(str(tmp_path / "a.mp4"), 2.0, 4.5))
    assert only(tmp_path, chat(id="Q9", task="why"), type_field="task", id_fields=[]).type == "why"
    assert only(tmp_path, chat(id="Q9"), id_fields=[]).id == "train-1"


def test_rows_name_the_pair_they_belong_to(tmp_path: Path) -> None:
    paired, alone = results(tmp_path, chat(pair="p7"), chat())
    assert (paired.meta, alone.meta) == ({"pair": "p7"}, {})


def test_label_names_the_dataset(tmp_path: Path) -> None:
    ready, bad = results(tmp_path, chat(), chat(assistant=None), label="kitchen")
    assert (ready.dataset, bad.dataset) == ("kitchen", "kitchen")


def test_bounds_of_a_content_part(tmp_path: Path) -> None:
    part = {"type": "video", "video": "a.mp4", "video_start": 1.5, "video_end": 3, "fps": 2.0}
    assert only(tmp_path, {"messages": parts(part)}).video == VideoRef(str(tmp_path / "a.mp4"), 1.5, 3.0)


def test_labels_come_along(tmp_path: Path) -> None:
    labels = {"clues": [{"text": "it yawns", "start_seconds": 1, "end_seconds": 2}], "chain": "It yawns, so it sleeps."}
    row = only(tmp_path, chat(**labels))
    assert (row.clues[0].text, row.clues[0].end_seconds, row.chain) == ("it yawns", 2.0, labels["chain"])
    assert only(tmp_path, chat()).clues is None
    assert only(tmp_path, chat(clues=[])).clues == ()


# ------------------------------------------------------------------------------------------------------ videos


def test_paths_start_at_the_files_folder_or_at_video_root(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    assert only(tmp_path, chat()).video.path == str(tmp_path / "a.mp4")
    assert only(tmp_path, chat(), video_root=str(tmp_path / "media")).video.path == str(tmp_path / "media/a.mp4")
    assert only(tmp_path, chat(videos=["/data/a.mp4"]), video_root=str(tmp_path)).video.path == "/data/a.mp4"


@pytest.mark.parametrize("url", ["file:///data/my%20cat.mp4", "file://localhost/data/my%20cat.mp4"])
def test_file_urls(tmp_path: Path, url: str) -> None:
    assert only(tmp_path, chat(videos=[url])).video.path == "/data/my cat.mp4"


@pytest.mark.parametrize(
    "url", ["https://example.org/a.mp4", "s3://bucket/a.mp4", "data:video/mp4;base64,AAAA", "file://host/a"]
)
def test_other_urls_are_quarantined_with_the_next_step(tmp_path: Path, url: str) -> None:
    row = only(tmp_path, chat(videos=[url]))
    assert row.reason == "unsupported_url"
    assert "download the video first" in row.detail


def frame_folder(folder: Path, count: int = 12) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"frame_{number}.jpg" for number in range(1, count + 1)]  # not zero-padded: 10 must follow 9
    for name in names:
        (folder / name).touch()
    (folder / "notes.txt").touch()
    return [f"{folder.name}/{name}" for name in names]


@pytest.mark.parametrize("shape", ["nested", "flat", "video", "part", "folder"])
def test_frames_of_one_folder_become_that_folder(tmp_path: Path, shape: str) -> None:
    frames = frame_folder(tmp_path / "clip")
    row = {
        "nested": chat(videos=[frames]),
        "flat": chat(videos=frames),
        "video": {"conversations": SHAREGPT, "video": frames},
        "part": {"messages": parts({"type": "video", "video": frames})},
        "folder": chat(videos=["clip"]),
    }[shape]
    assert only(tmp_path, row, frame_list_fps=3).video == VideoRef(str(tmp_path / "clip"), fps=3.0)
    assert only(tmp_path, {**row, "fps": 24}, frame_list_fps=3).video.fps == 24.0
    assert only(tmp_path, row).reason == "no_fps"


def test_the_rate_a_content_part_gives_wins_over_the_rows(tmp_path: Path) -> None:
    part = {"type": "video", "video": frame_folder(tmp_path / "clip"), "fps": 5}
    assert only(tmp_path, {"messages": parts(part), "fps": 24}, frame_list_fps=3).video.fps == 5.0


def test_a_rate_of_zero_is_named_and_no_other_one_taken(tmp_path: Path) -> None:
    folder = frame_folder(tmp_path / "clip")
    for row in (
        chat(videos=[folder], fps=0),
        {"messages": parts({"type": "video", "video": folder, "fps": 0}), "fps": 24},
    ):
        bad = only(tmp_path, row, frame_list_fps=3)
        assert bad.reason == "malformed"
        assert bad.detail.endswith("fps is 0, must be a number > 0")


def test_frame_lists_that_are_not_a_folder_are_quarantined(tmp_path: Path) -> None:
    frames, others = frame_folder(tmp_path / "clip"), frame_folder(tmp_path / "other")
    for wrong, said in [
        (frames[::2], "lists 6 frames"),
        (frames[::-1], "first difference is 'frame_12.jpg'"),
        ([*frames[:3], others[3]], "several folders"),
    ]:
        row = only(tmp_path, chat(videos=[wrong], fps=2))
        assert row.reason == "frame_list"
        assert said in row.detail


def test_whether_a_video_is_there_is_not_decided_here(tmp_path: Path) -> None:
    assert only(tmp_path, chat(videos=["nowhere.mp4"])).video.path == str(tmp_path / "nowhere.mp4")
    assert only(tmp_path, chat(videos=[["gone/1.jpg", "gone/2.jpg"]], fps=1)).video.path == str(tmp_path / "gone")


# -------------------------------------------------------------------------------------------------- quarantine


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        ("{not json", "malformed", "not valid JSON"),
        ("[1, 2]", "malformed", "a JSON object is wanted, not [1, 2]"),
        ({"videos": ["a.mp4"]}, "malformed", "no messages, conversations or question"),
        ({"messages": "hello", "videos": ["a.mp4"]}, "malformed", "messages must be a list, not 'hello'"),
        ({"messages": [{"role": "tool", "content": "x"}], "videos": ["a.mp4"]}, "malformed", "role 'tool' is none of"),
        ({"messages": TALK[::-1], "videos": ["a.mp4"]}, "malformed", "without a question before it"),
        ({"messages": [TALK[0], *TALK], "videos": ["a.mp4"]}, "malformed", "two user messages in a row"),
        ({"messages": [{"role": "system", "content": "x"}], "videos": ["a.mp4"]}, "malformed", "no user message"),
        (chat(user=[{"text": "no type"}]), "malformed", "an object with a type"),
        (chat(user="<video>"), "malformed", "the question is empty"),
        (chat(videos=[5]), "malformed", "not 5"),
        (chat(start="soon"), "malformed", "start is 'soon', must be a number >= 0"),
        (chat(videos=[]), "no_video", "no video in videos, video or a content part"),
        (chat(user=LETTERED, videos=None), "no_video", ""),
        (chat(user=f"<video><video>{LETTERED}"), "placeholder_mismatch", "2 <video> for 1 videos"),
        (chat(videos=["a.mp4", "b.mp4"]), "placeholder_mismatch", "1 <video> for 2 videos"),
        (chat(user=f"<video><image>{LETTERED}", images=["1.jpg", "2.jpg"]), "placeholder_mismatch", "1 <image> for 2 images"),
        (chat(user=f"<video><image>{LETTERED}", images=["1.jpg"]), "unsupported_media", "images"),
        (chat(user=[{"type": "image_url", "image_url": "x"}, {"type": "text", "text": LETTERED}]), "unsupported_media", "image_url"),
        (chat(audios=["a.wav"]), "unsupported_media", "audios"),
        (chat(user=f"<video><video>{LETTERED}", videos=["a.mp4", "b.mp4"]), "several_videos", "a.mp4, b.mp4"),
        (chat(user=LETTERED, videos=["a.mp4", "b.mp4"]), "several_videos", "2 videos"),
        (chat(start=5, end=5), "bad_bounds", "ends at 5.0 s"),
        (chat(assistant=None), "no_answer", ""),
        (chat(assistant=" "), "no_answer", ""),
        (chat(assistant="(E)"), "answer_outside_options", "'(E)' is none of the options. Allowed: an index 0..2"),
        (chat(assistant="D. cow"), "answer_outside_options", "A. cat; B. dog; C. horse"),
        (chat(assistant="A. dog"), "answer_outside_options", "can mean 'cat' or 'dog'"),
        (chat(answer=3), "answer_outside_options", "answer 3"),
        (chat(answer=-1), "answer_outside_options", "answer -1"),
        (chat(answer=True), "answer_outside_options", "answer True"),
        (chat(user="<video>Which?", answer=2), "no_options", "answer 2"),
        (chat(options=["cat"]), "bad_options", "two or more"),
        (chat(options={"1": "cat", "2": "dog"}), "bad_options", "not {'1': 'cat', '2': 'dog'}"),
        (chat(options=[1, 2, 3]), "bad_options", "not [1, 2, 3]"),
        (chat(options=["cat", "cow"]), "bad_options", "its field ['cat', 'cow']"),
        (chat(user="<video>Which?\nA.\nB.\n"), "bad_options", "an option is empty"),
        (chat(clues=[{"text": "x", "who": "y"}]), "bad_clues", "clues.0.who: unknown key"),
        (chat(clues=[{"text": "x"}], chain=3), "bad_clues", "chain"),
        ({**chat(), "messages": [*TALK, *TALK], "answer": 1, "videos": ["a.mp4", "a.mp4"]}, "several_videos", ""),
        ({"conversations": [*SHAREGPT, {"from": "human", "value": "Why?"}, SHAREGPT[1]], "video": "a.mp4", "answer": 1}, "ambiguous_fields", "answer cannot be told to one of 2 turns"),
        ({"conversations": [*SHAREGPT, {"from": "human", "value": "Why?"}, SHAREGPT[1]], "video": "a.mp4", "pair": "p"}, "ambiguous_fields", "pair cannot be told to one of 2 turns"),
        (chat(pair=3), "malformed", "pair is 3, must be the name"), (chat(pair=" "), "malformed", "pair is ' '"),
    ],
)  # fmt: skip
def test_bad_rows_are_quarantined_beside_good_ones(tmp_path: Path, row: Any, reason: str, said: str) -> None:
    before, bad, after = results(tmp_path, chat(id="before"), row, chat(id="after"))
    assert isinstance(before, Example)
    assert isinstance(after, Example)
    assert isinstance(bad, Quarantined)
    assert (bad.id, bad.dataset, bad.path, bad.reason) == ("train-2", "messages", str(tmp_path / "train.jsonl"), reason)
    assert bad.detail.startswith("line 2: ")
    assert said in bad.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "a.mp4", "<video>", "text", "video", "B", "user"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "type", "video", "path", "url", "text"]), inner),
    max_leaves=8,
)  # fmt: skip
FIELDS = [
    "messages",
    "conversations",
    "question",
    "videos",
    "video",
    "images",
    "options",
    "answer",
    "start",
    "end",
    "fps",
    "type",
    "clues",
    "chain",
    "id",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.booleans())
def test_no_row_however_odd_stops_those_beside_it(
    tmp_path_factory: pytest.TempPathFactory, odd: dict[str, Any], whole: bool
) -> None:
    row = chat() | odd if whole else odd
    found = results(tmp_path_factory.mktemp("odd"), row, chat(id="good"))
    assert (found[-1].id, type(found[-1])) == ("good", Example)
    assert len(found) >= 2


def test_duplicate_ids_name_both_places_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"id 'x'.*train.jsonl line 1.*train.jsonl line 3.*id_fields: \[\]"):
        results(tmp_path, chat(id="x"), chat(id="y"), chat(id="x"))
    a, b = write(tmp_path / "a.jsonl", chat(id="x")), write(tmp_path / "b.jsonl", chat(id="x"))
    with pytest.raises(DataError, match=r"a.jsonl line 1 and .*b.jsonl line 1"):
        list(dataset([a, b]).rows())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty dataset"),
        ("\n \n", "empty dataset"),
        ("[]", "empty dataset"),
        ("not\njson\n", "not one row is a JSON object"),
        ('{\n "id": 1\n}', "Write one JSON object per line"),
        ('[{"id": 1},', "starts as a JSON list but is not valid JSON"),
    ],
)
def test_files_that_are_wrong_as_a_whole(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "train.json"
    file.write_text(text)
    with pytest.raises(DataError, match=said) as error:
        list(dataset(str(file)).rows())
    assert str(file) in str(error.value)


def test_text_that_is_not_utf8_is_an_error_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(json.dumps(chat()).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        list(dataset(str(file)).rows())


def test_missing_files_and_folders_suggest_what_is_there(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", chat())
    with pytest.raises(DataError, match=r"messages.files: no such file: .*trian.jsonl. Did you mean 'train.jsonl'\?"):
        list(dataset(str(tmp_path / "trian.jsonl")).rows())
    with pytest.raises(DataError, match=r"no such file: .*dta/x.jsonl. .* holds: train.jsonl."):
        dataset(str(tmp_path / "dta/x.jsonl")).sources()
    with pytest.raises(DataError, match="is a folder, a file is wanted"):
        dataset(str(tmp_path)).sources()
    with pytest.raises(DataError, match=r"messages.video_root: no such folder"):
        list(dataset(file, video_root=str(tmp_path / "vids")).rows())
    with pytest.raises(DataError, match="is a file, a folder is wanted"):
        list(dataset(file, video_root=file).rows())


# ---------------------------------------------------------------------------------------------- splits, files


def test_split_stands_in_the_file_name(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", chat())
    write(tmp_path / "test.jsonl", chat(), chat())
    rows = list(dataset(str(tmp_path / "{split}.jsonl"), split="test").rows())
    assert [row.id for row in rows] == ["test-1", "test-2"]


def test_split_field_selects_rows_and_accounts_for_those_without(tmp_path: Path) -> None:
    rows = [chat(part="a"), chat(part="b"), chat(), "{bad"]
    found = results(tmp_path, *rows, split="b", split_field="part")
    assert [row.id for row in found] == ["train-2", "train-3", "train-4"]
    assert [getattr(row, "reason", None) for row in found] == [None, "malformed", "malformed"]
    with pytest.raises(DataError, match=r"no row has 'part' = 'c'. Splits found: a, b"):
        results(tmp_path, *rows[:2], split="c", split_field="part")


def test_sources_follow_the_content_of_every_file(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.jsonl", chat()), write(tmp_path / "b.jsonl", chat(id="b"))]
    before = dataset(files).sources()
    assert len(before) == 2
    assert dataset(files).sources() == before
    write(tmp_path / "b.jsonl", chat(id="c"))
    after = dataset(files).sources()
    assert (after[0], after[1] == before[1]) == (before[0], False)


# ------------------------------------------------------------------------------------------ options and answers

STYLES = ("({}) {}", "{}. {}", "{}) {}", "{}: {}")
word = st.text("abcdefghij", min_size=1, max_size=8)
phrase = st.lists(word, min_size=1, max_size=5).map(" ".join)
option_lists = st.lists(phrase, min_size=2, max_size=8, unique=True)


def lettered(options: list[str], style: str) -> list[str]:
    return [style.format(letter, option) for letter, option in zip(LETTERS, options)]


@given(phrase, option_lists, st.sampled_from(STYLES), st.sampled_from(["\n", " ", "\n\n", "\n  "]), st.booleans())
def test_lettered_options_come_out_as_they_went_in(
    stem: str, options: list[str], style: str, between: str, header: bool
) -> None:
    text = stem + ("\nOptions:" if header else "") + between + between.join(lettered(options, style))
    assert split_options(text) == (stem, tuple(options))


@given(phrase, option_lists, st.sampled_from(STYLES), phrase)
def test_what_follows_the_options_stays_in_the_question(
    stem: str, options: list[str], style: str, instruction: str
) -> None:
    text = "\n".join([stem, *lettered(options, style), instruction])
    assert split_options(text) == (f"{stem}\n{instruction}", tuple(options))


@given(st.text(max_size=60))
def test_text_without_two_options_is_left_alone(text: str) -> None:
    stem, options = split_options(text)
    assume(not options)
    assert stem == text.strip()


@given(option_lists, st.sampled_from(STYLES))
def test_letters_of_an_option_list_go(options: list[str], style: str) -> None:
    assert without_letters(lettered(options, style)) == tuple(options)
    assert without_letters(options) == tuple(options)


@given(option_lists, st.data())
def test_every_way_to_name_an_option_means_it(options: list[str], data: st.DataObject) -> None:
    assume(not any(len(option) == 1 for option in options))  # "b" would be a letter too
    index = data.draw(st.integers(0, len(options) - 1))
    letter, text = LETTERS[index], options[index]
    ways = [index, letter, f"({letter})", f"{letter}.", f"{letter}. {text}", f"({letter}) {text}", f"Answer: {letter}",
            f"The answer is ({letter}).", f"Best option: ({letter})", text, text.upper(), f" {text}. ",
            f"{letter}\nbecause of that", letter.lower()]  # fmt: skip
    assert [answer_index(way, options) for way in ways] == [index] * len(ways)


@pytest.mark.parametrize(
    ("text", "stem", "options"),
    [
        ("Person (A) hits (B). Who?\nA) x\nB) vitamin B) y", "Person (A) hits (B). Who?", ("x", "vitamin B) y")),
        ("Why? A. x B. y\nC. z D. w", "Why?", ("x", "y", "z", "w")),
        ("Why?\nA. goes on\nand on\nB. y", "Why?", ("goes on and on", "y")),
        ("Why? (A)x (B)y", "Why?", ("x", "y")),
        ("Person (A) hits (B). Who? (A) x (B) y", "Person (A) hits (B). Who?", ("x", "y")),
        ("Is plan A. good?", "Is plan A. good?", ()),
        ("Why?\nB. x\nC. y", "Why?\nB. x\nC. y", ()),
    ],
)
def test_options_in_difficult_text(text: str, stem: str, options: tuple[str, ...]) -> None:
    assert split_options(text) == (stem, options)


@pytest.mark.parametrize("answer", ["A man walks", "none of these", "", "D", 3, 1.0, None])
def test_answers_that_name_no_option_are_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="is none of the options"):
        answer_index(answer, ANIMALS)


def test_two_options_with_one_text_can_only_be_told_by_letter() -> None:
    assert answer_index("B", ["yes", "yes"]) == answer_index("B.", [".", "yes"]) == 1
    with pytest.raises(ValueError, match="can mean 'yes' or 'yes'"):
        answer_index("yes", ["yes", "yes"])


@pytest.mark.parametrize(
    "options",
    [
        list(ANIMALS),
        [" cat", "dog ", "horse\n"],
        ["A. cat", "B. dog", "C. horse"],
        ["(A) cat", "(B) dog", "(C) horse"],
        dict(zip("ABC", ANIMALS)),
    ],
)
@pytest.mark.parametrize("field", ["options", "choices", "candidates"])
def test_options_as_a_field(tmp_path: Path, options: Any, field: str) -> None:
    row = only(tmp_path, chat(user=f"<video>{QUESTION}", assistant=None, answer="C", **{field: options}))
    assert (row.question, row.options, row.answer) == (QUESTION, ANIMALS, 2)
    both = only(tmp_path, chat(assistant=None, answer=2, **{field: options}))
    assert (both.question, both.options, both.answer) == (QUESTION, ANIMALS, 2)


def test_the_answer_field_wins_over_what_the_assistant_says(tmp_path: Path) -> None:
    assert only(tmp_path, chat(assistant="I think it is the dog, which lies down.", answer="B")).answer == 1


def test_fields_of_other_names(tmp_path: Path) -> None:
    row = chat(user=f"<video>{QUESTION}", assistant="think...", alternatives=list(ANIMALS), solution="horse")
    found = only(tmp_path, row, options_fields=["alternatives"], answer_field="solution")
    assert (found.options, found.answer) == (ANIMALS, 2)
    found = only(tmp_path, row)
    assert (found.options, found.answer) == ((), "think...")


def test_options_are_left_in_the_text_if_so_set(tmp_path: Path) -> None:
    row = only(tmp_path, chat(), parse_options=False)
    assert (row.question, row.options, row.answer) == (LETTERED, (), "(B)")


def test_open_ended_rows_keep_the_answers_text(tmp_path: Path) -> None:
    row = only(tmp_path, chat(user="Look at <video> and say what sleeps.", assistant=" A dog. "))
    assert (row.question, row.options, row.answer) == ("Look at and say what sleeps.", (), "A dog.")
