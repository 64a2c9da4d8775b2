"""An estimate as JSON, and as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

from cluenet.estimate.accelerators import GB, TERA, Accelerator
from cluenet.estimate.estimate import Estimate, StageCost
from cluenet.estimate.fit import fits
from cluenet.estimate.parameters import whole

MILLION, MEGABYTE = 10**6, 10**6


def to_dict(found: Estimate, accelerator: Accelerator, *, mfu: float, share: float = 1.0) -> dict[str, Any]:
    """Bytes, operations, hours; nothing is rounded but to whole bytes."""
    height, width = found.frames[1:]
    return {
        "parameters": {name: {"total": part.total, "trained": part.trained} for name, part in found.parts.items()},
        "stages": {stage.name: _stage(found, stage, accelerator, mfu) for stage in found.stages},
        "accelerator": {
            "name": accelerator.name, "memory_bytes": accelerator.memory_bytes, "bf16_tflops": accelerator.bf16_tflops,
            "bandwidth_gb_per_second": accelerator.bandwidth_gb_per_second, "mfu": mfu,
            "fits": fits(found, accelerator, share=share),
        },
        "data": {
            "clips": found.data.clips, "questions": found.data.questions,
            "entries": [
                {"split": one.split, "name": one.name, "clips": one.clips, "questions": one.questions, "counted": one.source}
                for one in found.data.entries
            ],
            "frames_per_clip": found.frames[0], "height": height, "width": width, "visual_tokens_per_clip": found.visual_tokens,
            "prepared_bytes": found.bytes.prepared, "prepared_bytes_are_measured": found.bytes.prepared_measured,
            "feature_bytes": found.bytes.features, "object_store_bytes": found.bytes.object_store,
        },
        "notes": list(found.notes),
    }  # fmt: skip


def _stage(found: Estimate, stage: StageCost, accelerator: Accelerator, mfu: float) -> dict[str, Any]:
    return {
        "steps": stage.steps, "clips_per_micro_batch": stage.clips_per_micro_batch,
        "memory_bytes": {name: round(size) for name, size in stage.memory.items()},
        "total_bytes": round(stage.total_bytes),
        "activation_bytes": {"kept": round(stage.activations[False]), "checkpointed": round(stage.activations[True])},
        "visual_tokens_per_step": stage.visual_tokens, "text_tokens_per_step": stage.text_tokens,
        "operations_per_step": stage.operations,
        "hours": stage.hours(accelerator, workers=found.workers, mfu=mfu),
    }  # fmt: skip


def tables(found: Estimate, accelerator: Accelerator, *, mfu: float, share: float = 1.0) -> Group:
    """What `cluenet plan` prints below the steps."""
    parts = [_parameters(found), _memory(found, accelerator, share), _work(found, accelerator, mfu), _data(found)]
    return Group(*parts, *found.notes)


def _parameters(found: Estimate) -> Table:
    table = _table("Parameters, millions", "part", "total", "trained")
    for name, part in {**found.parts, "all": whole(found.parts)}.items():
        table.add_row(name, f"{part.total / MILLION:,.2f}", f"{part.trained / MILLION:,.2f}")
    return table


def _memory(found: Estimate, accelerator: Accelerator, share: float) -> Table:
    title = f"Peak memory of a worker, of {share * accelerator.memory_gb:g} GB of {accelerator.name}: an estimate"
    table = _table(title, "part", *(stage.name for stage in found.stages))
    for name in found.stages[0].memory if found.stages else ():
        table.add_row(name, *(_size(stage.memory[name]) for stage in found.stages))
    table.add_section()
    table.add_row("all", *(_size(stage.total_bytes) for stage in found.stages))
    fit = (
        "fits" if stage.total_bytes <= share * accelerator.memory_bytes else "DOES NOT FIT" for stage in found.stages
    )
    table.add_row("", *fit, end_section=True)
    for again, words in ((False, "kept"), (True, "with gradient checkpointing")):
        table.add_row(f"activations, {words}", *(_size(stage.activations[again]) for stage in found.stages))
    return table


def _work(found: Estimate, accelerator: Accelerator, mfu: float) -> Table:
    title = f"Training on {found.workers} x {accelerator.name} at {mfu:.0%} of {accelerator.bf16_tflops:g} TFLOP/s"
    table = _table(title, "stage", "steps", "visual tokens a step", "text tokens a step", "TFLOP a step", "hours")
    for stage in found.stages:
        hours = stage.hours(accelerator, workers=found.workers, mfu=mfu)
        table.add_row(
            stage.name, f"{stage.steps:,}", f"{stage.visual_tokens:,}", f"{stage.text_tokens:,}",
            f"{stage.operations / TERA:,.3g}", f"{hours:.2g}",
        )  # fmt: skip
    return table


def _data(found: Estimate) -> Table:
    count, height, width = found.frames
    table = _table(
        f"Data: at most {count} frames of {height} x {width}, {found.visual_tokens} visual tokens a clip",
        "split", "dataset", "clips", "questions", "counted from",
    )  # fmt: skip
    for one in found.data.entries:
        table.add_row(one.split, one.name, f"{one.clips:,}", f"{one.questions:,}", one.source)
    table.add_section()
    bound = "" if found.bytes.prepared_measured else "at most "
    for words, size in (
        (f"prepared, {bound}".rstrip(", "), found.bytes.prepared), ("visual features, if kept", found.bytes.features),
        ("object store, at most", found.bytes.object_store),
    ):  # fmt: skip
        table.add_row(words, _size(size))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _size(size: float) -> str:
    return f"{size / GB:,.1f} GB" if size >= GB else f"{size / MEGABYTE:,.1f} MB"
