"""`cluenet serve` as a user runs it: it says where it is, answers there, and ends at Ctrl-C without a trace. And the config that it
exports, deployed by Ray's own `serve`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from cluenet.serve.arguments import APP
from helpers.environments import ROOT
from helpers.evaluation import model_folder, recipe
from helpers.serving import OPTIONS, SMALL, free_port, write_noise

SECONDS = 240
CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=True, dashboard_port=int(sys.argv[1]), log_to_driver=False)
print("started", flush=True)
sys.stdin.read()
"""
"""A Ray with a dashboard, until its standard input is closed."""


def command(folder: Path, port: int, *more: str) -> list[str]:
    small = [f"serve.{part}.cpu={one['cpu']}" for part, one in SMALL.items()]
    one = [f"serve.{part}.autoscaling.max_replicas=1" for part in SMALL]
    return [sys.executable, "-m", "cluenet", "serve", str(folder), f"serve.port={port}", *small, *one, *more]


def environment(**more: str) -> dict[str, str]:
    roots = os.pathsep.join(str(ROOT / name) for name in ("platform", "components", "tests"))
    return {**os.environ, "PYTHONPATH": roots, "RAY_AUTH_MODE": "disabled", **more}


@pytest.mark.timeout(600)
def test_it_serves_a_run_until_ctrl_c(tmp_path: Path) -> None:
    model_folder(tmp_path / "run-1" / "model", recipe=recipe())
    video, port, log = write_noise(tmp_path / "v.mp4"), free_port(), tmp_path / "log"
    more = ("serve.keys_variable=TEST_KEYS",)
    with log.open("w") as out:
        process = subprocess.Popen(
            command(tmp_path / "run-1", port, *more), stdout=out, stderr=out, env=environment(TEST_KEYS="one,two"),
            start_new_session=True,
        )  # fmt: skip
    try:
        until_it_says(process, log, "answers (Ctrl-C stops it)")
        url, keyed = f"http://127.0.0.1:{port}", {"Authorization": "Bearer two"}
        form = {"question": "which one hits red ?", "options": list(OPTIONS)}
        files = {"video": ("v.mp4", video.read_bytes(), "video/mp4")}
        assert httpx2.post(f"{url}/v1/videoqa", data=form, files=files, timeout=SECONDS).status_code == 401
        response = httpx2.post(f"{url}/v1/videoqa", data=form, files=files, headers=keyed, timeout=SECONDS)
        assert response.status_code == 200, response.text
        assert response.json()["answer"] in OPTIONS
        assert response.json()["model"] == "run-1"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text()
    assert f'curl -H "Authorization: Bearer $TEST_KEYS" {url}/v1/videoqa' in text
    assert "Traceback" not in text
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/health")


def until_it_says(process: subprocess.Popen, log: Path, words: str) -> None:
    end = time.monotonic() + SECONDS
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.3)


# ----------------------------------------------------------------------------------------------- on a cluster


@pytest.fixture
def dashboard() -> Iterator[str]:
    """URL of a cluster's dashboard."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    yield f"http://127.0.0.1:{port}"
    process.stdin.close()
    assert process.wait(SECONDS) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_it_exports_is_deployed_by_ray_serve(tmp_path: Path, dashboard: str) -> None:
    folder, video, port = (
        model_folder(tmp_path / "model", recipe=recipe()),
        write_noise(tmp_path / "v.mp4"),
        free_port(),
    )
    config = tmp_path / "serve.yaml"
    run(*command(folder, port, f"serve.allowed_roots=[{tmp_path}]", "--export", str(config)))
    run(sys.executable, "-m", "ray.serve.scripts", "deploy", str(config), "-a", dashboard)
    answers_at(url := f"http://127.0.0.1:{port}")
    body = {"question": "which one hits red ?", "options": OPTIONS, "video_url": video.as_uri()}
    response = httpx2.post(f"{url}/v1/videoqa", json=body, timeout=SECONDS)
    assert response.status_code == 200, response.text
    assert response.json()["answer"] in OPTIONS
    status = yaml.safe_load(run(sys.executable, "-m", "ray.serve.scripts", "status", "-a", dashboard))
    assert status["applications"][APP]["status"] == "RUNNING"
    assert set(status["applications"][APP]["deployments"]) == {"Ingress", "Decoding", "Engine"}


def run(*arguments: str) -> str:
    """Its standard output."""
    found = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=SECONDS, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def answers_at(url: str) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if httpx2.get(f"{url}/health", timeout=SECONDS).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")
