"""Components from elsewhere: found, or named with the reason why not."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet import plugins
from cluenet.errors import PluginError
from cluenet.plugins import load_components
from cluenet.recipe import Recipe
from cluenet.registry import register

GOOD = '''
from cluenet.contracts import Sampler
from cluenet.registry import register

@register.sampler({name!r})
class Mine(Sampler):
    """The first frame."""

    def sample(self, video, first, last):
        return [first]
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; what is registered from it is forgotten afterwards."""
    load_components()
    known = {kind: dict(registry._classes) for kind, registry in register.kinds().items()}
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for kind, registry in register.kinds().items():
        registry._classes = known[kind]
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    plugins._load.cache_clear()


def test_a_module_of_the_recipe_brings_components(folder: Path):
    (folder / "plugin_one.py").write_text(GOOD.format(name="first_frame"))
    recipe = Recipe.from_dict({"plugins": ["plugin_one"], "data": {"sampler": "first_frame"}})
    assert recipe.data.sampler.build().sample(None, 7, 9) == [7]


def test_every_module_of_a_package_is_imported(folder: Path):
    (folder / "plugin_two" / "deep").mkdir(parents=True)
    for init in ("plugin_two", "plugin_two/deep"):
        (folder / init / "__init__.py").touch()
    (folder / "plugin_two" / "deep" / "frames.py").write_text(GOOD.format(name="deep_frame"))
    load_components(["plugin_two"])
    assert "deep_frame" in register.sampler


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_library", "No module named 'no_such_library'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(folder: Path, text: str, cause: str):
    (folder / "plugin_bad.py").write_text(text)
    with pytest.raises(PluginError, match="plugin_bad") as caught:
        load_components(["plugin_bad"])
    assert cause in str(caught.value)
    assert "`plugins: [plugin_bad]` of the recipe" in str(caught.value)


def test_a_missing_plugin_is_named(folder: Path):
    with pytest.raises(PluginError, match="module 'plugin_absent': ModuleNotFoundError"):
        Recipe.from_dict({"plugins": ["plugin_absent"]})


def test_a_name_that_is_taken_names_both_modules(folder: Path):
    (folder / "plugin_double.py").write_text(GOOD.format(name="uniform"))
    with pytest.raises(PluginError, match=r"cluenet_components\.samplers\.uniform") as caught:
        load_components(["plugin_double"])
    assert "plugin_double.Mine" in str(caught.value)


def test_a_broken_package_with_an_entry_point_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "plugin_entry.py").write_text("raise OSError('no licence file')")
    entry = importlib.metadata.EntryPoint("theirs", "plugin_entry", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    with pytest.raises(PluginError, match="entry point 'theirs'") as caught:
        load_components()
    assert "no licence file" in str(caught.value)


def test_plugins_that_are_no_list_are_a_problem_of_the_recipe():
    with pytest.raises(Exception, match="plugins: Input should be a valid tuple"):
        Recipe.from_dict({"plugins": "mine"})
