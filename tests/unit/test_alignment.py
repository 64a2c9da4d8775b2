"""What ties answers to clues, against plain Python and finite differences; whose clues another question is given; where the
words of options stand; which visual tokens are hidden."""

import math

import pytest
import torch

from cluenet.config.train import Stage2
from cluenet.errors import RecipeError
from cluenet.model.alignment import alignment_loss, counterfactual_loss, donors, option_columns
from cluenet.model.visual_dropout import drop_visual
from cluenet.model.vlm import Prefix
from cluenet.recipe import Recipe
from cluenet.records import VideoRef
from helpers.models import clip, example, tiny_model


def at(video, index=0, **changes):
    return example(index, video=VideoRef(f"{video}.mp4"), **changes)


def batch_of(model, *rows):
    return model.collate([(clip(i), row) for i, row in enumerate(rows)], seed=0, shuffle_options=False)


# ------------------------------------------------------------------------------------------------------ the losses


def cosine(a, b):
    dot, norms = sum(x * y for x, y in zip(a, b)), (math.sqrt(sum(x * x for x in v)) for v in (a, b))
    return dot / math.prod(norms)


def random_states():
    torch.manual_seed(0)
    clues, options = torch.randn(2, 2, 5, dtype=torch.double), torch.randn(2, 2, 4, 5, dtype=torch.double)
    gold, count = torch.tensor([[1, 0], [2, 0]]), torch.tensor([[2, 4], [3, 0]])  # the last question has no options
    return clues, options, gold, count, torch.tensor([[True, False], [True, False]])


def test_alignment_is_the_cross_entropy_of_the_right_option_among_its_own():
    clues, options, gold, count, mask = random_states()
    wanted = []
    for b, q in ((0, 0), (1, 0)):
        scores = [cosine(clues[b, q].tolist(), options[b, q, a].tolist()) / 0.3 for a in range(count[b, q])]
        wanted.append(math.log(sum(map(math.exp, scores))) - scores[gold[b, q]])
    found = float(alignment_loss(clues, options, gold, count, mask, temperature=0.3))
    assert found == pytest.approx(sum(wanted) / 2, rel=1e-9)


def test_counterfactual_is_a_hinge_in_nats():
    own, other = torch.tensor([[-0.5, -1.0, -3.0]]), torch.tensor([[-2.5, -1.2, -0.1]])
    mask = torch.tensor([[True, True, False]])
    wanted = [max(0.0, 1.0 - o + t) for o, t in ((-0.5, -2.5), (-1.0, -1.2))]
    assert wanted == pytest.approx([0.0, 0.8])
    assert float(counterfactual_loss(own, other, mask, margin=1.0)) == pytest.approx(sum(wanted) / 2)


def test_gradients_agree_with_finite_differences():
    clues, options, gold, count, mask = random_states()
    inputs = (clues.requires_grad_(), options.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, o: alignment_loss(c, o, gold, count, mask, temperature=0.3), inputs)
    own, other = (torch.randn(2, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    some = torch.tensor([[True, True, False], [True, False, True]])
    assert torch.autograd.gradcheck(lambda a, b: counterfactual_loss(a, b, some, margin=2.0), (own, other))


def test_without_labels_they_are_zero_and_their_gradient_is_zero_and_no_nan():
    clues, options = torch.zeros(1, 1, 3, requires_grad=True), torch.zeros(1, 1, 2, 3, requires_grad=True)
    none, nobody = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool)
    loss = alignment_loss(clues, options, none, none, nobody, temperature=0.1)
    loss = loss + counterfactual_loss(clues[..., 0], clues[..., 1], nobody, margin=1.0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert clues.grad.tolist() == [[[0.0] * 3]]
    assert options.grad.abs().sum() == 0


# ----------------------------------------------------------------------------------------------------- other clues


@pytest.mark.parametrize("seed", range(8))
def test_every_clip_is_given_the_clues_of_another_one_and_each_is_given_once(seed):
    model = tiny_model()
    batch = batch_of(model, [at("a"), at("a", 1), at("a", 2)], [at("b"), at("b", 1)], [at("c")])
    chosen, found = donors(batch, seed=seed)
    assert found.all()
    clips = [{place // 3 for place in row} for row in chosen.tolist()]
    assert all(len(row) == 1 and row != {b} for b, row in enumerate(clips))
    assert set.union(*clips) == {0, 1, 2}
    for b, row in enumerate(chosen.tolist()):  # its questions in turn, and from the first again
        count = (3, 2, 1)[row[0] // 3]
        assert [place % 3 for place in row] == [q % count for q in range(3)], b
    assert torch.equal(chosen, donors(batch, seed=seed)[0])


def test_the_seed_decides_who():
    model = tiny_model()
    batch = batch_of(model, *[[at(f"v{i}")] for i in range(5)])
    assert len({tuple(donors(batch, seed=seed)[0].flatten().tolist()) for seed in range(20)}) > 5


def test_a_clip_of_the_same_video_is_no_other():
    model = tiny_model()
    chosen, found = donors(batch_of(model, [at("a")], [at("a", 1)], [at("b")]), seed=0)
    assert found.all()
    assert chosen.flatten().tolist()[:2] == [2, 2]
    assert chosen[2, 0] in (0, 1)
    for rows in ([[at("a")]], [[at("a")], [at("a", 1)]]):
        assert not donors(batch_of(model, *rows), seed=0)[1].any()


# ---------------------------------------------------------------------------------------------------- option words

OPTIONS = (("red", "blue green", "cyan hits red"), ("square", "red"))


@pytest.mark.parametrize("generate_chain", [False, True])
@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_option_words_are_found_in_the_answer_pass(reasoner, scoring, generate_chain):
    model = tiny_model(reasoner={"name": reasoner, "scoring": scoring, "generate_chain": generate_chain})
    asked = [example(i, options=options, answer=0) for i, options in enumerate(OPTIONS)]
    unasked = example(2, options=(), answer="blue")
    rows = [(clip(0), [asked[0], unasked]), (clip(1), [asked[1]])]
    batch = model.collate(rows, seed=0, shuffle_options=False, chain=True)
    found: dict[tuple[int, int, int], list[int]] = {}
    for b, q, option, column in option_columns(model, batch).tolist():
        found.setdefault((b, q, option), []).append(int(batch.answer.packed.ids_BL[b, column]))
    wanted = {(b, 0, a): model.vlm.ids(words) for b, options in enumerate(OPTIONS) for a, words in enumerate(options)}
    assert found == wanted
    assert all(len(ids) == len(OPTIONS[b][a].split()) for (b, _, a), ids in found.items())


@pytest.mark.parametrize("scoring", ["letters", "likelihood"])
def test_without_options_there_is_no_column(scoring):
    model = tiny_model(reasoner={"name": "evidence", "scoring": scoring})
    assert option_columns(model, batch_of(model, [example(0, options=(), answer="red")])).shape == (0, 4)


# -------------------------------------------------------------------------------------------------- visual dropout


def prefix_of(model, batch):
    return Prefix([], batch.prefix.valid_BP, None, batch.prefix.visual_mask_BN)


def test_only_visual_tokens_are_hidden_as_often_as_said():
    model = tiny_model()
    rows = [(clip(i, frames=2 + 2 * i), [example(i)]) for i in range(4)]  # of different lengths
    batch = model.collate(rows, seed=0, shuffle_options=False)
    prefix, is_visual = prefix_of(model, batch), batch.prefix.ids_BP.eq(model.vlm.placeholder) & batch.prefix.valid_BP
    hidden = []
    for seed in range(40):
        dropped = prefix.valid_BP & ~drop_visual(prefix, batch.prefix, share=0.3, seed=seed).valid_BP
        assert not (dropped & ~is_visual).any()
        hidden.append(float(dropped.sum()) / float(is_visual.sum()))
    assert sum(hidden) / 40 == pytest.approx(0.3, abs=0.03)
    assert len(set(hidden)) > 5
    everything = drop_visual(prefix, batch.prefix, share=1.0, seed=0)
    assert torch.equal(everything.valid_BP, prefix.valid_BP & ~is_visual)
    assert torch.equal(drop_visual(prefix, batch.prefix, share=0.0, seed=0).valid_BP, prefix.valid_BP)
    once, again = (drop_visual(prefix, batch.prefix, share=0.5, seed=7).valid_BP for _ in range(2))
    assert torch.equal(once, again)


def test_the_share_is_linear_over_the_stage():
    stage = Stage2(steps=1, visual_dropout=(0.3, 0.1))
    assert [stage.visual_dropout_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.2, 0.1])


# -------------------------------------------------------------------------------------------------------- refusals


def refusal(stage, *, reasoner="evidence", validation=("clueworld",), name="stage2", **train):
    values = {
        "data": {"train": ["clueworld"], "validation": list(validation)}, "model": {"reasoner": reasoner},
        "train": {name: stage, **train},
    }  # fmt: skip
    try:
        Recipe.from_dict(values)
    except RecipeError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_visual_dropout_needs_a_reasoner_that_sees_the_video():
    (problem,) = refusal({"visual_dropout": [0.3, 0]})
    assert problem.startswith("train.stage2.visual_dropout: is [0.3, 0.0], but the reasoner 'evidence' sees no video")
    assert "clue_chain" in problem
    assert refusal({"visual_dropout": [0.3, 0]}, reasoner="clue_chain") == []
    assert refusal({"visual_dropout": [0.3, 0], "steps": 0}) == []


def test_a_trigger_needs_validation():
    (problem,) = refusal({"until": 0.8}, validation=(), name="stage1")
    assert problem.startswith("train.stage1.until: is 0.8, but data.validation is empty")
    assert refusal({"until": 0.8}, name="stage1") == []


def test_counterfactuals_need_two_clips_in_a_micro_batch():
    losses = {"counterfactual": 0.5}
    (problem,) = refusal({"losses": losses, "clips_per_batch": 4, "accumulate": 2}, workers=2)
    assert problem.startswith("train.stage2.losses.counterfactual: needs another video's clues")
    assert "4 / (2 x 2) = 1 clip." in problem
    assert refusal({"losses": losses, "clips_per_batch": 4, "accumulate": 2}) == []


def test_all_problems_are_said_at_once():
    stage = {"visual_dropout": [0.3, 0], "until": 0.5, "losses": {"counterfactual": 1}, "clips_per_batch": 1}
    assert len(refusal(stage, validation=())) == 3
