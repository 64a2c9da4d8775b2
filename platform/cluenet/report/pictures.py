"""Pictures inside a page: frames, and the attention of a clue over them, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

MOST_FRAMES = 12
LARGEST_SIDE = 160
SMALL = 96
"""Frames up to this side are stored without loss: they are tiny, and the browser enlarges them."""
QUALITY = 60
"""Of WebP: half of JPEG's bytes at a size where nobody sees the difference."""
HEAT_RGB, MOST_HEAT = (255, 214, 0), 150
"""Colour and largest opacity (of 255), over frames that are darkened meanwhile, so that brightness tells it and not its colour."""


def data_uri(frame_HWC: np.ndarray) -> str:
    """uint8 RGB as an image inside the page: without loss where it is small, else at most LARGEST_SIDE wide or high."""
    picture = Image.fromarray(frame_HWC)
    lossless = max(picture.size) <= SMALL
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return _uri(picture, "webp", **({"lossless": True} if lossless else {"quality": QUALITY}))


def heat_uri(attention_N: Sequence[float], shape: tuple[int, int, int], blocks: Sequence[int]) -> str:
    """A strip of tiles, one per entry of `blocks`: the more attention a token has, the less transparent it is.

    shape: blocks, rows, cols of the visual tokens. The scale is that of the clue: its largest token has MOST_HEAT.
    """
    heat_BRC = np.asarray(attention_N, dtype=float).reshape(shape)[list(blocks)]
    alpha_BRC = np.round(MOST_HEAT * heat_BRC / max(float(np.max(attention_N)), 1e-12)).astype(np.uint8)
    alpha_RX = np.concatenate(list(alpha_BRC), axis=1)
    pixels = np.empty((*alpha_RX.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = HEAT_RGB, alpha_RX
    return _uri(Image.fromarray(pixels), "png", optimize=True)


def _uri(picture: Image.Image, kind: str, **settings: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), **settings)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def frame_numbers(count: int, most: int = MOST_FRAMES) -> list[int]:
    """At most `most` of `count` frames, spread evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def nearest(times: Sequence[float], seconds: float) -> int:
    """The place of the time that is nearest, the earlier one of two."""
    return min(range(len(times)), key=lambda place: abs(times[place] - seconds))
