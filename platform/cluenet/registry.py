"""One flat name -> class table per kind of component, and the one idiom that fills it.

    @register.sampler("uniform")
    class UniformSampler(Sampler):
        class Config(ComponentConfig):
            frames: int = Field(16, ge=1, description="How many frames to keep.")

In a recipe: `sampler: {name: uniform, frames: 16}`, or `sampler: uniform` for the defaults. A recipe field is written
`Annotated[ComponentConfig, register.sampler]`; the name is looked up while the recipe is validated, so components from
plug-ins count, and `Recipe` stays one static class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import PydanticCustomError, core_schema

from cluenet.errors import PluginError, suggestion

T = TypeVar("T")


class ComponentConfig(BaseModel):
    """Base of every nested `Config`: frozen, unknown keys are errors. `build` makes the component."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    component: ClassVar[type[Any]]  # set by the registry
    name: ClassVar[str]

    def build(self, **runtime: Any) -> Any:
        """The component itself. `runtime` is what YAML cannot hold (a device, a backbone, a reader)."""
        return self.component(self, **runtime)

    def to_dict(self) -> dict[str, Any]:
        """As a recipe would write it, with every default spelled out."""
        return {"name": self.name, **self.model_dump(mode="json")}


class Registry(Generic[T]):
    """The components of one kind. Used as a decorator factory, as a pydantic field marker, and as a mapping."""

    def __init__(self, kind: str, step: str):
        self.kind, self.step = kind, step
        self._classes: dict[str, type[T]] = {}

    def __call__(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: enter the class under `name`. Raises PluginError when the name is taken."""

        def enter(cls: type[T]) -> type[T]:
            known = self._classes.get(name)
            if known is not None and _origin(known) != _origin(cls):
                raise PluginError(
                    f"two components call themselves {self.kind} {name!r}: {_origin(known)} and {_origin(cls)}. "
                    "Rename one of them or uninstall its package."
                )
            if "Config" not in vars(cls):
                parent = getattr(cls, "Config", ComponentConfig)
                config = type(
                    "Config", (parent,), {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Config"}
                )
                cls.Config = config  # type: ignore[attr-defined]
            cls.name, cls.kind = name, self.kind  # type: ignore[attr-defined]
            cls.Config.component, cls.Config.name = cls, name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            raise KeyError(f"no {self.kind} named {name!r}. {suggestion(name, self._classes, label='Registered')}")
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def parse(self, value: Any) -> ComponentConfig:
        """`uniform`, `{name: uniform, frames: 8}` or a config already built -> the component's config."""
        if isinstance(value, ComponentConfig):
            if self._classes.get(value.name) is not value.component:
                raise PydanticCustomError("component", f"{value.name!r} is not a {self.kind}")
            return value
        settings = {"name": value} if isinstance(value, str) else value
        if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
            raise PydanticCustomError("component", f"write a {self.kind} as a name or as {{name: ..., option: ...}}")
        try:
            config: type[ComponentConfig] = self[settings["name"]].Config  # type: ignore[attr-defined]
        except KeyError as error:
            raise PydanticCustomError("component", "{text}", {"text": error.args[0]}) from None
        try:
            return config.model_validate({key: item for key, item in settings.items() if key != "name"})
        except ValidationError as error:
            context = {"errors": error.errors(), "config": config}
            raise PydanticCustomError("component_settings", "invalid settings", context) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda config: config.to_dict()),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self)}, *(self._schema_of(name, handler) for name in self)]}

    def _schema_of(self, name: str, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        cls = self._classes[name]
        config = handler(cls.Config.__pydantic_core_schema__)  # type: ignore[attr-defined]
        schema = dict(handler.resolve_ref_schema(config))
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
        schema.pop("required", None)  # a recipe that extends another one names only what differs
        schema["title"], schema["description"] = f"{self.kind} {name}", (cls.__doc__ or "").strip().split("\n")[0]
        return schema


def _origin(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class _Registries:
    """`register.<kind>`; the step is what a change of such a component's settings makes stale, unless a field says else."""

    def __init__(self) -> None:
        self.dataset: Registry[Any] = Registry("dataset", "prepare")
        self.clue_source: Registry[Any] = Registry("clue_source", "prepare")
        self.reader: Registry[Any] = Registry("reader", "prepare")
        self.sampler: Registry[Any] = Registry("sampler", "prepare")
        self.backbone: Registry[Any] = Registry("backbone", "pretrain")
        self.clue_extractor: Registry[Any] = Registry("clue_extractor", "stage1")
        self.clue_filter: Registry[Any] = Registry("clue_filter", "stage2")
        self.reasoner: Registry[Any] = Registry("reasoner", "stage1")

    def kinds(self) -> dict[str, Registry[Any]]:
        return dict(vars(self))


register = _Registries()
