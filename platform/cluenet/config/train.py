"""`train:` — optimisation of both stages, checkpoints, workers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from cluenet.config.base import Section
from cluenet.config.strategy import Strategy
from cluenet.config.tuning import LearningRates, Tuning
from cluenet.steps import Step, setting

SIGMOID_STEEPNESS = 12.0
"""Of the scheduled-sampling curve: the first and the last sixth of a stage are close to its ends."""
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class Losses(Section):
    """Weights of the loss terms; 0 switches a term off. Terms without labels in a batch are masked and counted."""

    answer: float = Field(1.0, ge=0, description="Cross-entropy of the right answer.")
    chain: float = Field(0.0, ge=0, description="Cross-entropy of the reasoning chain, given the clues.")
    concept: float = Field(0.0, ge=0, description="Cross-entropy of the clue words of every slot.")
    attention: float = Field(0.0, ge=0, description="Cross-entropy of slot attention against where the clue is seen.")
    span: float = Field(
        0.0, ge=0, description="Distance and overlap (1 - tIoU) of the time a slot looks at with that of the clue."
    )
    presence: float = Field(
        0.0, ge=0, description="Cross-entropy of a slot's presence score (`clue_extractor.presence: learned`)."
    )
    filter: float = Field(0.0, ge=0, description="How well the filter's gate agrees with measured usefulness.")
    alignment: float = Field(
        0.0, ge=0, description="InfoNCE between the clues that are read and the right option, against the wrong ones."
    )
    counterfactual: float = Field(
        0.0,
        ge=0,
        description="Hinge: with the clues of another video the right answer must be less probable (one more answer pass).",
    )


class FilterLoss(Section):
    """How the filter's gate is taught, where `losses.filter` has a weight. Usefulness is a change of the right answer's
    log-probability, in nats, normalised over the options."""

    source: Literal["online", "offline"] = Field(
        "online",
        description="online: usefulness of some clues to the model as it is, measured at each step; offline: that of all clues "
        "to the model that stage 1 handed on, recorded once before stage 2 (which then costs no reasoning pass).",
    )
    utility: Literal["leave_one_out", "add_one", "mean"] = Field(
        "leave_one_out",
        description="What a clue does to the right answer: leaving it out of all clues (one more reasoning pass), adding it "
        "to none (two), or the mean of both (three), which also credits clues that say the same.",
    )
    measured: int = Field(
        1,
        ge=1,
        description="With `source: online`, clues of a question whose utility is measured at each step, at random; at most all "
        "slots.",
    )
    delta: float = Field(0.02, ge=0, description="Utility (nats) at which a clue counts as useful.")
    temperature: float = Field(
        0.01, gt=0, description="Softness of the target sigmoid((utility - delta) / temperature)."
    )
    ranking: float = Field(
        0.0, ge=0, description="Weight of the hinge that ranks gates like utilities that differ by more than delta."
    )
    margin: float = Field(0.2, gt=0, le=1, description="How far apart the hinge wants two gates.")
    budget: float = Field(0.0, ge=0, description="Weight of the squared excess of the mean gate over `budget_share`.")
    budget_share: Share = Field(0.5, description="Mean gate that costs nothing.")
    distractors: Share = Field(
        0.0,
        description="Share of empty slots that the gate, never the reasoner, sees filled with true but useless clues: those "
        "of other questions about the same clip.",
    )

    @model_validator(mode="after")
    def _ranking_needs_pairs(self) -> FilterLoss:
        if self.ranking and self.source == "online" and self.measured < 2 and not self.distractors:
            raise ValueError("ranking compares clues of a question: set `measured` to 2 or more, or give `distractors`")
        return self


class Stage(Section):
    steps: int = Field(ge=0, description="Optimiser steps; 0 skips the stage.")
    clues: Literal["truth", "own"] = Field(
        description="Whose clues the reasoner reads: ground truth, or the model's own."
    )
    truth_share: tuple[Share, Share] = Field(
        (0.0, 0.0),
        description="With `clues: own`, share of labelled questions that still read ground-truth clues, at the first and at "
        "the last step; an inverse sigmoid in between (scheduled sampling, arXiv 1506.03099).",
    )
    coupled: bool = Field(False, description="Let the answer and chain losses reach the clue extractor.")
    visual_dropout: tuple[Share, Share] = Field(
        (0.0, 0.0),
        description="Probability that a visual token is hidden from the answer pass (never from clue extraction), at the first "
        "and at the last step; linear in between. For reasoners that see the video.",
    )
    until: float | None = Field(
        None,
        gt=0,
        le=1,
        description="End the stage as soon as `train.validation.metric` is at least this share: stage 2 then starts when stage 1 "
        "is good enough. null: after all steps.",
    )
    clips_per_batch: int = Field(16, ge=1, description="Clips of one optimiser step, over all workers.")
    questions_per_clip: int = Field(6, ge=1, description="Questions asked about each clip of a batch.")
    accumulate: int = Field(1, ge=1, description="Micro-batches a batch is split into, to save memory.")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for 2-D hidden matrices, AdamW for the rest."
    )
    lr: float = Field(1e-5, gt=0, description="Peak learning rate of the optimizer named above.")
    adamw_lr: float = Field(1.5e-3, gt=0, description="With muon: peak learning rate of the AdamW part.")
    lrs: LearningRates = Field(
        default_factory=lambda: LearningRates(),
        description="Peak learning rates of groups of weights, by AdamW; null: the stage's own.",
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's moment decays.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    final_lr_fraction: float = Field(0.05, ge=0, le=1, description="The cosine ends at this fraction of the peak.")
    clip_norm: float = Field(1.0, gt=0, description="Largest gradient norm.")
    losses: Losses = Field(default_factory=lambda: Losses(), description="Weights of the loss terms.")
    filter_loss: FilterLoss = Field(
        default_factory=lambda: FilterLoss(), description="How the filter's gate is taught."
    )
    alignment_temperature: float = Field(
        0.1, gt=0, description="What `losses.alignment` divides cosine similarities by."
    )
    counterfactual_margin: float = Field(
        1.0,
        gt=0,
        description="Nats that `losses.counterfactual` wants between the right answer's log-probability with its own clues and "
        "with another video's.",
    )

    def truth_share_at(self, progress: float) -> float:
        """Share of questions that read ground truth after `progress` (0..1) of the stage."""
        first, last = self.truth_share
        return last + (first - last) / (1 + math.exp(SIGMOID_STEEPNESS * (progress - 0.5)))

    def visual_dropout_at(self, progress: float) -> float:
        """Probability that a visual token is hidden from the answer pass after `progress` (0..1) of the stage."""
        first, last = self.visual_dropout
        return first + (last - first) * progress

    @model_validator(mode="after")
    def _truth_needs_no_share(self) -> Stage:
        if self.clues == "truth" and any(self.truth_share):
            raise ValueError("truth_share needs `clues: own`: with `clues: truth` every question reads ground truth")
        return self

    @model_validator(mode="after")
    def _ground_truth_has_no_gradient(self) -> Stage:
        if self.clues == "truth" and self.coupled:
            raise ValueError("coupled needs `clues: own`: ground-truth clues carry no gradient to the extractor")
        return self


class Stage1(Stage):
    """Decoupled supervision: extraction and reasoning are taught apart, on ground-truth clues."""

    steps: int = Field(1000, ge=0, description=Stage.model_fields["steps"].description)
    clues: Literal["truth", "own"] = Field("truth", description=Stage.model_fields["clues"].description)
    losses: Losses = Field(
        default_factory=lambda: Losses(answer=1, chain=1, concept=2, attention=0.5),
        description="Weights of the loss terms.",
    )

    @model_validator(mode="after")
    def _nothing_is_recorded_before(self) -> Stage1:
        if self.filter_loss.source == "offline":
            raise ValueError(
                "filter_loss.source: offline is recorded by the model of stage 1, so it is for stage 2 only"
            )
        return self


class Stage2(Stage):
    """Inference supervision: the answer is taught on the model's own filtered clues."""

    steps: int = Field(250, ge=0, description=Stage.model_fields["steps"].description)
    clues: Literal["truth", "own"] = Field("own", description=Stage.model_fields["clues"].description)
    coupled: bool = Field(True, description=Stage.model_fields["coupled"].description)
    losses: Losses = Field(
        default_factory=lambda: Losses(answer=1, chain=0.5, concept=2, attention=0.5, filter=0.2),
        description="Weights of the loss terms.",
    )


class Resources(Section):
    cpu: float = setting(1, "none", description="CPUs of one training worker; torch uses as many threads.", gt=0)
    gpu: float = setting(0, "none", description="GPUs of one training worker.", ge=0)


class CheckpointSettings(Section):
    every: int = setting(100, "none", description="Optimiser steps between checkpoints.", ge=1)
    keep: int = setting(2, "none", description="Checkpoints kept besides the best one.", ge=1)


class Validation(Section):
    every: int = setting(
        100, "stage1", description="Optimiser steps between validations; the last step always validates.", ge=1
    )
    max_clips: int | None = setting(60, "stage1", description="Clips used for it; null: all.", ge=1)
    metric: str = setting("accuracy", "stage1", description="What the best checkpoint has most of.")
    patience: int | None = setting(
        None, "stage1", description="Stop a stage after so many validations without a better one; null: never.", ge=1
    )


class Preemption(Section):
    """Of nodes that the cluster takes back, such as spot instances."""

    max_failures: int | None = setting(
        None,
        "none",
        description="Preemptions survived before giving up, counted apart from `max_failures`; null: any number.",
        ge=0,
    )
    grace_seconds: float = setting(
        0.0,
        "none",
        description="How long workers on other nodes may go on after the deadline, to finish a checkpoint.",
        ge=0,
    )


class TrainSection(Section):
    workers: int | tuple[int, int] = setting(
        1,
        "none",
        description="Training processes; the batch is split among them. [min, max]: as many as the cluster has room for, more or "
        "fewer as nodes come and go.",
    )
    resources: Resources = Field(default_factory=Resources, description="What one worker gets.")
    strategy: Strategy = setting("ddp", "none", description="How workers share the model.")
    precision: Literal["fp32", "bf16"] = setting("fp32", "stage1", description="bf16: autocast, weights stay fp32.")
    tuning: Tuning = setting(
        "full", "stage1", description="Which weights of the backbone are trained: full, lora, qlora."
    )
    gradient_checkpointing: bool = setting(
        False,
        "none",
        description="Compute activations again in the backward pass instead of keeping them: less memory, more time, the same "
        "gradients.",
    )
    allow_oversize: bool = setting(
        False,
        "none",
        description="Train although the estimate of `cluenet plan` says that it does not fit the cluster's GPUs.",
    )
    stage1: Stage1 = Field(default_factory=lambda: Stage1(), description="Decoupled supervision.")
    stage2: Stage2 = Field(default_factory=lambda: Stage2(), description="Inference supervision.")
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings, description="What is kept on disk.")
    validation: Validation = Field(default_factory=Validation, description="Validation during training.")
    max_failures: int = setting(3, "none", description="Worker losses survived before giving up.", ge=0)
    preemption: Preemption = Field(default_factory=Preemption, description="Nodes that are taken back.")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = setting(
        ("tensorboard",),
        "none",
        description="Trackers besides logging.jsonl; wandb and mlflow are extras, set up by their own environment variables.",
    )

    @property
    def last_stage(self) -> Stage:
        """The one that leaves the finished model."""
        return self.stage2 if self.stage2.steps else self.stage1

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    def micro_batches(self, stage: Stage) -> int:
        """Of one optimiser step, over all workers. With elastic workers it is what the largest number of them would have: with
        fewer, each takes more micro-batches of the same size, so that memory and results stay what they are."""
        return self.max_workers * stage.accumulate

    def clips_per_micro_batch(self, stage: Stage) -> int:
        return stage.clips_per_batch // self.micro_batches(stage)

    @field_validator("workers", mode="before")
    @classmethod
    def _is_number_or_range(cls, value: Any) -> Any:
        low, high = value if isinstance(value, (list, tuple)) and len(value) == 2 else (value, value)
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in (low, high)) or not 1 <= low <= high:
            raise ValueError("must be a number of at least 1, or [min, max] with 1 <= min <= max")
        return value

    @model_validator(mode="after")
    def _batches_split_evenly(self) -> TrainSection:
        for name, stage in (("stage1", self.stage1), ("stage2", self.stage2)):
            parts = self.micro_batches(stage)
            if stage.steps and stage.clips_per_batch % parts:
                raise ValueError(
                    f"{name}.clips_per_batch is {stage.clips_per_batch}, not a multiple of workers x accumulate = {parts}"
                )
            uneven = [n for n in range(self.min_workers, self.max_workers + 1) if parts % n]
            if stage.steps and uneven:
                whole = math.lcm(*range(self.min_workers, self.max_workers + 1))
                raise ValueError(
                    f"workers is [{self.min_workers}, {self.max_workers}], but the {parts} micro-batches of a step in {name} "
                    f"(largest number of workers x accumulate) cannot be split among {uneven[0]}. They must be a multiple of "
                    f"{whole}: set {name}.accumulate to {whole // math.gcd(whole, self.max_workers)}, or another range"
                )
        return self


STAGE_STEP: dict[type[Stage], Step] = {Stage1: "stage1", Stage2: "stage2"}
"""Every leaf of a stage affects that stage's step."""
