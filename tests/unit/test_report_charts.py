"""Geometry of the report's charts, its pictures, and links in chains: against values that were worked out by hand."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from cluenet.report.chains import linked
from cluenet.report.charts import (
    MOST_POINTS,
    Curve,
    Dots,
    Point,
    average,
    curves,
    dot_plot,
    points,
    ticks,
)
from cluenet.report.pictures import data_uri, frame_numbers, heat_uri
from cluenet.report.tracks import Bar, bar, percent
from cluenet.report.training import stages


def picture(uri: str) -> tuple[str, Image.Image]:
    kind, _, code = uri.partition(",")
    return kind, Image.open(io.BytesIO(base64.b64decode(code)))


# ------------------------------------------------------------------------------------------------------- charts


def test_long_curves_are_averaged_and_keep_their_mean() -> None:
    steps = [Point(float(step), float(step % 7)) for step in range(1, 1201)]
    few = average(steps, MOST_POINTS)
    assert len(few) == 240
    assert np.mean([p.y for p in few]) == pytest.approx(np.mean([p.y for p in steps]))
    assert average(steps[:3], MOST_POINTS) == steps[:3]


def test_a_curve_spans_its_chart_and_its_band_follows_the_interval() -> None:
    three = [Point(1, 10, 8, 12), Point(2, 9, 8, 11), Point(3, 8, 6, 9)]
    chart = curves("a", [Curve("run", "own", three)], x="step", y="loss, nats", place="step")
    (series,) = chart.series
    assert series.line == "56,66.0 202.0,94.0 348,122.0".replace("56,", "56.0,").replace(
        "348,", "348.0,"
    )  # 6..12 on 178..10
    assert series.band == "56.0,10.0 202.0,38.0 348.0,94.0 348.0,178.0 202.0,122.0 56.0,122.0"
    assert [mark.words for mark in series.marks][:2] == ["step 1: 10 [8 .. 12]", "step 2: 9 [8 .. 11]"]
    assert chart.alternative == "a. loss, nats by step. run from step 1: 10 [8 .. 12] to step 3: 8 [6 .. 9]"
    assert (chart.x_title, chart.y_title, chart.listed) == ("step", "loss, nats", True)


def test_one_point_stands_in_the_middle_and_none_is_refused() -> None:
    chart = curves("a", [Curve("run", "own", [Point(1, 1)])], x="x", y="y")
    assert (chart.series[0].line, chart.series[0].marks[0].x, chart.series[0].marks[0].y) == ("", 202.0, 94.0)
    assert [tick.label for tick in (*chart.x_ticks, *chart.y_ticks)] == ["1", "1"]
    with pytest.raises(ValueError, match="a: no points"):
        curves("a", [Curve("run", "own", [])], x="x", y="y")


def test_dots_stand_in_the_row_of_their_name_and_missing_ones_nowhere() -> None:
    found = {"value": 0.5, "low": 0.25, "high": None, "n": 4}
    other = {"value": 1.0, "low": 0.5, "high": 1.0, "n": 4}
    chart = dot_plot("a", ["x", "y"], [Dots("run", "own", [found, None]), Dots("base", "baseline", [other, other])], x="share, %", reference=0.5)  # fmt: skip
    run, base = chart.series
    assert [(mark.x, mark.where, mark.value) for mark in run.marks] == [(419.0, "x", "50.0 %")]
    assert (run.marks[0].low, run.marks[0].high, run.marks[0].interval) == (274.5, None, "")
    assert [(mark.x, mark.low, mark.where) for mark in base.marks] == [(708.0, 419.0, "x"), (708.0, 419.0, "y")]
    assert base.marks[0].y - run.marks[0].y == 12
    assert base.marks[1].y - base.marks[0].y == chart.rows[1].at - chart.rows[0].at == 36
    assert chart.reference == 419.0
    assert [tick.label for tick in chart.x_ticks] == ["0", "20", "40", "60", "80", "100"]


def test_series_differ_by_more_than_colour() -> None:
    lines = [Curve(role, role, [Point(0, 0)]) for role in ("own", "baseline", "oracle", "noise", "none")]
    assert len({one.shape for one in curves("a", lines, x="x", y="y").series}) == 5


def test_differences_are_in_points() -> None:
    assert (points(0.123), points(-0.5)) == ("+12.3 points", "-50.0 points")


def test_every_term_has_a_chart_and_how_it_went_stands_apart() -> None:
    log = [
        {
            "stage": "s",
            "step": n,
            "loss": 1.0,
            "concept": 1.0 * n,
            "lr": 0.1,
            "labels/concept": 4,
            "validation/accuracy": 0.5,
        }
        for n in (1, 2)
    ]
    ((reached, how),) = stages(log).values()
    assert [chart.title for chart in reached] == ["loss, s", "concept, s", "validation/accuracy, s"]
    assert [chart.y_title for chart in reached][1:] == ["cross-entropy, nats per word", "validation answers right, %"]
    assert reached[1].caption == "1 → 2"
    assert reached[2].caption == "50.0 %"
    assert [chart.title for chart in how] == ["lr, s"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (1, 400, [200, 400]),
        (0.3, 3.1, [1, 2, 3]),
        (-0.5, 0.5, [-0.5, 0, 0.5]),
        (7e-5, 9e-5, [7e-5, 8e-5, 9e-5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(expected)


def test_bars_stay_on_their_track() -> None:
    assert bar(1, 2, 0, 4) == Bar(25.0, 25.0)
    assert bar(4, 4, 0, 4) == Bar(98.5, 1.5)  # an instant at the end is still seen
    assert bar(-1, 9, 0, 4) == Bar(0.0, 100.0)
    assert percent(1.5) == 100.0


# ----------------------------------------------------------------------------------------------------- pictures


def test_small_pictures_are_exact_and_large_ones_small() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    kind, image = picture(data_uri(frame))
    assert kind == "data:image/webp;base64"
    assert np.array_equal(np.asarray(image), frame)
    kind, image = picture(data_uri(np.zeros((1080, 1920, 3), np.uint8)))
    assert (kind, image.size) == ("data:image/webp;base64", (160, 90))


def test_heat_has_a_tile_per_frame_and_is_most_opaque_where_attention_is_most() -> None:
    attention = [0.0, 0.1, 0.2, 0.0, 0.4, 0.0, 0.0, 0.3]  # 2 blocks of 2 x 2
    kind, image = picture(heat_uri(attention, (2, 2, 2), [1, 0, 1]))
    assert (kind, image.mode, image.size) == ("data:image/png;base64", "RGBA", (6, 2))
    alpha = np.asarray(image)[..., 3]
    assert alpha.tolist() == [[150, 0, 0, 38, 150, 0], [0, 112, 75, 0, 0, 112]]


def test_frames_are_spread_evenly() -> None:
    assert frame_numbers(3, 8) == [0, 1, 2]
    assert frame_numbers(16, 8) == [0, 2, 4, 6, 9, 11, 13, 15]


# ------------------------------------------------------------------------------------------------------- chains


def test_clues_in_a_chain_are_links_wherever_their_words_stand() -> None:
    clues = [{"text": "red hits", "key": "a"}, {"text": "red hits blue", "key": "b"}, {"text": "RED hits blue", "key": "c"}, {"text": "", "key": "d"}]  # fmt: skip
    pieces = linked("Red hits blue . credit red hits . so red", clues)
    assert [(piece.text, piece.key) for piece in pieces] == [
        ("Red hits blue", "b"), (" . credit ", ""), ("red hits", "a"), (" . so red", "")
    ]  # fmt: skip
    assert [piece.key for piece in linked("nothing", [])] == [""]
