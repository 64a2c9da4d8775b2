"""Work of fixed shapes that is done again and again, as one call: a GPU replays what it has recorded (CUDA graphs).

A pass of a decoder is some two thousand small calls, and for few tokens a GPU waits for the host most of the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


class StepGraph:
    """The first call runs the work as it stands, the second records it, later ones replay; on other devices all run as it stands.

    The work reads and writes the same tensors each time, takes the same path and waits for nothing on the device."""

    works = True
    """Until a recording fails; then nothing is recorded any more."""

    def __init__(self, device: torch.device):
        self._device, self._calls = device, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        self._calls += 1
        if self._calls == 2 and self._device.type == "cuda" and StepGraph.works:
            self._record(work)
        if self._graph is None:
            work()
        else:
            self._graph.replay()

    def _record(self, work: Callable[[], None]) -> None:
        try:
            self._graph = _recorded(work, self._device)
        except RuntimeError as error:
            StepGraph.works = False
            warnings.warn(f"tokens are written without CUDA graphs, which is slower: {error}", stacklevel=2)


def _recorded(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """Nothing is computed. Other threads may use the device meanwhile."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream(device).wait_stream(stream)
    return graph
