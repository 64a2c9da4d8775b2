"""The pipeline of a recipe: prepare -> pretrain (-> features) -> stage1 (-> utilities) -> stage2 -> model -> evaluate -> report.

    <runs>/<name>-<address>/
        recipe.yaml steps.json manifest.json    what `run_account` says about it
        logging.jsonl                           a line per optimiser step
        stage1/ utilities/ stage2/ model/ evaluation/ report.html

Each step's address says what it depends on: a finished step is found again and skipped, an interrupted one resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from cluenet import cluster, overlap
from cluenet.errors import CheckpointError, DataError
from cluenet.folders import finished
from cluenet.pipeline_table import PipelineTable
from cluenet.planning import Plan, Split
from cluenet.progress import Progress
from cluenet.recipe import Recipe
from cluenet.run_account import RunAccount

if TYPE_CHECKING:
    from cluenet.features import Tower

Say = Callable[[str], None]


class Run:
    """One recipe on its way through the pipeline; `with Run(recipe) as run: run.evaluate()` does all that this needs.

    Every step first does those before it, or finds them finished. Ray is joined or started (`cluster.connect`) when the
    first step needs it, and left at the end of the block.
    """

    def __init__(
        self, recipe: Recipe, *, address: str | None = None, verbose: bool = False,
        progress: type[Progress] = Progress, say: Say = print, local: bool = False,
        table: PipelineTable | None = None, plugins: Iterable[str] = (),
    ):  # fmt: skip
        """`local`: steps of one worker run in this process, without Ray; only preparing needs it still. `table`: is told of
        every step, and shows its progress. `plugins`: of other recipes, whose runs use the same Ray after this one."""
        self.recipe, self.plan = recipe, Plan(recipe)
        self.account = RunAccount(self.plan)
        self._address, self._verbose, self._say = address, verbose, say
        self._table, self._progress = table, table.progress if table else progress
        self._local, self._plugins = local, tuple(dict.fromkeys([*recipe.plugins, *plugins]))
        self._cluster = ExitStack()
        self._connected = False
        self.overlaps: list[overlap.Overlap] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._table:
            self._table.close()
        self._cluster.close()

    @property
    def folder(self) -> Path:
        return self.plan.run

    # ---------------------------------------------------------------------------------------------- the steps

    def do(self, step: str) -> None:
        """One step after `prepare`, by its name in `run_account.STEPS`; those before it first, as everywhere."""
        reached = {"pretrain": "base", "stage1": "first_checkpoint", "stage2": "checkpoint", "evaluate": "results"}
        getattr(self, reached.get(step, step))

    def train_until(self, stage: str, step: int) -> bool:
        """`stage1` or `stage2` up to its optimiser step `step`, and those before it to their end; whether it is finished. Else it
        is left with a checkpoint, and resumes as after an interruption."""
        if stage == "stage1":
            self._check_training()
            self._stage(stage, None, pause_at=step)
        else:
            self._stage(stage, self.first_checkpoint, self.utilities, pause_at=step)
        return finished(self.folder / stage)

    @cached_property
    def prepared(self) -> dict[str, list[Path]]:
        """Folders of the prepared sets by split. Raises RecipeError when a test set shares videos with the others."""
        folders = {split: self._prepare(split) for split in get_args(Split)}
        self.overlaps = overlap.check(self.recipe, folders)
        for one in self.overlaps:
            self._say(f"allowed by data.allow_overlap: {one}")
        return folders

    def _prepare(self, split: Split) -> list[Path]:
        from cluenet.data.prepare import prepare

        folders = self.plan.prepared(split)
        if not all(map(finished, folders)):
            self._connect()
            with self._timed("prepare"):
                made = [
                    prepare(self.recipe, entry, progress=self._progress) for entry in getattr(self.recipe.data, split)
                ]
            if made != folders:
                raise DataError(
                    f"data.{split}: files of the dataset changed while it was prepared. Run the command again."
                )
        return folders

    @cached_property
    def base(self) -> Path:
        """The backbone that the stages start from, in Hugging Face layout."""
        from cluenet.pretrain import pretrain

        train = self.prepared["train"]
        if not finished(self.plan.base):
            self._connect(training=True)
            with self._timed("pretrain"):
                pretrain(self.recipe, self.plan.base, train, progress=self._progress, local=self._local)
        return pretrain(self.recipe, self.plan.base, train)

    @cached_property
    def features(self) -> dict[Path, Path]:
        """Those of all prepared sets by the base's vision tower, which later steps find by themselves."""
        sets = [folder for folders in self.prepared.values() for folder in folders]
        return self._features(sets, lambda: self.plan.tower) if self.base else {}

    def _features(self, prepared: Iterable[Path], tower: Callable[[], Tower]) -> dict[Path, Path]:
        """By prepared set, the folder of its features by this vision tower; none where `data.features` is off."""
        if not self.recipe.data.features:
            return {}
        from cluenet.data.features import make_features
        from cluenet.features import folder_of

        sees = tower()
        found = {one: folder_of(self.recipe, one, sees) for one in prepared}
        if not all(map(finished, found.values())):
            self._connect(training=True)
            with self._timed("features"):
                for one in found:
                    make_features(self.recipe, one, sees, progress=self._progress, local=self._local)
        return found

    def _features_of_training(self) -> dict[Path, Path]:
        """Needs the base, whose tower it is."""
        sets = [*self.prepared["train"], *self.prepared["validation"]]
        return self._features(sets, lambda: self.plan.tower)

    @cached_property
    def first_checkpoint(self) -> Path | None:
        """The best checkpoint of stage 1; None when it is not trained."""
        self._check_training()
        return self._stage("stage1", None)

    def _check_training(self) -> None:
        """What is wrong with training is said before the backbone is made, as far as it can be."""
        from cluenet.model.build import check_planned_tuning
        from cluenet.train.services import require
        from cluenet.train.supervision import supervision_of

        _ = self.plan.stage2  # raises when there is no training data, before anything is prepared
        check_planned_tuning(self.recipe.train, self.recipe.model.backbone, file=self.recipe.name)
        require(self.recipe)
        prepared = [folder for split in get_args(Split) for folder in self.plan.prepared(split)]
        if self._left_to_train and not all(map(finished, prepared)):
            self._connect(training=True)  # what never fits is refused before hours of decoding
        self._require_memory()
        for stage in ("stage1", "stage2"):
            if getattr(self.recipe.train, stage).steps:
                supervision_of(self.recipe, stage, self.prepared["train"])

    @cached_property
    def checkpoint(self) -> Path | None:
        """The best checkpoint of the last stage; None when no stage is trained."""
        first = self.first_checkpoint
        return self._stage("stage2", first, self.utilities)

    @cached_property
    def utilities(self) -> Path | None:
        """What clues are worth to the model of stage 1, where stage 2 is taught on that and is yet to be trained."""
        from cluenet.train.offline import record_utilities

        folder, checkpoint = self.folder / "utilities", self.first_checkpoint
        if not self.plan.records_utilities or finished(self.folder / "stage2"):
            return None
        self._share("utilities")

        def record(features: dict[Path, Path] | None = None) -> Path:
            return record_utilities(
                self.recipe, run=self.folder, base=self.base, train=self.prepared["train"], checkpoint=checkpoint,
                address=self.plan.utilities, features=features, progress=self._progress, local=self._local,
            )  # fmt: skip

        if finished(folder):
            return record()
        self._connect(training=True)
        features = self._features_of_training()
        with self._timed("utilities"):
            return record(features)

    def _stage(
        self, stage: str, init: Path | None, utilities: Path | None = None, pause_at: int | None = None
    ) -> Path | None:
        from cluenet.model.build import check_tuning
        from cluenet.train.trainer import train_stage

        base, address = self.base, self.plan.address(stage)
        self.account.write_recipe()
        if stage == "stage1" and self.recipe.train.stage1.steps:
            self._share("stage1")

        def train(features: dict[Path, Path] | None = None) -> Path | None:
            return train_stage(
                self.recipe, stage, run=self.folder, base=base, prepared=self.prepared, init=init, address=address,
                utilities=utilities, features=features, progress=self._progress, say=self._say, local=self._local,
                pause_at=pause_at,
            )  # fmt: skip

        if finished(self.folder / stage) or not getattr(self.recipe.train, stage).steps:
            return train()
        check_tuning(self.recipe.train, base, file=self.recipe.name)
        self._connect(training=True)
        features = self._features_of_training()
        with self._timed(stage):
            return train(features)

    def _share(self, step: Literal["stage1", "utilities"]) -> None:
        """Takes over what another run has finished, instead of doing the same again."""
        from cluenet.train import sharing

        take = {"stage1": sharing.take_over, "utilities": sharing.take_over_utilities}[step]
        other = None if finished(self.folder / step) else self.plan.shared(step)
        if other is not None and take(other, self.folder):
            self._say(f"{step} taken from run {other.name}, same address {self.plan.address(step)[:10]}")

    @property
    def _left_to_train(self) -> bool:
        stages = ("stage1", "stage2")
        return any(getattr(self.recipe.train, name).steps and not finished(self.folder / name) for name in stages)

    def _require_memory(self) -> None:
        """Before any worker starts: whether what is yet to be trained fits the cluster's GPUs, as `cluenet plan` counts."""
        from cluenet.estimate import accelerators, estimate, fit

        train = self.recipe.train
        if not (self._left_to_train and train.resources.gpu) or train.allow_oversize:
            return
        self._connect()
        accelerator = accelerators.of_cluster(self._resources)
        if accelerator is None:
            self._say("memory is not checked: the cluster's GPUs are not among those that cluenet plan knows")
            return
        try:
            found = estimate.estimate(self.recipe)
        except CheckpointError as error:
            self._say(f"memory is not checked: {error}")
            return
        fit.require_fit(self.recipe, found, accelerator)

    @cached_property
    def model(self) -> Path:
        """The model folder that evaluation and `ask` need."""
        from cluenet.decoding import FramePolicy
        from cluenet.train.export import save_final_model

        checkpoint, folder = self.checkpoint, self.folder / "model"
        self.account.write_recipe()
        policy = FramePolicy.from_section(self.recipe.data).to_dict()
        features = {} if finished(folder) else self._features_of_training()
        with self._timed("model", unless=finished(folder)):
            return save_final_model(
                self.recipe, run=self.folder, base=self.base, checkpoint=checkpoint, frame_policy=policy,
                address=self.plan.stage2, validation=self.prepared["validation"], features=features,
            )  # fmt: skip

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """results.json of every test set by its name."""
        return self._evaluate(self.model, self.folder / "evaluation")

    def results_of_trained(self, name: str = "evaluation") -> dict[str, dict[str, Any]]:
        """Results of this recipe's model, in the run's folder of this name, without training first.

        Raises CheckpointError when there is no finished model.
        """
        if not finished(self.folder / "model"):
            raise CheckpointError(
                f"{self.folder}: no finished model of this recipe. Train it first (cluenet train RECIPE, with the same "
                "overrides), or name a model: cluenet evaluate RECIPE --model FOLDER"
            )
        self._prepare("test")
        for one in overlap.find(self.recipe, {split: self.plan.prepared(split) for split in get_args(Split)}):
            self._say(f"note: {one}")  # test sets may be chosen after training
        return self._evaluate(self.folder / "model", self.folder / name)

    def results_of(self, model: Path, out: Path, name: str = "evaluation") -> dict[str, dict[str, Any]]:
        """Any model on the recipe's test sets, into `out` / `name`: a ClueNet model folder, or a plain Hugging Face folder
        zero-shot."""
        from cluenet.evaluate.zero_shot import zero_shot_folder

        if (model / "model_config.json").is_file():
            return self._evaluate(model, out / name)
        if not (model / "config.json").is_file():
            raise CheckpointError(
                f"{model}: neither a ClueNet model folder (model_config.json) nor a Hugging Face one (config.json)."
            )
        return self._evaluate(zero_shot_folder(self.recipe, model, out / "model"), out / name)

    def _evaluate(self, model: Path, out: Path) -> dict[str, dict[str, Any]]:
        from cluenet.evaluate.evaluator import evaluate
        from cluenet.features import Tower
        from cluenet.model.checkpoint import backbone_of

        if not self.recipe.data.test:
            raise DataError(
                f"{self.recipe.name}: data.test is empty, so there is nothing to score. Name a test set there."
            )
        prepared = self._prepare("test")
        of_this_run = bool(self.recipe.data.train) and out == self.folder / "evaluation"  # else it has no folder
        states = [step.state for step in self.plan.steps() if step.name == "evaluate"] if of_this_run else ["new"]
        done = all(state == "finished" for state in states)
        features = {} if done else self._features(prepared, lambda: Tower(*backbone_of(model)))
        if not (done or self._local):
            self._connect()
        with self._timed("evaluate", unless=done or not of_this_run):
            return evaluate(
                self.recipe, model_folder=model, prepared=prepared, out=out, features=features, progress=self._progress,
                local=self._local,
            )  # fmt: skip

    def report(self, baseline: Path | None = None) -> Path:
        """The finished run's report; writes the manifest of the run."""
        from cluenet.report.build import build_report

        _ = self.model  # a recipe without a test set has a report too
        results = self.results if self.recipe.data.test else {}
        self.finish(results)
        with self._timed("report"):
            report = build_report(self.folder, baseline)
        self.finish(results)
        return report

    def finish(self, results: dict[str, dict[str, Any]]) -> Path:
        """The manifest: the run is complete."""
        return self.account.finish(self.prepared, results, self.overlaps)

    # ------------------------------------------------------------------------------------------------ what steps need

    @contextmanager
    def _timed(self, step: str, *, unless: bool = False) -> Iterator[None]:
        """Shows the step and keeps account of it. A recipe that only scores other models has none."""
        if unless:
            yield
            return
        with (
            self.account.timed(step) if self.recipe.data.train else nullcontext(),
            self._table.step(step) if self._table else nullcontext(),
        ):
            yield

    def _connect(self, *, training: bool = False) -> None:
        if training and self._local:
            return
        if not self._connected:
            connection = cluster.connected(self._address, verbose=self._verbose, plugins=self._plugins)
            self._resources = self._cluster.enter_context(connection)
            self._say(f"Ray: {cluster.summary(self._resources)}")
            self._connected = True
        if training:
            resources = self.recipe.train.resources
            cluster.require(workers=self.recipe.train.min_workers, cpu=resources.cpu, gpu=resources.gpu)
