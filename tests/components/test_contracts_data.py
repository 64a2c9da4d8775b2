"""What holds for every component of the data side, third parties' included: the registries are the list of cases."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from cluenet.contracts import ClueSource, Component, Dataset, Reader, Sampler
from cluenet.plugins import load_components
from cluenet.registry import ComponentConfig, Registry, register
from cluenet.steps import STEPS, declared_step

load_components()

KINDS: dict[str, type[Component]] = {
    "dataset": Dataset,
    "clue_source": ClueSource,
    "reader": Reader,
    "sampler": Sampler,
}
CASES = [(kind, name) for kind in KINDS for name in register.kinds()[kind]]
parametrized = pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind}-{name}" for kind, name in CASES])


def registry(kind: str) -> Registry[Any]:
    return register.kinds()[kind]


def required(config: type[ComponentConfig]) -> list[str]:
    return [name for name, field in config.model_fields.items() if field.is_required()]


def smallest_settings(config: type[ComponentConfig]) -> dict[str, Any]:
    """A value for each required field: text where text is allowed, else the simplest value of its type."""
    settings: dict[str, Any] = {}
    for name in required(config):
        types = {config.model_fields[name].annotation, *get_args(config.model_fields[name].annotation)}
        settings[name] = 1 if types & {int, float} else ["x"] if types & {list, tuple} else "x"
    return settings


def test_the_built_in_data_components_are_there() -> None:
    assert {
        ("dataset", "messages"),
        ("dataset", "nextqa"),
        ("clue_source", "annotated"),
        ("clue_source", "file"),
    } <= set(CASES)


@parametrized
def test_class_is_what_the_registry_says(kind: str, name: str) -> None:
    cls = registry(kind)[name]
    assert issubclass(cls, KINDS[kind])
    assert (cls.kind, cls.name, cls.Config.name, cls.Config.component) == (kind, name, name, cls)
    assert not inspect.isabstract(cls), f"{cls} leaves {sorted(cls.__abstractmethods__)} to do"
    assert isinstance(cls.version, int)
    assert cls.version >= 1


@parametrized
def test_class_says_what_it_is(kind: str, name: str) -> None:
    doc = vars(registry(kind)[name]).get("__doc__")  # its own, not its base class's
    assert doc
    assert doc.strip().split("\n")[0].endswith((".", ":")), "the first line stands alone in listings"


@parametrized
def test_every_setting_is_described_and_belongs_to_a_step(kind: str, name: str) -> None:
    config = registry(kind)[name].Config
    assert issubclass(config, ComponentConfig)
    assert config.model_config["extra"] == "forbid"
    assert config.model_config["frozen"]
    for setting, field in config.model_fields.items():
        assert (field.description or "").strip().endswith("."), f"{setting} needs a description"
        assert declared_step(field) in (None, *STEPS), f"{setting} declares an unknown step"


@parametrized
def test_only_required_settings_are_asked_for(kind: str, name: str) -> None:
    config = registry(kind)[name].Config
    if not required(config):
        assert config() == config.model_validate({})
        return
    with pytest.raises(ValidationError) as error:
        config()
    asked = [(item["type"], *item["loc"]) for item in error.value.errors()]
    assert asked == [("missing", setting) for setting in required(config)]


@parametrized
def test_settings_survive_a_recipe_a_wire_and_a_schema(kind: str, name: str) -> None:
    table = registry(kind)
    config = table.parse({"name": name, **smallest_settings(table[name].Config)})
    written = config.to_dict()
    assert written["name"] == name
    assert set(written) == {"name", *type(config).model_fields}
    assert table.parse(json.loads(json.dumps(written))) == config
    assert table.parse(json.loads(json.dumps(written))).to_dict() == written
    assert pickle.loads(pickle.dumps(config)) == config
    assert json.dumps(type(config).model_json_schema())


@parametrized
def test_unknown_settings_are_refused(kind: str, name: str) -> None:
    table = registry(kind)
    with pytest.raises(ValidationError, match="no_such_setting"):
        table[name].Config(no_such_setting=1, **smallest_settings(table[name].Config))
