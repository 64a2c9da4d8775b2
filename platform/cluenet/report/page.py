"""Pages of one look: templates that extend `base.html.j2`, with what numbers need to become words. One file, no outside resource."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from cluenet.report import charts, palette, tracks

HERE = Path(__file__).parent


def render(template: str, context: dict[str, Any], *, folder: Path = HERE) -> str:
    """The page that `template` of `folder` makes; it finds `base.html.j2` and `macros.html.j2` wherever it lies itself."""
    page: str = environment(folder).get_template(template).render(**context)
    return page


def environment(folder: Path = HERE) -> Environment:
    loader = ChoiceLoader([FileSystemLoader(folder), FileSystemLoader(HERE)])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    words = (share, signed, p_value, seconds, short, tracks.percent)
    made.filters.update({function.__name__: function for function in words})
    made.globals.update(palette=palette, most_marks=charts.MOST_MARKS)
    return made


# ----------------------------------------------------------------------------------------------- numbers as words


def share(value: float | None, digits: int = 1) -> str:
    """0.123 -> "12.3", in percent; None -> "–"."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None) -> str:
    """0.123 -> "+12.3", in points; None -> "–"."""
    return "–" if value is None else f"{100 * value:+.1f}"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def seconds(value: float) -> str:
    """83.2 -> "1 min 23 s"; below ten seconds with a digit."""
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def short(value: float | None) -> str:
    """Large and small numbers with three digits: 12345678 -> "12.3 M"."""
    if value is None:
        return "–"
    power = 0 if value == 0 else min(6, max(0, int(math.log10(abs(value)) // 3)))
    return f"{value / 1000**power:.3g}{('', ' k', ' M', ' G', ' T', ' P', ' E')[power]}"
