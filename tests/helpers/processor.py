"""Processor time and memory of the processes of an endpoint that this process has started, from /proc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import psutil

from cluenet.serve.arguments import APP

MARKS = {
    "engine": f"ServeReplica:{APP}:Engine", "ingress": f"ServeReplica:{APP}:Ingress",
    "decoding": f"ServeReplica:{APP}:Decoding", "proxy": "ProxyActor", "controller": "ServeController",
    "haproxy": "/haproxy ", "raylet": "raylet/raylet", "gcs": "gcs/gcs_server",
}  # fmt: skip
"""What their command lines have in them."""
REPLICAS = ("engine", "ingress", "decoding")


def processor_seconds() -> Counter[str]:
    """Since each of them started, by name."""
    found: Counter[str] = Counter()
    for name, process in _processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found[name] += times.user + times.system
    return found


def memory_mib() -> float:
    """Of all replicas."""
    return sum(process.memory_info().rss / 2**20 for name, process in _processes() if name in REPLICAS)


def _processes() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        yield from ((name, process) for name, mark in MARKS.items() if mark in line)
