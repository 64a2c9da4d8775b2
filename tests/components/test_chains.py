"""`generate_chain`: the model writes its reasoning, then answers after it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cluenet.config.train import Losses, Stage1, Stage2
from cluenet.errors import RecipeError, SupervisionError
from cluenet.evaluate.evaluator import evaluate
from cluenet.evaluate.files import read_samples
from cluenet.folders import read_manifest
from cluenet.model import chains
from cluenet.model.evidence import for_row
from cluenet.model.utilities import exact_utilities, gold_logprob
from cluenet.recipe import Recipe
from cluenet.train.supervision import supervise
from helpers.evaluation import Silent, model_folder, prepared_test, recipe
from helpers.models import clip, example, tiny_model

REASONERS = ("direct", "evidence", "clue_chain")
SCORINGS = ("letters", "likelihood")
QUESTIONS = (example(0), example(1, question="why does it move ?"), example(2, chain=None))


@pytest.fixture(autouse=True)
def short_chains(monkeypatch):
    monkeypatch.setattr(chains, "MOST_CHAIN_TOKENS", 12)


def writer(reasoner="evidence", scoring="letters", **section):
    """A model whose slots say something, and whose chains are ordinary words, of different length, that follow from all
    that it reads: an untrained model with tied embeddings would say its last word again and again."""
    model = tiny_model(reasoner=settings_of(reasoner, scoring), clue_filter="keep_all", **section)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.extractor.to_words.weight, std=2.0)
    with torch.no_grad():
        for name, parameter in model.vlm.text.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(10.0)
    make_plain(model.vlm)
    return model


def settings_of(reasoner, scoring):
    return {"name": reasoner, "scoring": scoring, "generate_chain": True}


def make_plain(vlm):
    """Another LM head; special tokens, which are not shown, are far less likely than words, but for the end."""
    special = torch.tensor([*vlm.tokenizer.added_tokens_decoder])
    head_VD = torch.randn(vlm.embeddings_VD.shape, generator=torch.Generator().manual_seed(1)) * 0.3
    shift_V = torch.zeros(len(head_VD)).index_fill(0, special, -30.0)
    shift_V[vlm.tokenizer.eos_token_id] = 3.0
    vlm.head = lambda states: torch.nn.functional.linear(states, head_VD, shift_V)


def batch_of(model, *questions, clips=1, chain=False):
    return model.collate([(clip(i), list(questions)) for i in range(clips)], seed=0, shuffle_options=False, chain=chain)


# ----------------------------------------------------------------------------- a plain model, one question, no packing


class Plain:
    """One question through Hugging Face's own forward pass: token ids in, no prefix, no cache, no packing, no branches."""

    def __init__(self, model, question, seed: int):
        self.model, self.vlm, self.question = model, model.vlm, question
        self.batch = model.collate([(clip(seed), [question])], seed=0, shuffle_options=False)
        with model.inference():
            look = model.look(self.batch)
            self.clues = for_row(model, "own", self.batch, look, 0)

    def before_chain(self) -> Tensor:
        """[1, L, D] embeddings up to the chain, the clues as the words that are displayed."""
        vlm, model = self.vlm, self.model
        lead = [] if model.reasoner.sees_video else vlm.ids(vlm.chat_parts()[0])
        lines = "".join(f"\n({chr(65 + i)}) {text}" for i, text in enumerate(self.question.options))
        options = vlm.ids("\nOptions:") + vlm.ids(lines) if model.letters else []
        parts = [self.words(lead + vlm.ids(self.question.question))]
        if model.slots:
            parts.append(self.clues.embeds_BQKWD[0, 0].flatten(0, 1))
        return torch.cat([*parts, self.words(options + vlm.ids("\nReasoning:"))])[None]

    def words(self, ids):
        return self.vlm.embeddings_VD[torch.tensor(ids, dtype=torch.long)]

    @torch.no_grad()
    def logprobs(self, embeds_1LD) -> Tensor:
        """[L, V] log-probabilities after every text token, the whole sequence at once."""
        text, prefix = self.vlm.text, self.batch.prefix
        first, before = 0, embeds_1LD[:, :0]
        if self.model.reasoner.sees_video:
            before, first = self.prompt(), int(prefix.positions_3BP.max()) + 1
        length = embeds_1LD.shape[1]
        positions = (first + torch.arange(length)).expand(3, 1, -1)
        positions = torch.cat([prefix.positions_3BP, positions], -1) if first else positions
        out = text(inputs_embeds=torch.cat([before, embeds_1LD], 1), position_ids=positions, use_cache=False)
        return self.vlm.head(out.last_hidden_state[0, -length:]).log_softmax(-1)

    def prompt(self):
        prefix = self.batch.prefix
        embeds = self.vlm.embeddings_VD[prefix.ids_BP].clone()
        embeds[0, prefix.visual_index_BN[0]] = self.vlm.encode(prefix.pixels, prefix.grid_B3)[0]
        return embeds

    def chain(self) -> list[int]:
        """One token at a time, the whole sequence through the model each time."""
        ids: list[int] = []
        while len(ids) < chains.MOST_CHAIN_TOKENS:
            embeds = torch.cat([self.before_chain(), self.words(ids)[None]], 1)
            token = int(self.logprobs(embeds)[-1].argmax())
            if token == self.vlm.tokenizer.eos_token_id:
                break
            ids.append(token)
        return ids

    def answer(self, chain_ids: list[int]) -> Tensor:
        """Log-probabilities of the options after this chain."""
        vlm = self.vlm
        after = [*chain_ids, vlm.tokenizer.eos_token_id, *vlm.ids(vlm.chat_parts()[2])]
        stem = torch.cat([self.before_chain(), self.words(after)[None]], 1)
        if self.model.letters:
            return self.logprobs(stem)[-1, vlm.letter_ids()[: len(self.question.options)]].log_softmax(-1)
        scores = []
        for option in self.question.options:
            ids = vlm.ids(f" {option}")
            found = self.logprobs(torch.cat([stem, self.words(ids)[None]], 1))[stem.shape[1] - 1 :]
            scores.append(sum(float(found[i, token]) for i, token in enumerate(ids)) / len(ids))
        return torch.tensor(scores).log_softmax(-1)


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("reasoner", REASONERS)
def test_chain_and_answer_equal_a_plain_model_that_reads_one_question_at_a_time(reasoner, scoring):
    model = writer(reasoner, scoring)
    answers = model.predict(batch_of(model, *QUESTIONS, clips=2))
    lengths = set()
    for answer, (seed, question) in zip(answers, [(seed, q) for seed in range(2) for q in QUESTIONS], strict=True):
        plain = Plain(model, question, seed)
        ids = plain.chain()
        lengths.add(len(ids))
        assert answer.chain == model.vlm.tokenizer.decode(ids)
        read_back = plain.answer(model.vlm.ids(f" {answer.chain}"))  # from the text that is shown
        assert answer.option_logprobs == pytest.approx(read_back.tolist(), abs=1e-4)
    assert len(lengths) > 1  # some go on while others have ended
    assert max(lengths) > 1


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("reasoner", REASONERS)
def test_questions_packed_together_write_and_answer_as_if_alone(reasoner, scoring):
    model = writer(reasoner, scoring)
    together = model.predict(batch_of(model, *QUESTIONS))
    for answer, question in zip(together, QUESTIONS, strict=True):
        (alone,) = model.predict(batch_of(model, question))
        assert answer.chain == alone.chain
        assert answer.option_logprobs == pytest.approx(alone.option_logprobs, abs=1e-4)


def test_clips_with_fewer_questions_are_padded_without_effect():
    model = writer()
    rows = [(clip(0), [QUESTIONS[0]]), (clip(1), list(QUESTIONS))]
    together = model.predict(model.collate(rows, seed=0, shuffle_options=False))
    assert len(together) == 4
    (alone,) = model.predict(batch_of(model, QUESTIONS[0]))
    assert together[0].chain == alone.chain
    assert together[0].option_logprobs == pytest.approx(alone.option_logprobs, abs=1e-4)


def test_a_chain_that_does_not_end_is_cut(monkeypatch):
    monkeypatch.setattr(chains, "MOST_CHAIN_TOKENS", 3)
    model = writer()
    head, end = model.vlm.head, model.vlm.tokenizer.eos_token_id
    model.vlm.head = lambda states: head(states).index_fill(-1, torch.tensor([end]), -1e9)
    assert [len(model.vlm.ids(answer.chain)) for answer in model.predict(batch_of(model, *QUESTIONS))] == [3, 3, 3]


def test_the_answer_is_scored_after_the_chain_and_depends_on_it():
    model = writer()
    batch = batch_of(model, *QUESTIONS)
    with model.inference():
        look = model.look(batch)
        clues = model.own_evidence(batch, look).embeds_BQKWD
        found = []
        for word in ("red", "blue"):
            given = model.collator.with_chains(batch, [[model.vlm.ids(word)] * len(QUESTIONS)])
            found.append(model.option_logprobs(given, model.reason(given, look.prefix, clues)))
    assert not torch.allclose(found[0], found[1], atol=1e-4)


def test_without_the_setting_nothing_is_written():
    model = tiny_model()
    assert {answer.chain for answer in model.predict(batch_of(model, *QUESTIONS))} == {None}


# --------------------------------------------------------------------------------------------------- clues changed


@pytest.mark.parametrize("reasoner", ["evidence", "clue_chain"])
def test_other_clues_get_another_chain_and_the_answer_to_that(reasoner):
    model = writer(reasoner)
    batch = batch_of(model, *QUESTIONS)
    rows = model.predict_rows(batch, ("own", "oracle", "none"))
    written = {row: [answer.chain for answer in answers] for row, answers in rows.items()}
    assert written["own"] != written["none"]
    assert written["own"] != written["oracle"]
    look = model.look(batch)
    silent = model.logprobs_given(batch, look.prefix, model.silence(batch.labels.words_BQKW))
    for q, answer in enumerate(rows["none"]):
        assert silent[0, q, : len(QUESTIONS[q].options)].tolist() == pytest.approx(answer.option_logprobs, abs=1e-5)


def test_a_clues_worth_at_inference_is_measured_with_chains_written_anew():
    model = writer("clue_chain")
    batch = batch_of(model, *QUESTIONS)
    with model.inference():
        look, words = model.look(batch), batch.labels.words_BQKW
        none = model.collator.vocabulary.none
        present = words.ne(none).any(-1)
        found = exact_utilities(model, batch, look.prefix, words, present, kind="add_one")

        def score(ids):
            logprobs = model.logprobs_given(batch, look.prefix, model.displayed(ids))
            return logprobs.gather(-1, batch.labels.gold_BQ[..., None])[..., 0]

        nothing = score(torch.full_like(words, none))
        for k in range(words.shape[2]):
            alone = torch.full_like(words, none)
            alone[:, :, k] = words[:, :, k]
            wanted = (score(alone) - nothing).masked_fill(~present[..., k], 0.0)
            assert torch.allclose(found[..., k], wanted, atol=1e-5)
    assert bool(present.any())


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("reasoner", REASONERS)
def test_losses_equal_a_plain_model_that_reads_the_labelled_chain(reasoner, scoring):
    """The chain's tokens and its end, then the right answer after them; without a label the answer after an empty chain."""
    model = tiny_model(
        reasoner=settings_of(reasoner, scoring), clue_filter="keep_all", clue_extractor={"name": "oracle", "slots": 2}
    )  # fmt: skip
    out = model.train()(
        batch_of(model, *QUESTIONS, chain=True), stage=Stage1(steps=1, losses=Losses(answer=1, chain=1)), seed=0
    )
    model.eval()
    chain, answer, vlm = [], [], model.vlm
    for question in QUESTIONS:
        plain = Plain(model, question, 0)
        ids = vlm.ids(question.chain) if question.chain else []
        before = plain.before_chain()
        if question.chain:
            target = [*ids, vlm.tokenizer.eos_token_id]
            found = plain.logprobs(torch.cat([before, plain.words(target)[None]], 1))[before.shape[1] - 1 :]
            chain += [-float(found[i, token]) for i, token in enumerate(target)]
        answer += losses_of_the_answer(plain, ids, scoring)
    assert float(out["chain"].detach()) == pytest.approx(sum(chain) / len(chain), rel=1e-4)
    assert float(out["answer"].detach()) == pytest.approx(sum(answer) / len(answer), rel=1e-4)
    assert int(out["labels/chain"]) == 2


def losses_of_the_answer(plain, chain_ids, scoring):
    vlm, question = plain.vlm, plain.question
    after = [*chain_ids, vlm.tokenizer.eos_token_id, *vlm.ids(vlm.chat_parts()[2])]
    stem = torch.cat([plain.before_chain(), plain.words(after)[None]], 1)
    gold = question.answer
    right = [vlm.letter_ids()[gold]] if scoring == "letters" else vlm.ids(f" {question.options[gold]}")
    found = plain.logprobs(torch.cat([stem, plain.words(right)[None]], 1))[stem.shape[1] - 1 :]
    return [-float(found[i, token]) for i, token in enumerate(right)]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_rows_see_their_own_labelled_chain_and_no_other(scoring):
    """Attention masks of a training batch, read back as tokens: nothing of another question, all of the own chain."""
    model = writer("direct", scoring)
    two = (example(0, chain="red is square"), example(1, chain="it does move itself"))
    batch = batch_of(model, *two, chain=True)
    rows, tokenizer = batch.answer.packed, model.vlm.tokenizer
    ends = [int(batch.answer.answer_index_BQ[0, q]) for q in range(2)]
    ends += [row[3] for row in batch.answer.option_rows.tolist()]
    questions = [0, 1] + [row[1] for row in batch.answer.option_rows.tolist()]
    for end, q in zip(ends, questions, strict=True):
        seen = tokenizer.decode(rows.ids_BL[0, rows.allowed_BLL[0, end]])
        assert two[q].chain in seen
        assert two[1 - q].chain not in seen
    for _, q, column, _ in batch.answer.chain_rows.tolist():
        assert column < ends[q]  # the chain is taught before the answer, which it cannot see


def test_questions_do_not_see_each_others_labelled_chains():
    model = writer("direct").train()
    stage = Stage1(steps=1, losses=Losses(answer=1, chain=1))
    neighbour = [replace(QUESTIONS[0], chain=chain) for chain in ("red", "why does it move itself ?")]
    found = []
    for other in neighbour:
        batch = batch_of(model, other, QUESTIONS[1], chain=True)
        with torch.no_grad():
            hidden = model.reason(batch, model.see(batch, stage).prefix, batch_clues(model, batch))
        found.append(hidden[0, batch.answer.answer_index_BQ[0]])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)
    assert not torch.allclose(found[0][0], found[1][0], atol=1e-2)


def batch_clues(model, batch):
    return model.displayed(batch.labels.words_BQKW)


def test_the_filters_targets_in_training_come_from_chain_and_answer_together():
    """The labelled chain gives the answer away, so the answer's probability after it says nothing about a clue."""
    model = tiny_model(reasoner={"name": "evidence", "generate_chain": True}).train()
    batch = batch_of(model, *QUESTIONS, chain=True)
    with torch.no_grad():
        hidden = model.reason(batch, None, batch_clues(model, batch))
        found, answer = gold_logprob(model, batch, hidden), model.option_logprobs(batch, hidden)
        logprobs = model.vlm.head(hidden).log_softmax(-1)
    for q in range(len(QUESTIONS)):
        rows = [row for row in batch.answer.chain_rows.tolist() if row[1] == q]
        chain = math.fsum(float(logprobs[0, column, token]) for _, _, column, token in rows)
        assert bool(rows) == (QUESTIONS[q].chain is not None)
        assert float(found[0, q]) == pytest.approx(chain + float(answer[0, q, QUESTIONS[q].answer]), abs=1e-4)
    out = model(batch, stage=Stage2(steps=1, losses=Losses(answer=1, chain=1, filter=1)), seed=0)
    assert math.isfinite(float(out["filter"].detach()))


def test_a_taught_model_writes_the_labelled_chains_and_answers_after_them():
    torch.manual_seed(0)
    model = tiny_model(
        reasoner=settings_of("evidence", "likelihood"), clue_filter="keep_all", clue_extractor="none"
    ).train()
    questions = [QUESTIONS[0], replace(QUESTIONS[1], chain="green is square . so blue")]
    batch = batch_of(model, *questions, chain=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(batch, stage=Stage1(steps=1, losses=Losses(answer=1, chain=1)), seed=0)["loss"].backward()
        optimizer.step()
    answers = model.predict(batch_of(model, *questions))
    assert [answer.chain for answer in answers] == [question.chain for question in questions]
    assert [answer.prediction for answer in answers] == [question.answer for question in questions]


def recipe_values(**losses):
    stage = {"steps": 1, "losses": {"answer": 1, **losses}}
    model = {"clue_extractor": "none", "reasoner": {"name": "direct", "generate_chain": True}}
    return {"data": {"train": ["clueworld"]}, "model": model, "train": {"stage1": stage, "stage2": {"steps": 0}}}


def test_training_without_the_chain_loss_is_refused():
    with pytest.raises(RecipeError, match=r"train\.stage1\.losses\.chain: is 0, but model\.reasoner\.generate_chain"):
        Recipe.from_dict(recipe_values())
    assert Recipe.from_dict(recipe_values(chain=0.5)).model.reasoner.to_dict()["generate_chain"] is True


def test_training_data_without_any_chain_are_refused_and_missing_ones_are_said():
    made = Recipe.from_dict(recipe_values(chain=1))
    labels = dict.fromkeys(("answer", "chain", "clues", "times", "boxes", "concepts"), 10)
    manifest = {"rows": {"in": 10, "ready": 10, "quarantined": 0}, "labels": {**labels, "chain": 4}}
    found = supervise("stage1", made.train.stage1, made.model, [manifest])
    assert (
        "stage1: 6 of 10 questions have no labelled chain: their answers are taught after an empty one" in found.lines()
    )
    manifest["labels"]["chain"] = 0
    with pytest.raises(SupervisionError, match="none of 10 training questions has a labelled chain"):
        supervise("stage1", made.train.stage1, made.model, [manifest])


# ------------------------------------------------------------------------------------------------------- evaluation


def test_samples_hold_the_chains_of_every_row_and_the_manifest_what_a_question_takes(tmp_path):
    settings = recipe(evaluate={"questions_per_batch": 8, "bootstrap": 100, "rows": ["own", "oracle"]})
    written = {}
    for wanted in (True, False):
        folder, out = tmp_path / f"model-{wanted}", tmp_path / f"out-{wanted}"
        model_folder(folder, recipe=settings, reasoner={"name": "evidence", "generate_chain": wanted})
        test = prepared_test(tmp_path / f"prepared-{wanted}", recipe=settings, clips=2)
        (name,) = evaluate(settings, model_folder=folder, prepared=[test], out=out, progress=Silent, local=True)
        written[wanted] = read_samples(out / name)
        assert read_manifest(out / name)["seconds_per_question"] > 0
    for sample in written[True]:
        assert sample["chain"] == example(0).chain
        assert all(isinstance(place["generated_chain"], str) for place in (sample, sample["rows"]["oracle"]))
    assert not any(
        "generated_chain" in place for sample in written[False] for place in (sample, *sample["rows"].values())
    )
