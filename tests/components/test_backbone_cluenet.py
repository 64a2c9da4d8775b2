"""The whole of ClueNet on every family: it trains, answers, and comes back from a folder as it was; `tiny` schools each."""

from typing import get_args

import pytest
import torch

from cluenet.config.model import ModelSection
from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.contracts import PretrainContext
from cluenet.model import pretraining
from cluenet.model.build import build_model
from cluenet.model.checkpoint import load_model, save_model
from cluenet.model.grid import Grid
from cluenet.model.vlm import VisionLanguageModel
from cluenet.plugins import load_components
from cluenet.records import CONCEPT_ROLES, Box, Clue, content_hash
from cluenet.registry import register
from cluenet.testing.backbone_pair import BackbonePair
from cluenet_components.clue_sources._teacher_cache import Request
from cluenet_components.clue_sources._teacher_local import LocalTeacher
from helpers.checkpoints import FAMILIES, checkpoint, small_checkpoint
from helpers.models import clip, example, tiny_model

load_components()
EXTRACTOR = {"name": "latent_slots", "slots": 2, "heads": 2}
EVERYTHING = Losses(answer=1, chain=1, concept=2, attention=0.5, filter=0.2)
families = pytest.mark.parametrize("family", FAMILIES)
folders = pytest.mark.parametrize("folder_of", [checkpoint, small_checkpoint], ids=["hub", "small"])


def batch_of(model):
    """Two clips of different sizes and lengths, with two questions and with one."""
    clips = [
        (clip(0, frames=4, height=40, width=56), [example(0), example(1)]),
        (clip(1, frames=3, height=32, width=32), [example(2)]),
    ]
    return model.collate(clips, seed=0, shuffle_options=False, chain=True)


def gradient_of(model, part) -> float:
    found = [p.grad for name, p in model.named_parameters() if name.startswith(part) and p.grad is not None]
    assert all(bool(value.isfinite().all()) for value in found)
    return sum(float(value.abs().sum()) for value in found)


@folders
@families
def test_both_stages_train_every_part_that_they_are_to_train(family, folder_of):
    model = tiny_model(folder=folder_of(family), reasoner="clue_chain", clue_extractor=EXTRACTOR).train()
    row = model.vlm.family
    for stage in (Stage1(steps=1, losses=EVERYTHING), Stage2(steps=1, losses=EVERYTHING)):
        model.zero_grad()
        losses = model(batch_of(model), stage=stage, seed=0)
        assert all(bool(torch.isfinite(value).all()) for value in losses.values())
        losses["loss"].backward()
        parts = (f"vlm.hf.{path}." for path in (row.text, row.tower, row.projector))
        for part in (*parts, "extractor.", "slot_embedding"):
            assert gradient_of(model, part) > 0, part


@folders
@families
@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_answers_survive_a_model_folder(family, folder_of, reasoner, tmp_path):
    section = {"backbone": "tiny", "clue_extractor": EXTRACTOR, "clue_filter": "adaptive", "reasoner": reasoner}
    model = build_model(ModelSection.model_validate(section), folder_of(family), seed=0).eval()
    answers = model.predict(batch_of(model))
    assert len(answers) == 3
    assert all(sum(answer.option_probabilities) == pytest.approx(1, abs=1e-5) for answer in answers)
    save_model(model, tmp_path, recipe={"name": "x", "model": section}, frame_policy={}, card={})
    again = load_model(tmp_path)
    assert again.predict(batch_of(again)) == answers


@families
def test_open_questions_and_chains_are_written(family):
    model = tiny_model(folder=small_checkpoint(family), reasoner={"name": "clue_chain", "generate_chain": True})
    open_question = example(3, options=(), answer="red")
    batch = model.collate([(clip(0), [example(0), open_question])], seed=0, shuffle_options=False)
    for answer in model.predict(batch):
        assert isinstance(answer.chain, str)
    assert isinstance(model.predict(batch)[1].prediction, str)


@families
def test_half_precision_answers(family):
    backbone = {"name": "hf_vlm", "path": str(checkpoint(family)), "dtype": "bfloat16"}
    model = tiny_model(
        folder=checkpoint(family), backbone=backbone, reasoner="clue_chain", clue_extractor=EXTRACTOR
    ).eval()
    assert {p.dtype for p in model.vlm.parameters()} == {torch.bfloat16}
    answers = model.predict(batch_of(model))
    assert all(sum(answer.option_probabilities) == pytest.approx(1, abs=1e-2) for answer in answers)
    model.train()
    model(batch_of(model), stage=Stage1(steps=1, losses=EVERYTHING), seed=0)["loss"].backward()
    assert gradient_of(model, "extractor.") > 0


# ------------------------------------------------------------------------------------------------------- tiny


class Context(PretrainContext):
    """Clips whose clues are seen at three times, so that perception can be taught."""

    seed = 0
    question = None

    def __init__(self, folder):
        self.folder, self.losses, self.notes = folder, [], []

    def examples(self):
        boxes = tuple(Box(seconds, 0.0, 0.0, 0.34, 0.5) for seconds in (0.0, 0.3, 0.7))
        clue = example().clues[0]
        asked = {"question": self.question} if self.question else {}
        return [example(i, clues=(Clue(clue.text, 0.0, 0.8, boxes, clue.concepts),), **asked) for i in range(4)]

    def frames(self, example):
        return clip(0)

    def shared(self, depends_on, make):
        folder = self.folder.with_name(f"part-{content_hash(depends_on)}")
        if not folder.exists():
            folder.mkdir()
            make(folder)
        return folder

    def progress(self, done, total, **values):
        self.losses += [values["loss"]] if values else []

    def note(self, text):
        self.notes.append(text)


def test_tiny_offers_every_family():
    assert set(get_args(register.backbone["tiny"].Config.model_fields["family"].annotation)) == set(FAMILIES)


@families
def test_tiny_is_schooled_in_every_family(family, tmp_path):
    settings = {
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "vision_hidden": 32,
        "image": 32,
        "perception_steps": 30,
        "copy_steps": 3,
    }
    tiny = register.backbone.parse({"name": "tiny", "family": family, "copy_questions": 16, **settings}).build()
    context = Context(tmp_path)
    tiny.pretrain(context)
    assert context.notes == []
    assert context.losses[29] < 0.7 * context.losses[0]
    vlm = VisionLanguageModel.load(tmp_path)
    assert vlm.hf.config.model_type == family
    grid = vlm.grid(clip(0).frames_THWC, clip(0).seconds_T)
    assert vlm.labels(grid) == [f"<t{block}>" for block in range(grid.blocks)]
    prompt = vlm.tokenizer.convert_ids_to_tokens(vlm.video_ids(grid))
    assert [word for word in prompt if word.startswith("<t")] == vlm.labels(grid)


def test_bases_that_see_other_frames_are_taught_to_copy_once(tmp_path, monkeypatch):
    """And are the same, bit by bit, as one that was taught all by itself."""
    small = {
        "name": "tiny",
        "hidden": 64,
        "layers": 2,
        "heads": 2,
        "vision_hidden": 32,
        "copy_steps": 3,
        "copy_questions": 16,
    }

    def base(store, name, **settings):
        (store / name).mkdir(parents=True)
        register.backbone.parse({**small, **settings}).build().pretrain(Context(store / name))
        return {key: p.clone() for key, p in VisionLanguageModel.load(store / name).hf.named_parameters()}

    base(tmp_path / "a", "one", perception_steps=4)
    alone = base(tmp_path / "b", "other", perception_steps=2)
    for number, other in enumerate(({"copy_steps": 4}, {"hidden": 96}, {"seed": 1}, {"question": "another ?"})):
        with pytest.raises(pytest.fail.Exception, match="taught again"), monkeypatch.context() as patch:
            patch.setattr(pretraining, "teach_copying", lambda *_, **__: pytest.fail("taught again"))
            patch.setattr(Context, "seed", other.pop("seed", 0))
            patch.setattr(Context, "question", other.pop("question", None))
            base(tmp_path / "a", f"more{number}", perception_steps=2, **other)
    monkeypatch.setattr(pretraining, "teach_copying", lambda *_, **__: pytest.fail("taught again"))
    shared = base(tmp_path / "a", "other", perception_steps=2)
    assert alone.keys() == shared.keys()
    assert all(torch.equal(value, shared[key]) for key, value in alone.items())


def test_squares_of_a_part_of_a_token_are_refused():
    with pytest.raises(ValueError, match="image 40 must be a multiple of 2 x patch 8"):
        register.backbone["tiny"].Config(family="internvl", image=40)


# ----------------------------------------------------------------------------------------- what else reads backbones


@families
def test_clues_stand_behind_the_shared_prompt(family):
    """They depend on the question: before it, they would change what all questions about a clip share."""
    model = tiny_model(folder=checkpoint(family), reasoner="clue_chain", clue_extractor=EXTRACTOR).eval()
    batch = batch_of(model)
    with torch.no_grad():
        prefix = model.watch(batch.prefix)
        before = [(keys.clone(), values.clone()) for keys, values in prefix.keys_values]
        empty = model.silence(batch.labels.words_BQKW)
        one, other = (model.reason(batch, prefix, clues) for clues in (empty, empty + 0.5))
    assert not torch.equal(one, other)
    for kept, now in zip(before, prefix.keys_values, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    positions = batch.answer.packed.positions_BL[:, 0].tolist()
    assert positions == batch.prefix.text_starts  # the question first, its clues behind it


@families
def test_a_local_teacher_of_every_family_writes_what_generate_writes(family):
    pair, prompt = BackbonePair.of(checkpoint(family), "cpu"), "which one hits red ?"
    given = pair.ordinary_inputs(pair.clips[0], pair.text(prompt))
    with torch.no_grad():
        theirs = pair.hf.generate(**given, max_new_tokens=6, do_sample=False)[0, given["input_ids"].shape[1] :]
    reply = LocalTeacher(str(checkpoint(family)), max_tokens=6).ask(Request(prompt, pair.clips[0].frames))
    assert reply.text == pair.vlm.tokenizer.decode(theirs, skip_special_tokens=True).strip()


def test_perception_is_taught_only_where_it_is_said_what_is_there():
    """Families with a block per frame see the same between two boxes; teaching `nothing` there would contradict the boxes."""
    boxes = tuple(Box(seconds, 0.0, 0.0, 0.5, 0.5) for seconds in (0.0, 1.0))
    state = Clue("red square", 0.0, 1.0, boxes, {"who": "red"})
    grid = Grid(4, 2, 2, (0.0, 0.5, 1.0, 1.5))
    targets = pretraining.patch_targets([state], grid, {"who": [pretraining.NOTHING, "red"]}).view(4, 4, -1)
    who, untaught = CONCEPT_ROLES.index("who"), [pretraining.UNTAUGHT] * 4
    assert targets[..., who].tolist() == [[1, 0, 0, 0], untaught, [1, 0, 0, 0], untaught]
    assert (targets[0, :, [role for role in range(len(CONCEPT_ROLES)) if role != who]] == 0).all()
