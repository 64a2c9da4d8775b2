"""What a stage can be taught, in words and counts, before a worker starts."""

import pytest

from cluenet.config.model import ModelSection
from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.errors import SupervisionError
from cluenet.plugins import load_components
from cluenet.train.supervision import has_clues, supervise

ALL = dict.fromkeys(("answer", "chain", "clues", "times", "boxes", "concepts"), 100)
EVERYTHING = Losses(answer=1, chain=1, concept=2, attention=0.5, filter=0.2)

CLUES_TOO = EVERYTHING.model_copy(update={"span": 0.3, "presence": 0.1, "alignment": 1, "counterfactual": 1})


def manifest(questions=100, **labels):
    return {"rows": {"in": questions, "ready": questions, "quarantined": 0}, "labels": {**ALL, **labels}}


def model(extractor="latent_slots", clue_filter="adaptive", reasoner="evidence"):
    load_components()
    values = {"backbone": "tiny", "clue_extractor": extractor, "clue_filter": clue_filter, "reasoner": reasoner}
    return ModelSection.model_validate(values)


def states(supervision):
    """Of the terms that have a weight."""
    return {term.name: term.state for term in supervision.terms if term.weight}


def test_fully_labelled_data_teach_everything():
    found = supervise("stage2", Stage2(steps=1, losses=EVERYTHING), model(), [manifest()])
    assert set(states(found).values()) == {"taught"}
    assert found.notes == ()
    assert found.lines()[0] == "stage2: answer x 1: 100 of 100 questions have labels"


def test_missing_labels_are_counted_over_all_sets():
    sets = [manifest(chain=40), manifest(50, answer=50, chain=0, clues=50, boxes=50)]
    found = supervise("stage1", Stage1(steps=1, losses=EVERYTHING), model(), sets)
    chain = found.terms[1]
    assert (chain.labels, chain.questions, chain.state) == (40, 150, "taught")
    assert "stage1: chain x 1: 40 of 150 questions have labels, masked for the other 110" in found.lines()


def test_a_term_without_any_label_is_masked_and_said():
    found = supervise("stage1", Stage1(steps=1), model(), [manifest(clues=0, boxes=0, times=0, concepts=0)])
    assert states(found) == {
        "answer": "taught",
        "chain": "taught",
        "concept": "no labels",
        "attention": "no labels",
    }
    assert "stage1: concept x 2: masked everywhere, none of 100 questions has labels" in found.lines()
    assert "stage1: the reasoner reads ground-truth clues, and 100 of 100 questions have none labelled" in found.lines()
    assert not any(line.startswith("stage1: filter") for line in found.lines())


@pytest.mark.parametrize(
    ("components", "term", "reason"),
    [
        ({"extractor": "none", "reasoner": "direct"}, "concept", "the reasoner `direct` reads no clues"),
        ({"extractor": "none", "reasoner": "clue_chain"}, "attention", "the clue extractor `none` learns nothing"),
        ({"extractor": "oracle"}, "concept", "the clue extractor `oracle` learns nothing"),
        ({"extractor": "oracle"}, "filter", "the clue extractor `oracle` states no clues of its own"),
        ({"extractor": "logit_lens"}, "concept", "the clue extractor `logit_lens` learns nothing"),
        ({"extractor": "generated"}, "attention", "the clue extractor `generated` is not taught by it"),
        ({"clue_filter": "keep_all"}, "filter", "the clue filter `keep_all` has no gate"),
    ],
)
def test_terms_that_do_not_apply(components, term, reason):
    found = supervise("stage2", Stage2(steps=1, losses=EVERYTHING), model(**components), [manifest()])
    term = next(t for t in found.terms if t.name == term)
    assert (term.state, term.reason) == ("not applicable", reason)
    assert f"does not apply, {reason}" in str(term)


def test_a_presence_loss_needs_a_presence_score_and_says_how_to_get_one():
    stage = Stage1(steps=1, losses=Losses(presence=1))
    (term,) = (t for t in supervise("stage1", stage, model(), [manifest()]).terms if t.name == "presence")
    assert (term.state, term.reason) == (
        "not applicable",
        "the clue extractor `latent_slots` is not taught by it (set `presence: learned`)",
    )
    scored = supervise("stage1", stage, model({"name": "latent_slots", "presence": "learned"}), [manifest()])
    assert states(scored)["presence"] == "taught"
    assert not any("presence" in note for note in scored.notes)
    untaught = supervise(
        "stage1", Stage1(steps=1), model({"name": "latent_slots", "presence": "learned"}), [manifest()]
    )
    assert any("losses.presence is 0" in note for note in untaught.notes)


def test_a_reasoner_on_clues_that_nobody_taught_reads_them_without_labels():
    found = supervise("stage2", Stage2(steps=1), model("logit_lens"), [manifest(clues=0)])
    assert not any("ground-truth clues" in note for note in found.notes)
    assert states(found)["filter"] == "taught"


def test_the_filter_is_not_taught_on_ground_truth():
    found = supervise("stage1", Stage1(steps=1, losses=EVERYTHING), model(), [manifest()])
    assert states(found)["filter"] == "not applicable"


def test_nothing_to_learn_from_names_stage_terms_counts_and_the_next_step():
    stage = Stage1(steps=1, losses=Losses(answer=0, chain=1, concept=2))
    with pytest.raises(SupervisionError) as caught:
        supervise("stage1", stage, model(), [manifest(chain=0, clues=0, boxes=0)])
    text = str(caught.value)
    for part in ("stage1 has nothing to learn from", "train.stage1.losses", "chain x 1: masked everywhere",
                 "concept x 2: masked everywhere", "answer 100", "chain 0", "`data.clue_source`", "`train.stage1.steps: 0`"):  # fmt: skip
        assert part in text


def test_clue_losses_alone_on_a_model_without_clues():
    stage = Stage1(steps=1, losses=Losses(answer=0, chain=0, concept=2, attention=1))
    with pytest.raises(SupervisionError, match="does not apply, the reasoner `direct` reads no clues"):
        supervise("stage1", stage, model("none", reasoner="direct"), [manifest()])


def test_all_weights_zero():
    stage = Stage2(steps=1, losses=Losses(answer=0))
    with pytest.raises(SupervisionError, match=r"train\.stage2\.losses: every weight is 0"):
        supervise("stage2", stage, model(), [manifest()])


def test_an_empty_training_set():
    with pytest.raises(SupervisionError, match="0 training questions"):
        supervise("stage1", Stage1(steps=1), model(), [manifest(0, **dict.fromkeys(ALL, 0))])


def test_it_agrees_with_what_the_model_computes():
    """The terms the real model returns are exactly those that are said to be taught."""
    from helpers.models import clip, example, tiny_model

    for components in (
        {},
        {"extractor": "none", "reasoner": "direct"},
        {"extractor": "oracle"},
        {"clue_filter": "keep_all"},
        {"extractor": "generated"},
        {"extractor": "attention"},
        {"extractor": {"name": "latent_slots", "presence": "learned", "matching": "hungarian"}},
    ):
        section = model(**components)
        net = tiny_model(
            **{name: section.model_dump()[name] for name in ("clue_filter", "reasoner", "clue_extractor")}
        ).train()
        batch = net.collate([(clip(), [example(0), example(1)])], seed=0, shuffle_options=False, chain=True)
        for name, stage in (
            ("stage1", Stage1(steps=1, losses=CLUES_TOO)),
            ("stage2", Stage2(steps=1, losses=CLUES_TOO)),
        ):
            said = {t.name for t in supervise(name, stage, section, [manifest()]).terms if t.state == "taught"}
            computed = {
                key.removeprefix("labels/") for key in net(batch, stage=stage, seed=0) if key.startswith("labels/")
            }
            assert computed == said, (components, name)


def test_who_has_clues():
    assert has_clues(model())
    assert has_clues(model("oracle"))
    assert not has_clues(model("none"))
    assert not has_clues(model(reasoner="direct"))
