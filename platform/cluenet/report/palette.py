"""Colours of every page and figure, light and dark. Tested: told apart with each kind of colour blindness, contrast by WCAG 2.

Text (`ink`, `soft`, and `own` for links) has a contrast of 4.5 at least against `paper` and `card`, all others have 3. No
meaning hangs on a colour alone: words, line styles or places say it too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Colours:
    """Hexadecimal sRGB. The five of `series` stand for the same thing everywhere.

    own: the run's own answers and the clues it kept. baseline: what it is compared with, and clues it dropped. oracle: labelled
    clues. noise: disturbed inputs. none: without clues, random controls.
    """

    ink: str
    soft: str
    paper: str
    card: str
    line: str
    own: str
    baseline: str
    oracle: str
    noise: str
    none: str

    @property
    def series(self) -> tuple[str, str, str, str, str]:
        """For curves and bars, in this order."""
        return (self.own, self.baseline, self.oracle, self.noise, self.none)

    def css(self) -> str:
        """As declarations of custom properties: `--ink: #1b1f24; --soft: ...`."""
        return " ".join(f"--{name}: {colour};" for name, colour in asdict(self).items())


LIGHT = Colours(
    ink="#1b1f24", soft="#57606a", paper="#ffffff", card="#f6f8fa", line="#d1d9e0",
    own="#0a52c4", baseline="#b84a00", oracle="#1a9a72", noise="#cc4fb4", none="#4a525c",
)  # fmt: skip
"""For screens and paper; figures for papers take these."""

DARK = Colours(
    ink="#e6edf3", soft="#a2abb5", paper="#0d1117", card="#161b22", line="#3a424c",
    own="#4d94f5", baseline="#f98b3c", oracle="#2fd6a0", noise="#d07ab8", none="#c9d1d9",
)  # fmt: skip
