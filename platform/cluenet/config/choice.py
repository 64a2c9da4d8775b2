"""A setting that is one of several sections, chosen by name: `tuning: lora`, or `tuning: {name: lora, r: 8}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import PydanticCustomError, core_schema

from cluenet.config.base import Section
from cluenet.errors import suggestion


class Choice:
    """Marks a field, `tuning: Annotated[Full | Lora, Choice("tuning", Full, Lora)]`. Every section has a field
    `name: Literal["..."] = "..."`, by which it is chosen."""

    def __init__(self, what: str, *sections: type[Section]):
        self.what = what
        self.sections = {section.model_fields["name"].default: section for section in sections}

    def parse(self, value: Any) -> Section:
        """A name, a map with a name or a section already built -> the section."""
        if isinstance(value, Section) and type(value) in self.sections.values():
            return value
        settings = {"name": value} if isinstance(value, str) else value
        if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
            known = ", ".join(self.sections)
            message = f"write a {self.what} as a name or as {{name: ..., option: ...}}; names: {known}"
            raise PydanticCustomError("component", "{text}", {"text": message})
        section = self.sections.get(settings["name"])
        if section is None:
            message = f"no {self.what} named {settings['name']!r}. {suggestion(settings['name'], self.sections)}"
            raise PydanticCustomError("component", "{text}", {"text": message})
        try:
            return section.model_validate(settings)
        except ValidationError as error:
            context = {"errors": error.errors(), "config": section}
            raise PydanticCustomError("component_settings", "invalid settings", context) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda section: section.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        sections = [
            dict(handler.resolve_ref_schema(handler(one.__pydantic_core_schema__))) for one in self.sections.values()
        ]
        return {"anyOf": [{"enum": list(self.sections)}, *sections]}
