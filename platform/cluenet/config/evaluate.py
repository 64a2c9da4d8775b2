"""`evaluate:` — scoring at the end."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cluenet.config.base import Section
from cluenet.config.pruning import NoPruning, Pruning
from cluenet.steps import setting

Row = Literal["own", "oracle", "none", "text"]


class EvaluateSection(Section):
    questions_per_batch: int = setting(64, "evaluate", description="Questions of one forward pass; whole clips.", ge=1)
    rows: tuple[Row, ...] = setting(
        ("own", "oracle", "none", "text"),
        "evaluate",
        description="Whose clues are read: the model's own, ground truth, none, the displayed words alone.",
    )
    mode: Literal["letters", "generate"] = setting(
        "letters",
        "evaluate",
        description="letters: the options are scored as model.reasoner.scoring says; generate: the model writes free text, and "
        "the option that it names is read from it.",
    )
    max_new_tokens: int = setting(
        32, "evaluate", description="Tokens after which what the model writes is cut; also of open questions.", ge=1
    )
    pruning: Pruning = setting(
        NoPruning(),
        "evaluate",
        description="Which visual tokens the answer pass sees: none (all), two_pass or kv_select.",
    )
    shuffles: int = setting(
        1,
        "evaluate",
        description="In how many orders every question's options are shown; with several, results say how scores depend on "
        "it. 0: once, as the dataset stores them.",
        ge=0,
    )
    seed: int = setting(
        0, "evaluate", description="Makes, with a question's id, the orders in which its options are shown.", ge=0
    )
    faithfulness: bool = setting(
        False,
        "evaluate",
        description="Change the clues and watch the answer: whether it rests on them. Many more answer passes, the video is "
        "still looked at once; measures row `oracle` too.",
    )
    bootstrap: int = setting(1000, "evaluate", description="Resamples (of videos) behind every interval.", ge=100)
    workers: int = setting(1, "none", description="Evaluation processes.", ge=1)
    threads: int = setting(1, "evaluate", description="Torch threads per process; fixed, so that bytes repeat.", ge=1)

    @model_validator(mode="after")
    def _faithfulness_can_be_measured(self) -> EvaluateSection:
        if self.faithfulness and self.mode == "generate":
            raise ValueError(
                "faithfulness compares the probabilities of options, and mode `generate` answers without them. Set mode to "
                "letters, or faithfulness to false"
            )
        if self.faithfulness and not isinstance(self.pruning, NoPruning):
            raise ValueError(
                f"faithfulness changes clues before a whole video, and pruning is {self.pruning.name}. Set pruning to none, or "
                "faithfulness to false"
            )
        return self
