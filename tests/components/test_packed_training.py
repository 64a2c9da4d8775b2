"""Six questions of a clip in one row train as six rows with a question each: the same losses, the same gradients."""

from __future__ import annotations

import pytest
import torch

from cluenet.config.train import Stage1, Stage2
from cluenet.model import packing
from helpers.checkpoints import FAMILIES, small_checkpoint
from helpers.models import clip, example, tiny_model

QUESTIONS = [example(i, **({"chain": "blue hits red"} if i % 2 else {})) for i in range(6)]
EVERY_TERM = {
    "answer": 1.0,
    "chain": 0.7,
    "concept": 2.0,
    "attention": 0.5,
    "span": 0.3,
    "presence": 0.2,
    "alignment": 0.4,
}
STAGES = {
    "stage1": Stage1(losses={**EVERY_TERM, "filter": 0.0}),
    # all clues are measured, so that none is drawn at random; distractors are clues of the row's other questions
    "stage2": Stage2(losses={**EVERY_TERM, "filter": 0.6}, filter_loss={"measured": 2, "distractors": 0.0}),
}


def model_of(family: str, reasoner: str):
    extractor = {"name": "latent_slots", "slots": 2, "heads": 2, "presence": "learned"}
    torch.manual_seed(0)
    return tiny_model(folder=small_checkpoint(family), clue_extractor=extractor, reasoner=reasoner).train()


def trained(model, clips, stage):
    batch = model.collate(clips, seed=0, shuffle_options=False, chain=True)
    model.zero_grad()
    output = model(batch, stage=stage, seed=0)
    output["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return batch, {name: value.detach() for name, value in output.items()}, gradients


def compare(model, stage) -> None:
    packed, wanted = (
        trained(model, clips, stage)
        for clips in ([(clip(0), QUESTIONS)], [(clip(0), [question]) for question in QUESTIONS])
    )
    assert (packed[0].valid_BQ.shape, wanted[0].valid_BQ.shape) == ((1, 6), (6, 1))
    (_, found, mine), (_, losses, slopes) = packed, wanted
    assert found.keys() == losses.keys()
    assert {"answer", "chain", "concept", "attention", "span", "presence", "alignment"} <= losses.keys()
    for name, value in losses.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    assert mine.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert torch.allclose(mine[name], slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()) + 1e-7), name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_row_of_six_questions_trains_as_six_rows(family, stage):
    compare(model_of(family, "clue_chain"), STAGES[stage])


def test_the_same_where_the_answer_sees_no_video():
    compare(model_of("qwen3_vl", "evidence"), STAGES["stage2"])


@pytest.mark.parametrize("leak", ["looks", "positions"])
def test_questions_that_see_each_other_or_stand_elsewhere_are_noticed(leak, monkeypatch):
    """Guards the tests above: without the block-diagonal mask, or without positions that start again, they fail."""
    if leak == "looks":
        everything = lambda owner_BL, branch_BL: torch.ones(*owner_BL.shape, owner_BL.shape[1], dtype=torch.bool).tril()  # noqa: E731
        monkeypatch.setattr(packing, "_allowed", everything)
    else:
        whole = packing.pack

        def shifted(rows, **options):
            made = whole(rows, **options)
            made.positions_BL = made.positions_BL + torch.arange(made.positions_BL.shape[1])
            return made

        monkeypatch.setattr("cluenet.model.answer_rows.pack", shifted)
    with pytest.raises(AssertionError):
        compare(model_of("qwen3_vl", "clue_chain"), STAGES["stage1"])
