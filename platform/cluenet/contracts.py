"""One small abstract class per kind of component: what a third party implements, and what the platform may assume.

A component is built by `config.build(**runtime)`, which calls `cls(config, **runtime)`. `version` is an integer to raise
when the component's output changes for the same settings; it is part of every fingerprint.
Torch appears here only in annotations: importing this module loads neither torch nor Ray.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cluenet.records import Example, Frames, Quarantined
from cluenet.registry import ComponentConfig
from cluenet.steps import setting
from cluenet.verdicts import Measure, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from cluenet.model.clues import ClueStates
    from cluenet.model.sight import Sight
    from cluenet.model.vlm import VisionLanguageModel


class Component(ABC):
    """Base of all kinds. `Config` is replaced by each class's own."""

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    name: ClassVar[str] = ""
    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1

    def __init__(self, config: ComponentConfig):
        self.config = config


# ------------------------------------------------------------------------------------------------ data


class Dataset(Component):
    """Examples of one split, in a fixed order."""

    class Config(ComponentConfig):
        split: str = Field("train", description="Which split of the dataset to use.")
        max_samples: int | None = Field(None, ge=1, description="Keep only the first so many questions.")
        weight: float = setting(
            1.0, "stage1", gt=0, description="How often its clips are drawn, relative to their number."
        )

    official_counts: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    """{split: {type: questions}} as its authors publish them, and `questions` and `videos` for totals; only what is certain."""

    @abstractmethod
    def rows(self) -> Iterator[Example | Quarantined]:
        """Every row of the split, in a fixed order, before `max_samples`: usable ones, and bad ones with the reason.

        Raises DataError (file, what is wrong, next step) when the dataset as a whole cannot be read.
        """

    def described(self) -> Iterator[Example | Quarantined]:
        """The same rows for `cluenet plan`, which counts them: no file is made and no video is needed."""
        return self.rows()

    @property
    def num_clips(self) -> int | None:
        """How many clips `rows` is about, where that is known without reading them; `cluenet plan` then counts the questions
        of some of them only."""
        return None

    @abstractmethod
    def sources(self) -> list[str]:
        """What the rows depend on besides the settings, as stable text: for files, their content hash."""

    @classmethod
    def source_id(cls, video: str) -> str | None:
        """The original that the video at this path was made from, such as `charades:QX7ZT`, the same words in every dataset
        that uses it; None where that is not known. Sets that share an original share a video, whatever their files hold."""
        return None

    @classmethod
    def measures(cls, verdicts: Sequence[Verdict]) -> list[Measure]:
        """The benchmark's metrics as its authors define them; [] for a dataset that has none besides accuracy by type.

        Called twice: with all rows, those that could not be used included, and with the answered ones alone.
        """
        return []

    @classmethod
    def result_files(cls, verdicts: Sequence[Verdict]) -> dict[str, str]:
        """{file name: text} of what its official script or server takes, from all rows; {} where there is none."""
        return {}


class ClueSource(Component):
    """Brings clues and a reasoning chain to examples that may have none."""

    sees_frames: ClassVar[bool] = False  # `attach_seen` is called too, after the clips are decoded

    @abstractmethod
    def attach(self, example: Example) -> Example:
        """The example with this source's clues, or with `clues=None` where it has none for it. Called as rows are read."""

    def attach_seen(self, seen: Iterable[tuple[Example, Frames]], folder: Path) -> Iterator[Example]:
        """For every example whose clip is ready, with its frames: the same with clues, one for one and in order.

        Frames are read as pairs are taken, so take few ahead. `folder`: of this component alone, kept between runs and
        shared by recipes; for what is costly to have. Its times are seconds of the video file, as everywhere.
        """
        raise NotImplementedError

    def sources(self) -> list[str]:
        """What the clues depend on besides the settings, as stable text."""
        return []

    def summary(self) -> dict[str, int]:
        """Counts for the prepared set's manifest, after the last example. They depend on the data alone."""
        return {}

    def costs(self) -> dict[str, int]:
        """Counts of this run, such as requests sent, for the manifest's `run`."""
        return {}


class VideoFile(ABC):
    """One opened video. Closed by `close` or by leaving its `with` block. All readers agree on every value here:
    rotation is already applied to `width`, `height` and pixels; times start at 0 with the first frame shown."""

    seconds_F: np.ndarray  # float64 [F], presentation time of every frame, ascending
    duration_seconds: float
    width: int
    height: int

    @abstractmethod
    def frames(self, indices: Sequence[int], size: tuple[int, int] | None) -> np.ndarray:
        """uint8 RGB [len(indices), height, width, 3] of the frames with these numbers (ascending, repeats allowed).

        `size` (height, width) resizes while decoding; None keeps the file's size. Raises MediaError.
        """

    def close(self) -> None:  # noqa: B027  (a reader without handles needs none)
        """Free the decoder."""

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reader(Component):
    """Opens videos: files, and folders of numbered frame images."""

    @abstractmethod
    def open(self, path: str, *, fps: float | None = None) -> VideoFile:
        """Raises MediaError with reason missing, empty, no_video_stream or corrupt."""


class Sampler(Component):
    """Chooses the frames of a clip. It never sees the question, so that a clip is decoded once for all of them."""

    @abstractmethod
    def sample(self, video: VideoFile, first: int, last: int) -> list[int]:
        """Frame numbers within `first..last` inclusive (the clip), ascending, never empty.

        `video` serves those that look at content (`video.frames(..., size=(h, w))`) or time (`video.seconds_F`).
        """


# ----------------------------------------------------------------------------------------------- model


class Backbone(Component):
    """Makes, or finds, a folder in Hugging Face layout that `cluenet.model.vlm.VisionLanguageModel` can load."""

    def pretrain(self, context: PretrainContext) -> Path:
        """The folder to load. A backbone without a pretraining of its own returns what it has on disk."""
        raise NotImplementedError

    def sources(self) -> list[str]:
        """What the weights depend on besides the settings: a hub commit, the hash of an index file. Called on the driver before
        there are workers, so what cannot work is refused here."""
        return []

    def loading(self) -> dict[str, Any]:
        """How `VisionLanguageModel.load` is to load the folder: its keyword arguments."""
        return {}

    def unloaded(self, examples: Sequence[Example], note: Callable[[str], None]) -> VisionLanguageModel | None:
        """What `pretrain` will give, on torch's meta device, from config.json alone: for `cluenet plan`, which downloads and
        loads nothing. None: its size is not known before.

        examples: training questions, some of them or none. note: tells the user what had to be taken for something that is
        not there. Raises CheckpointError when config.json is not on this machine.
        """
        return None


class PretrainContext(ABC):
    """What the platform hands to `Backbone.pretrain`."""

    folder: Path  # empty folder of this step, to write into
    seed: int

    @abstractmethod
    def examples(self) -> Sequence[Example]:
        """The training split's examples, and nothing else: a tokenizer fitted here has not seen validation or test."""

    @abstractmethod
    def frames(self, example: Example) -> Frames:
        """Prepared frames of a training example's clip."""

    @abstractmethod
    def shared(self, depends_on: object, make: Callable[[Path], object]) -> Path:
        """The folder, not to be written into, of a part that several bases have in common: those of the same component, version and
        `depends_on` (JSON). `make` is called with an empty folder to fill, unless another base has it already; while another
        process of this machine makes it, this one waits. Raises what `make` raises, StorageError."""

    @abstractmethod
    def progress(self, done: int, total: int, **values: float) -> None:
        """Show how far the step is."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Tell the user what was left out and why; it is also kept in the step's manifest."""


class ClueExtractor(Component):
    """Reads clues off the video for a question. runtime: `width` D and number of decoder `layers` of the backbone.

    One that learns is a torch module; with query tokens after the question, `extract` turns their states into clues. One
    that writes its clues, or reads the backbone as it is (`training_free`), overrides `read` instead. With `layer` None nothing is read:
    its clues are the labels' (slots > 0) or there are none (slots 0), and no method is ever called.
    """

    slots: int  # K, 0 for none
    words: int  # W per clue
    layer: int | None  # clue layer l_c in 1..layers: the input of that decoder layer is what is read
    matching: Literal["ordered", "hungarian"] = "ordered"  # which labelled clue teaches which slot
    bottleneck: Literal["text", "soft"] = (
        "text"  # what of its words reaches the reasoner: those displayed, or their mixture
    )
    training_free: ClassVar[bool] = False  # states clues of its own, and nothing teaches it

    @classmethod
    def taught_by(cls, config: ComponentConfig) -> frozenset[str]:
        """Names of the clue losses (`train.<stage>.losses`) that teach one that learns, with these settings."""
        return frozenset({"concept", "attention", "span"})

    @property
    def queries(self) -> int:
        """Tokens of its own that stand after each question in the extraction pass."""
        return self.slots

    def query_embeddings(self) -> torch.Tensor:
        """[K, D] learned embeddings that stand after the question stem in the extraction pass."""
        raise NotImplementedError

    def extract(self, query_BQKD: torch.Tensor, visual_BND: torch.Tensor, visual_mask_BN: torch.Tensor) -> ClueStates:
        """States of query tokens and visual tokens at the clue layer -> the slots' words and attention."""
        raise NotImplementedError

    def read(self, sight: Sight) -> ClueStates:
        """The clues of a batch. Which parts of `sight` are used must not depend on the data: ranks stay in step."""
        return self.extract(sight.query_states(self.query_embeddings()), sight.visual_BND, sight.visual_mask_BN)


@dataclass(frozen=True)
class Judged:
    """The clues of one clip's questions with a known answer, before the filter."""

    gate_QK: np.ndarray
    present_QK: np.ndarray
    useful_QK: np.ndarray  # bool: its exact utility is above `filter_loss.delta`


class ClueFilter(Component):
    """Scores and keeps clues. It sees neither options nor answer.

    With `learned` it is a torch module; runtime is then `width` D of the backbone and `words` W per clue.
    """

    learned: ClassVar[bool] = False  # has a gate that the filter loss trains
    sees_answer: ClassVar[bool] = False  # an upper bound: `keep` gets the clues' exact utilities in place of gates

    @abstractmethod
    def gate_logits(
        self, clues_BQKWD: torch.Tensor, stem_BQD: torch.Tensor, confidence_BQK: torch.Tensor
    ) -> torch.Tensor | None:
        """[B, Q, K] scores before the sigmoid, from displayed words, the question stem, and how sure the extractor is of
        the words (mean log-probability; 0 where it has none); None without a gate."""

    @abstractmethod
    def keep(self, gate_BQK: torch.Tensor | None, present_BQK: torch.Tensor, *, seeds_BQ: torch.Tensor) -> torch.Tensor:
        """Bool [B, Q, K]: which clues the reasoner gets. Empty slots (`present` False) are never kept.

        A question's decision depends on its own row alone; chance comes from `seeds_BQ`, one seed per question.
        """

    def shares(self, gate_BQK: torch.Tensor | None, keep_BQK: torch.Tensor) -> torch.Tensor:
        """[B, Q, K] in 0..1: how much of a clue's word embeddings is read, the rest being those of an empty slot."""
        return keep_BQK.float()

    @property
    def promised(self) -> float | None:
        """Share of a clip's useful clues that it promises to keep, on average over clips; None: it promises nothing."""
        return None

    @classmethod
    def calibration_clips(cls, config: ComponentConfig) -> int:
        """How many validation clips `calibrate` wants after training; 0: none, and it is not called."""
        return 0

    def calibrate(self, clips: Sequence[Judged], *, seed: int) -> dict[str, float | str]:
        """Settle what depends on validation data, kept in buffers; returns facts for the model card."""
        raise NotImplementedError


class Reasoner(Component):
    """Decides what the answer pass sees, and how options are scored."""

    class Config(ComponentConfig):
        scoring: Literal["letters", "likelihood"] = Field(
            "letters",
            description="letters: options stand in the prompt, their letters are scored; likelihood: their own words are.",
        )
        generate_chain: bool = Field(
            False,
            description="The model writes its reasoning first and answers after it; needs the chain loss in training.",
        )

    sees_video: ClassVar[bool]
    sees_clues: ClassVar[bool]
