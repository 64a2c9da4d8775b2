"""The generated reference page is what the code says."""

from pathlib import Path

from cluenet.plugins import load_components
from cluenet.reference import reference
from cluenet.registry import register

PAGE = Path(__file__).parents[1] / "docs" / "recipe_reference.md"


def test_the_page_is_a_fresh_export():
    assert PAGE.read_text() == reference(), "docs/recipe_reference.md is out of date: run `make schema`"


def test_it_names_every_built_in_component_and_a_nested_setting():
    load_components()
    page = reference()
    for kind, registry in register.kinds().items():
        for name in registry:
            if registry[name].__module__.startswith("cluenet_components."):
                assert f"### {kind} `{name}`" in page
    assert "`train.stage1.losses.concept`" in page
