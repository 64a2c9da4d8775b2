"""What every section of a recipe shares: unknown keys are errors, values are frozen, every leaf declares its step."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
