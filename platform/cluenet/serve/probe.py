"""How large a video is, from its container, in a process of its own with a time and a memory limit: before it is decoded.

Only containers that name themselves in their first bytes are opened: FFmpeg would take a text for a playlist (HLS, concat,
SDP) and open the files and addresses in it. What passes is no playlist to the readers that decode it afterwards either.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pebble import ProcessExpired

from cluenet.config.serve import Limits
from cluenet.errors import MediaError
from cluenet.processes import WorkerPool
from cluenet.serve.containers import VideoFacts, read_facts
from cluenet.serve.errors import ServeError

WORKERS = 2
"""A file that keeps a process busy until its time is over does not hold up all others."""
RECYCLE_AFTER = 200
MEMORY_GIB = 2.0
_STARTING = threading.Lock()

__all__ = ["VideoFacts", "probe"]


def probe(path: str | Path, limits: Limits) -> VideoFacts:
    """Blocks: call it in a thread.

    Raises ServeError: 400 for what is no video, or hangs or ends its process; 413 for one beyond the limits.
    """
    try:
        return _isolated(str(path), limits)
    except MediaError as error:
        raise ServeError.of_media(error) from None


def _isolated(path: str, limits: Limits) -> VideoFacts:
    with _STARTING:
        pool = _pool()
    for _ in range(2):  # once more: a process that dies may have been hurt by the file before
        try:
            task = pool.submit(read_facts, (path, limits), timeout_seconds=limits.decode_timeout_seconds)
            facts: VideoFacts = pool.result(task)
            return facts
        except TimeoutError:
            raise MediaError("timeout", f"not read within {limits.decode_timeout_seconds:g} s") from None
        except MemoryError:
            raise MediaError("memory", f"reading it takes more than {MEMORY_GIB:g} GiB") from None
        except (ProcessExpired, BrokenProcessPool):
            continue
    raise MediaError("crashed", "the process reading it died")


@functools.cache
def _pool() -> WorkerPool:
    return WorkerPool(WORKERS, recycle_after=RECYCLE_AFTER, memory_gib=MEMORY_GIB)
