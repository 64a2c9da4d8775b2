"""Which step of the pipeline a setting makes stale. Every leaf of a recipe declares it; a test fails on one that does not."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field

Step = Literal["prepare", "pretrain", "features", "stage1", "stage2", "evaluate", "none"]
STEPS: tuple[str, ...] = get_args(Step)


def setting(default: Any, step: Step, *, description: str, **constraints: Any) -> Any:
    """A pydantic `Field` that declares the step it affects. `...` as the default makes it required."""
    return Field(default, description=description, json_schema_extra={"step": step}, **constraints)


def declared_step(field: Any) -> str | None:
    """The step a field declares, or None (component settings then inherit their kind's step)."""
    extra = field.json_schema_extra
    return extra.get("step") if isinstance(extra, dict) else None
