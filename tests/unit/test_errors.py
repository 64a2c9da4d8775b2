"""Errors keep their message and parts on their way between processes."""

from __future__ import annotations

import pickle

import pytest

from cluenet import errors
from cluenet.errors import CluenetError, MediaError, Problem, RecipeError, suggestion

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CluenetError)]


def made(kind: type[CluenetError]) -> CluenetError:
    if kind is RecipeError:
        return RecipeError("r.yaml", [Problem("train.lr", "must be > 0"), Problem("", "empty")])
    return MediaError("corrupt", "cut off") if kind is MediaError else kind("what is wrong")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling(kind: type[CluenetError]):
    error = made(kind)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_user_can_mend_exits_with_2(kind: type[CluenetError]):
    assert kind.exit_code == 2


def test_a_recipe_error_lists_every_problem():
    assert str(made(RecipeError)) == "r.yaml: 2 problems\n  train.lr: must be > 0\n  empty"
    assert str(RecipeError("r.yaml", [Problem("a", "b")])).startswith("r.yaml: 1 problem\n")


def test_a_suggestion_names_the_nearest_and_all():
    assert suggestion("unifrom", ["uniform", "fps"]) == "Did you mean 'uniform'? Known: fps, uniform."
    assert suggestion("zzz", ["uniform"], label="Registered") == "Registered: uniform."
    assert suggestion("zzz", []) == "Known: nothing."
