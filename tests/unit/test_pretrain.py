"""What a backbone is handed, and what it says when an option of its cannot do anything."""

import errno
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluenet import folders, pretrain
from cluenet.contracts import PretrainContext
from cluenet.plugins import load_components
from cluenet.recipe import Recipe
from cluenet.registry import register
from helpers.models import clip, example


class Context(PretrainContext):
    seed = 0

    def __init__(self, folder):
        self.folder, self.notes, self.steps = folder, [], []

    def examples(self):
        return [example(i) for i in range(4)]  # located at one time only: events, no states

    def frames(self, example):
        return clip(0)

    def shared(self, depends_on, make):
        make(self.folder)
        return self.folder

    def progress(self, done, total, **values):
        self.steps.append((done, total))

    def note(self, text):
        self.notes.append(text)


def test_perception_without_located_states_is_said_not_skipped_in_silence(tmp_path):
    load_components()
    tiny = register.backbone.parse(
        {"name": "tiny", "hidden": 64, "layers": 2, "heads": 2, "vision_hidden": 32, "perception_steps": 5,
         "copy_steps": 1, "copy_questions": 16}
    )  # fmt: skip
    context = Context(tmp_path)
    assert tiny.build().pretrain(context) == tmp_path
    assert (tmp_path / "config.json").is_file()
    (note,) = context.notes
    assert "perception_steps=5 taught nothing" in note
    assert context.steps[-1] == (6, 6)


# --------------------------------------------------------------------------------------- what bases have in common


@pytest.fixture
def context(tmp_path):
    (tmp_path / "bases").mkdir()
    return pretrain.Context(Recipe.from_dict({"name": "x"}), tmp_path / "bases" / "one", [], tmp_path / "board.json")


def test_a_part_is_made_once_for_all_that_depends_on_the_same(context, monkeypatch):
    made = []

    def make(folder):
        made.append(folder)
        (folder / "part.txt").write_text(str(len(made)))

    found = [context.shared(depends_on, make) for depends_on in (["a", 1], ["a", 1], ["a", 2])]
    monkeypatch.setattr(register.backbone["tiny"], "version", 99)
    found.append(context.shared(["a", 1], make))
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert [(folder / "part.txt").read_text() for folder in found] == ["1", "1", "2", "3"]
    assert found[0].parent == context.folder.parents[1] / "base_parts"


def test_a_part_that_fails_is_made_again(context):
    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        context.shared("x", fail)
    folder = context.shared("x", lambda part: (part / "whole.txt").write_text("whole"))
    assert {path.name for path in folder.iterdir()} == {"whole.txt", "manifest.json"}


def test_a_part_is_found_and_made_where_there_are_no_locks(context, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folders.fcntl, "flock", no_locks)
    folder = context.shared("x", lambda part: (part / "whole.txt").write_text("whole"))
    (folder.parent / f".{folder.name}.lock").unlink()
    assert context.shared("x", lambda part: pytest.fail("made again")) == folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing is locked for what is there


def test_two_at_once_make_it_once(context):
    made = []

    def slowly(folder):
        made.append(folder)
        time.sleep(0.3)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: context.shared("x", slowly), range(4)))) == 1
    assert len(made) == 1
