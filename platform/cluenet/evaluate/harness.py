"""The keys of results.json that lm-evaluation-harness and lmms-eval have too, with their meaning, for scripts that read theirs.

results           {task: {alias, "acc,none", "acc_stderr,none", "acc_answered,none", ..}}: accuracy with what got no answer
                  as wrong, and without it; then the benchmark's own measures, of all rows. `none` is their name for
                  "no filter"; standard errors are by bootstrap over videos
n-samples         {task: {original, effective}}: rows of the prepared test entry, and those behind `acc`
n-shot            {task: 0}
higher_is_better  {task: {measure: true}}; null where the benchmark does not say
versions          {task: version of the dataset component}
configs           {task: {task, dataset_name, test_split, output_type, num_fewshot, repeats, ..}}: also the address of the
                  prepared set and the frame policy
config            {model, model_args, batch_size, limit, bootstrap_iters, gen_kwargs, random_seed, shuffles}: `model_args` is
                  the model's address; `random_seed` made the orders in which options were shown, `shuffles` of them

Their source: `lmms_eval/evaluator.py` of EvolvingLMMs-Lab/lmms-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluenet.contracts import Dataset
from cluenet.evaluate.benchmark import measurable
from cluenet.metrics.benchmarks import measured
from cluenet.prepared import PreparedSet
from cluenet.recipe import Recipe
from cluenet.verdicts import Verdict, accuracy_share

Estimates = Mapping[str, Mapping[str, Any]]


def harness(
    recipe: Recipe, task: str, prepared: PreparedSet, model_address: str, dataset: type[Dataset], verdicts: Sequence[Verdict],
    benchmark: Mapping[str, Estimates] | None,
) -> dict[str, Any]:  # fmt: skip
    """`benchmark`: the block of that name."""
    known = measurable(verdicts)
    answered = [one for one in known if one.prediction is not None]
    shares = [accuracy_share("acc", known), accuracy_share("acc_answered", answered)]
    accuracy = measured(shares, resamples=recipe.evaluate.bootstrap)
    found: Estimates = {**(benchmark["all"] if benchmark else {}), **accuracy}
    return {
        "results": {task: {"alias": task, **_values(found)}},
        "n-samples": {task: {"original": prepared.manifest["rows"]["in"], "effective": len(known)}},
        "n-shot": {task: 0},
        "higher_is_better": {task: {name: True if name in accuracy else None for name in found}},
        "versions": {task: dataset.version},
        "configs": {task: _task(recipe, task, prepared)},
        "config": _config(recipe, prepared, model_address),
    }


def _values(found: Estimates) -> dict[str, float | None]:
    return {
        f"{name}{suffix},none": estimate[key]
        for name, estimate in found.items()
        for suffix, key in (("", "value"), ("_stderr", "stderr"))
    }


def _task(recipe: Recipe, task: str, prepared: PreparedSet) -> dict[str, Any]:
    about = prepared.manifest["dataset"]
    kind = "generate_until" if recipe.evaluate.mode == "generate" else "multiple_choice"
    return {
        "task": task, "dataset_name": about["name"], "test_split": about["split"], "output_type": kind, "num_fewshot": 0,
        "repeats": 1, "prepared": prepared.folder.name, "frame_policy": prepared.manifest["policy"],
    }  # fmt: skip


def _config(recipe: Recipe, prepared: PreparedSet, model_address: str) -> dict[str, Any]:
    section = recipe.evaluate
    writes = {"do_sample": False, "max_new_tokens": section.max_new_tokens} if section.mode == "generate" else {}
    return {
        "model": "cluenet", "model_args": model_address, "batch_size": section.questions_per_batch,
        "limit": prepared.manifest["dataset"].get("max_samples"), "bootstrap_iters": section.bootstrap, "gen_kwargs": writes,
        "random_seed": section.seed, "shuffles": section.shuffles,
    }  # fmt: skip
