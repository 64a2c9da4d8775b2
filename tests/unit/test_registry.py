"""The registry: names, settings, and what it says when they are wrong. Every test uses a table of its own."""

from __future__ import annotations

import pickle
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from cluenet.errors import PluginError
from cluenet.plugins import load_components
from cluenet.registry import ComponentConfig, Registry, register


@pytest.fixture
def things() -> Registry[object]:
    registry: Registry[object] = Registry("thing", "prepare")

    @registry("round")
    class Round:
        """A round thing."""

        class Config(ComponentConfig):
            radius: int = Field(3, ge=1, description="How far.")

        def __init__(self, config: Config, **runtime: object):
            self.config, self.runtime = config, runtime

    @registry("plain")
    class Plain:
        """A thing without settings."""

    return registry


def test_a_name_alone_means_the_defaults(things: Registry[object]):
    assert things.parse("round").to_dict() == {"name": "round", "radius": 3}
    assert things.parse({"name": "round", "radius": 5}).radius == 5
    assert things.parse("plain").to_dict() == {"name": "plain"}


def test_parse_is_the_inverse_of_to_dict(things: Registry[object]):
    config = things.parse({"name": "round", "radius": 5})
    assert things.parse(config.to_dict()) == config
    assert things.parse(config) is config


def test_build_hands_config_and_runtime_to_the_class(things: Registry[object]):
    thing = things.parse("round").build(width=8)
    assert thing.config.radius == 3
    assert thing.runtime == {"width": 8}
    assert (thing.name, thing.kind) == ("round", "thing")


def test_a_config_is_frozen(things: Registry[object]):
    with pytest.raises(ValidationError, match="frozen"):
        things.parse("round").radius = 9


def test_a_class_without_settings_gets_its_own_config(things: Registry[object]):
    assert things["plain"].Config is not ComponentConfig
    assert things["plain"].Config.component is things["plain"]
    assert not hasattr(ComponentConfig, "component")


def test_an_unknown_name_is_met_with_the_nearest_one(things: Registry[object]):
    with pytest.raises(KeyError, match=r"no thing named 'rond'. Did you mean 'round'\? Registered: plain, round."):
        things["rond"]


def test_two_classes_of_one_name_are_an_error_naming_both(things: Registry[object]):
    with pytest.raises(PluginError, match="thing 'round'") as caught:

        @things("round")
        class Other:
            pass

    assert "Round" in str(caught.value)
    assert "Other" in str(caught.value)
    assert "Rename one" in str(caught.value)


def test_the_same_class_may_be_registered_again(things: Registry[object]):
    """As happens when a module is reloaded."""
    cls = things["plain"]
    assert things("plain")(cls) is cls
    assert len(things) == 2


@pytest.mark.parametrize("wrong", [3, None, ["round"], {"radius": 3}, {"name": 3}])
def test_what_is_no_component_says_how_to_write_one(things: Registry[object], wrong: object):
    with pytest.raises(Exception, match="write a thing as a name or as"):
        things.parse(wrong)


def test_a_field_takes_only_components_of_its_kind():
    load_components()

    class Holder(BaseModel):
        sampler: Annotated[ComponentConfig, register.sampler] = "uniform"

    with pytest.raises(ValidationError, match="'pyav' is not a sampler"):
        Holder(sampler=register.reader.parse("pyav"))


def test_the_mapping_is_sorted_and_complete(things: Registry[object]):
    assert list(things) == ["plain", "round"]
    assert "round" in things
    assert "rond" not in things


def test_every_builtin_config_can_be_pickled():
    load_components()
    configs = [register.sampler.parse("uniform"), register.backbone.parse("tiny"), register.reasoner.parse("direct")]
    assert pickle.loads(pickle.dumps(configs)) == configs
