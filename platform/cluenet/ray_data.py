"""Ray Data as the steps use it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray.data


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data without its own bars and reports, which would fight with ours; `cluenet` at level DEBUG keeps them."""
    if logging.getLogger("cluenet").isEnabledFor(logging.DEBUG):
        yield
        return
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)
