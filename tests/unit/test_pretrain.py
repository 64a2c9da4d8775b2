"""What a backbone is handed, and what it says when an option of its cannot do anything."""

from cluenet.contracts import PretrainContext
from cluenet.plugins import load_components
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
    assert context.steps == [(6, 6)]
