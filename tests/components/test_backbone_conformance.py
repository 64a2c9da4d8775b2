"""The public suite for backbones, on a checkpoint of every family as a hub has them and on the small ones we train; and that
the suite notices what is wrong."""

from dataclasses import replace

import pytest
import torch

from cluenet.model import positions, vision
from cluenet.model.vlm import VisionLanguageModel
from cluenet.testing import backbone_pair, conformance
from helpers.checkpoints import FAMILIES, checkpoint, small_checkpoint


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("folder_of", [checkpoint, small_checkpoint], ids=["hub", "small"])
def test_conforms(folder_of, family, check):
    check(folder_of(family))


def counts_from_one(vlm, monkeypatch):
    right = vlm.positions
    monkeypatch.setattr(vlm, "positions", lambda ids, grid: right(ids, grid) * torch.tensor([[1], [2], [1]]))


def loses_deepstack(vlm, monkeypatch):
    right = vlm.project
    monkeypatch.setattr(vlm, "project", lambda tower: (right(tower)[0], [0 * level for level in right(tower)[1]]))


def forgets_windows(vlm, monkeypatch):
    monkeypatch.setattr(vlm, "family", replace(vlm.family, ordered=vision.as_it_is))


def sees_the_future(vlm, monkeypatch):
    right = vlm._prompt
    monkeypatch.setattr(
        vlm, "_prompt", lambda *args: {**(inputs := right(*args)), "attention_mask": inputs["attention_mask"] | True}
    )


def sees_padding(vlm, monkeypatch):
    right = vlm.prefix
    monkeypatch.setattr(vlm, "prefix", lambda *args, **kw: replace(p := right(*args, **kw), valid_BP=p.valid_BP | True))


def writes_into_the_prefix(vlm, monkeypatch):
    def text_pass(embeds, *args, prefix, **kw):
        states = right(embeds, *args, prefix=prefix, **kw)
        prefix.keys_values[0][0].add_(0.5)
        return states

    right = vlm.text_pass
    monkeypatch.setattr(vlm, "text_pass", text_pass)


def moves_what_is_left(vlm, monkeypatch):
    """Positions of pruned prompts counted anew."""
    right = vlm.prefix

    def prefix(batch, **kw):
        if hasattr(batch, "kept_M"):
            batch = replace(batch, positions_3BP=positions.counted(batch.ids_BP.shape[1])[:, None])
        return right(batch, **kw)

    monkeypatch.setattr(vlm, "prefix", prefix)


@pytest.mark.parametrize(
    ("family", "fault", "check"),
    [
        ("qwen3_vl", counts_from_one, conformance.check_nothing_pruned_equals_the_ordinary_forward_pass),
        ("qwen3_vl", loses_deepstack, conformance.check_visual_states_do_not_depend_on_the_question),
        ("qwen3_vl", loses_deepstack, conformance.check_pruned_prompt_with_clues_decodes_like_generate),
        ("qwen2_5_vl", forgets_windows, conformance.check_visual_embeddings_are_the_models_own),
        ("llava_onevision", sees_the_future, conformance.check_visual_states_do_not_depend_on_the_question),
        ("smolvlm", sees_padding, conformance.check_ragged_batches_equal_single_runs),
        ("internvl", writes_into_the_prefix, conformance.check_prefix_reuse_equals_separate_runs),
        ("internvl", moves_what_is_left, conformance.check_pruned_prompt_with_clues_decodes_like_generate),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_is_noticed(family, fault, check, monkeypatch):
    folder = checkpoint(family)
    both = replace(backbone_pair.opened(str(folder), "cpu"), vlm=VisionLanguageModel.load(folder).eval())
    monkeypatch.setattr(backbone_pair, "opened", lambda *args: both)
    check(folder)
    fault(both.vlm, monkeypatch)
    with pytest.raises(AssertionError, match=r"differ|generate writes"):
        check(folder)
