"""How colours are seen: contrast by WCAG 2, three kinds of colour blindness, and how far two colours are apart."""

from __future__ import annotations

import numpy as np

BLINDNESS = {
    "none": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""On linear sRGB, severity 1.0: Machado, Oliveira and Fernandes 2009, IEEE TVCG 15(6), supplementary table."""

_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
"""sRGB with its white, D65 (IEC 61966-2-1)."""


def linear(colour: str) -> np.ndarray:
    """Linear sRGB, 0 to 1, of "#rrggbb" (IEC 61966-2-1)."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    """1 to 21; https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    dark, light = sorted(float(linear(colour) @ (0.2126, 0.7152, 0.0722)) for colour in (a, b))
    return (light + 0.05) / (dark + 0.05)


def difference(a: str, b: str, blindness: str = "none") -> float:
    """CIE 1976 colour difference as someone with this colour blindness sees it; 2.3 is just noticeable."""
    matrix = np.array(BLINDNESS[blindness])
    seen = [_lab(np.clip(matrix @ linear(colour), 0, 1)) for colour in (a, b)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def _lab(rgb: np.ndarray) -> np.ndarray:
    share = _TO_XYZ @ rgb / (_TO_XYZ @ np.ones(3))
    x, y, z = np.where(share > 216 / 24389, np.cbrt(share), (24389 / 27 * share + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
