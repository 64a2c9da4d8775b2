"""Colours of pages and figures: legible, and told apart by readers who see colours otherwise."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest

from cluenet.report.palette import DARK, LIGHT, Colours
from helpers.colours import BLINDNESS, contrast, difference

BOTH = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def test_the_measures_agree_with_published_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.005
    )  # WebAIM's example of a grey that just fails
    assert difference("#000000", "#ffffff") == pytest.approx(100, abs=0.01)
    for matrix in BLINDNESS.values():
        assert np.array(matrix).sum(1) == pytest.approx(np.ones(3), abs=2e-6)  # greys stay greys
    red, green = "#c00000", "#5c7a00"  # the classical mistake
    assert difference(red, green, "deuteranopia") < 0.4 * difference(red, green)


@BOTH
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_series_are_told_apart(colours: Colours, blindness: str):
    near = {pair: difference(*pair, blindness) for pair in combinations(colours.series, 2)}
    assert min(near.values()) > 15, sorted(near.items(), key=lambda item: item[1])[:2]


@BOTH
def test_text_and_marks_stand_out(colours: Colours):
    for ground in (colours.paper, colours.card):
        assert min(contrast(text, ground) for text in (colours.ink, colours.soft, colours.own)) >= 4.5
        assert min(contrast(mark, ground) for mark in colours.series) >= 3


def test_as_css():
    assert LIGHT.css().startswith("--ink: #1b1f24; --soft: ")
    assert len(re.findall(r"--\w+: #[0-9a-f]{6};", LIGHT.css())) == 10
