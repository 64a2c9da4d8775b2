"""What is recorded on a GPU and what is not; that replays compute the same is shown on one (tests/gpu)."""

from __future__ import annotations

import pytest
import torch

from cluenet.model import step_graph
from cluenet.model.step_graph import StepGraph


class Recorded:
    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture(autouse=True)
def hopeful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepGraph, "works", True)


def test_the_first_call_runs_and_later_ones_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, calls = Recorded(), []
    monkeypatch.setattr(step_graph, "_recorded", lambda work, device: recorded)
    graph = StepGraph(torch.device("cuda"))
    for _ in range(4):
        graph(lambda: calls.append(1))
    assert len(calls) == 1
    assert recorded.replays == 3


def test_on_a_cpu_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graph, "_recorded", lambda work, device: pytest.fail("recorded on a CPU"))
    graph, calls = StepGraph(torch.device("cpu")), []
    for _ in range(4):
        graph(lambda: calls.append(1))
    assert len(calls) == 4


def test_where_recording_fails_all_runs_as_it_stands_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(work, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(step_graph, "_recorded", failing)
    calls: list[int] = []

    def six_steps() -> None:
        for graph in (StepGraph(torch.device("cuda")), StepGraph(torch.device("cuda"))):
            for _ in range(3):
                graph(lambda: calls.append(1))

    with pytest.warns(UserWarning, match="without CUDA graphs, which is slower: operation not permitted") as told:
        six_steps()
    assert len(calls) == 6
    assert len(told) == 1
