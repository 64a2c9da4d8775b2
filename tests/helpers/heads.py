"""Heads of clusters in processes of their own, with their own ports and folders; they end with the block, and nothing else does.

Ray notes the last head of a machine in its folder, and jobs and `auto` look there: heads with one folder would meet.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from helpers.environments import QUIET


@dataclass(frozen=True)
class Head:
    process: subprocess.Popen[str]
    address: str  # HOST:PORT
    dashboard: str | None  # URL

    def kill(self) -> None:
        """At once, with all its children: a graceful end takes half a minute."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for child in (self.process, *children):
            child.kill()
        self.process.wait(timeout=60)
        psutil.wait_procs(children, timeout=60)


@contextmanager
def head(
    python: Path, *options: str, port: int | None = None, cpus: int = 2, dashboard: bool = False,
    variables: dict[str, str] | None = None,
) -> Iterator[Head]:  # fmt: skip
    """`ray start --head` of this Python. `ray stop` would end other people's Ray too, and is never called."""
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # a short path: sockets lie in it
        agent = "--dashboard-agent-listen-port=0"  # any free one: without its agent a head takes no jobs
        yield from _head(
            python,
            [*options, f"--temp-dir={folder}", f"--num-cpus={cpus}", agent],
            port or free_port(),
            dashboard,
            variables or {},
        )


def _head(python: Path, options: list[str], port: int, dashboard: bool, variables: dict[str, str]) -> Iterator[Head]:
    port_of_dashboard = free_port()
    command = [str(python), "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", *options]
    shown = [f"--dashboard-port={port_of_dashboard}"] if dashboard else ["--include-dashboard=false"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    path = os.pathsep.join([str(python.parent), inherited["PATH"]])  # jobs call `python`
    process = subprocess.Popen(
        [*command, *shown, "--object-store-memory=150000000", "--disable-usage-stats"],
        env={**inherited, **QUIET, "PATH": path, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    one = Head(process, f"127.0.0.1:{port}", f"http://127.0.0.1:{port_of_dashboard}" if dashboard else None)
    try:
        _wait_for(port_of_dashboard if dashboard else port, process)
        yield one
    finally:
        one.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            time.sleep(5)  # the node itself joins a little later
            return
    raise AssertionError(f"the head did not start: {process.communicate(timeout=1) if process.poll() else 'no answer'}")
