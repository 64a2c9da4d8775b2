"""Contract tests over the registries of the model's components, and what each built-in filter keeps."""

import pytest
import torch

from cluenet.config.train import Losses, Stage1
from cluenet.plugins import load_components
from cluenet.registry import register
from helpers.models import clip, example, tiny_model

load_components()
KINDS = ("backbone", "clue_extractor", "clue_filter", "reasoner")
EVERY = [(kind, name) for kind in KINDS for name in register.kinds()[kind]]
WIDTH, WORDS = 8, 4
GATES = torch.tensor([[[0.9, 0.2, 0.6, 0.6]]])
ALL = torch.ones(1, 1, 4, dtype=torch.bool)


def build(name, **settings):
    config = register.clue_filter.parse({"name": name, **settings})
    return config.build(**({"width": WIDTH, "words": WORDS} if config.component.learned else {}))


def kept(clue_filter, gates=GATES, present=ALL, seed=0):
    return clue_filter.keep(gates, present, seeds_BQ=torch.tensor([[seed]]))[0, 0].int().tolist()


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_is_described_versioned_and_its_settings_explained(kind, name):
    cls = register.kinds()[kind][name]
    assert cls.__doc__
    assert isinstance(cls.version, int)
    assert (cls.kind, cls.name) == (kind, name)
    assert all(field.description for field in cls.Config.model_fields.values())


@pytest.mark.parametrize("extractor", list(register.clue_extractor))
@pytest.mark.parametrize("clue_filter", list(register.clue_filter))
@pytest.mark.parametrize("reasoner", list(register.reasoner))
def test_every_combination_trains_and_answers(extractor, clue_filter, reasoner):
    model = tiny_model(clue_extractor=extractor, clue_filter=clue_filter, reasoner=reasoner)
    batch = model.collate([(clip(0), [example(0), example(1)])], seed=0, shuffle_options=False)
    model.train()
    model(batch, stage=Stage1(steps=1, losses=Losses(answer=1, concept=1)), seed=0)["loss"].backward()
    for answer in model.predict(batch):
        assert sum(answer.option_probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", list(register.clue_filter))
def test_empty_slots_are_never_kept_and_the_shape_stays(name):
    present = torch.tensor([[[True, False, True, False]]])
    result = build(name).keep(GATES, present, seeds_BQ=torch.tensor([[0]]))
    assert result.shape == present.shape
    assert not (result & ~present).any()


@pytest.mark.parametrize("name", [name for name in register.clue_filter if register.clue_filter[name].learned])
def test_a_gate_scores_every_clue_and_sees_the_others(name):
    torch.manual_seed(0)
    gate, clues, stem = build(name), torch.randn(2, 3, 4, WORDS, WIDTH), torch.randn(2, 3, WIDTH)
    sure = torch.randn(2, 3, 4)
    before = gate.gate_logits(clues, stem, sure)
    assert before.shape == (2, 3, 4)
    changed = clues.clone()
    changed[:, :, 3] = torch.randn(2, 3, WORDS, WIDTH)
    assert not torch.allclose(gate.gate_logits(changed, stem, sure)[:, :, 0], before[:, :, 0])


def test_keep_all_keeps_all():
    assert kept(build("keep_all")) == [1, 1, 1, 1]


@pytest.mark.parametrize(("k", "wanted"), [(1, [1, 0, 0, 0]), (2, [1, 0, 1, 0]), (3, [1, 0, 1, 1]), (9, [1, 1, 1, 1])])
def test_top_k_keeps_the_highest_gates_the_earlier_among_equals(k, wanted):
    assert kept(build("top_k", k=k)) == wanted


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"threshold": 0.3}, [1, 0, 1, 1]),
        ({"threshold": 0.6}, [1, 0, 1, 1]),
        ({"threshold": 0.3, "max_clues": 2}, [1, 0, 1, 0]),
        ({"threshold": 0.95}, [0, 0, 0, 0]),
    ],
)
def test_adaptive_keeps_what_passes_at_most_so_many_or_nothing(settings, wanted):
    assert kept(build("adaptive", **settings)) == wanted


def test_random_follows_its_seed_and_its_share_and_not_the_gates():
    present = torch.ones(50, 10, 4, dtype=torch.bool)
    half = build("random", keep=0.5)
    seeds = torch.arange(500).view(50, 10)
    one, again, other = (half.keep(None, present, seeds_BQ=seeds + shift) for shift in (0, 0, 1000))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert float(one.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(one, half.keep(torch.rand(50, 10, 4), present, seeds_BQ=seeds))
    assert torch.equal(one[7:9], half.keep(None, present[7:9], seeds_BQ=seeds[7:9]))  # whatever else is in the batch
