"""Whether the texts of a page can be read: their contrast, from the styles that the browser computed."""

from __future__ import annotations

import re

from playwright.sync_api import Page

from helpers.colours import contrast

LEAST_CONTRAST = 4.5
"""Of text, WCAG 2.2, success criterion 1.4.3 (AA)."""

TEXTS = """() => {
  const shown = node => node.checkVisibility({visibilityProperty: true}) && node.getClientRects().length;
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const opacity = node => {
    let share = 1;
    for (let at = node; at; at = at.parentElement) share *= Number(getComputedStyle(at).opacity);
    return share;
  };
  const found = [];
  for (const node of document.querySelectorAll("body *:not(script, style, noscript, noscript *)")) {
    const own = [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim());
    const field = ["INPUT", "TEXTAREA"].includes(node.tagName), drawn = node instanceof SVGElement;
    if ((own || field) && shown(node)) {
      const style = getComputedStyle(node), words = node.textContent || node.id;
      found.push([`${node.tagName} ${words.trim()}`, drawn ? style.fill : style.color, ground(node), opacity(node)]);
    }
  }
  return found;
}"""
"""[what, colour of the text, colour behind it, opacity] of all that can be read, texts of SVG among it."""

Text = tuple[str, str, str, float]


def assert_readable(page: Page, *more: Text) -> None:
    """Every shown text has enough contrast. `more`: texts that no element holds."""
    texts = [*page.evaluate(TEXTS), *more]
    assert len(texts) > 20
    assert [text for text in texts if _contrast(*text[1:]) < LEAST_CONTRAST] == []


def _contrast(text: str, ground: str, opacity: float) -> float:
    above, below = rgb(text), rgb(ground)
    mixed = [round(opacity * a + (1 - opacity) * b) for a, b in zip(above, below)]
    return contrast(as_hex(mixed), as_hex(below))


def rgb(colour: str) -> list[int]:
    """Of `rgb(r, g, b)`, as browsers compute colours."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found, f"{colour!r} is no opaque colour"
    return [int(part) for part in found.groups()]


def as_hex(parts: list[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in parts)
