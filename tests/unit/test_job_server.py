"""Jobs are handed over once, followed through lost connections, and end with the job's exit code. tests/distributed has a real head."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails

from cluenet.cli import call
from cluenet.errors import ClusterError
from cluenet.jobs import following, server
from cluenet.jobs.job import job_of
from helpers.jobs import working_directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return working_directory(tmp_path)


# -------------------------------------------------------------------------------------------------- submitting


def details(submission_id: str | None, status: str, **more: Any) -> JobDetails:
    return JobDetails(type="SUBMISSION", submission_id=submission_id, status=status, entrypoint="", **more)


class Client:
    """Ray's client, as far as it is used, with jobs that are there already."""

    def __init__(self, *jobs: JobDetails):
        self.jobs, self.submitted = list(jobs), {}

    def get_address(self) -> str:
        return "http://head:8265"

    def list_jobs(self) -> list[JobDetails]:
        return self.jobs

    def submit_job(self, *, submission_id: str, **settings: Any) -> str:
        self.submitted = settings
        return submission_id


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], 1),
        ([("-1", "FAILED")], 2),
        ([("-1", "FAILED"), ("-10", "STOPPED"), ("-9", "SUCCEEDED")], 11),
        ([("-x", "RUNNING"), ("-1-3", "RUNNING"), (None, "RUNNING")], 1),
    ],
)
def test_every_attempt_has_its_number(folder: Path, there: list[tuple[str | None, str]], expected: int):
    job = job_of(folder / "recipes" / "r.yaml", ["train.stage1.steps=5"], folder)
    client = Client(*(details(None if end is None else job.name + end, status) for end, status in there))
    assert server.submit(client, job, print) == f"{job.name}-{expected}"
    assert client.submitted["entrypoint"] == "python -m cluenet run recipes/r.yaml train.stage1.steps=5"
    assert client.submitted["runtime_env"] == job.runtime_env


def test_the_attempt_under_way_is_followed_instead_of_a_second_one(folder: Path):
    job = job_of(folder / "recipes" / "r.yaml", [], folder)
    client, said = Client(details(f"{job.name}-1", "FAILED"), details(f"{job.name}-2", "PENDING")), []
    assert server.submit(client, job, said.append) == f"{job.name}-2"
    assert not client.submitted
    assert "is not over: it is followed" in said[0]


class Starting(Client):
    """Refuses a job so many times."""

    def __init__(self, refusals: float):
        super().__init__()
        self.refusals = refusals

    def submit_job(self, **settings: Any) -> str:
        self.refusals -= 1
        if self.refusals >= 0:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")
        return super().submit_job(**settings)


def test_a_head_that_has_just_started_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "AGENT_SECONDS", 0.6)
    job = job_of(folder / "recipes" / "r.yaml", [], folder)
    assert server.submit(Starting(3), job, print) == f"{job.name}-1"
    with pytest.raises(ClusterError, match=r"refuses: .*No available agent"):
        server.submit(Starting(float("inf")), job, print)


# --------------------------------------------------------------------------------------------------- following


class Tail(Client):
    """A log that is cut off after `cuts` characters, connection by connection, and then whole."""

    def __init__(self, text: str, *cuts: int, end: JobDetails):
        super().__init__()
        self.text, self.cuts, self.end = text, list(cuts), end

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        cut = self.cuts.pop(0) if self.cuts else None
        for start in range(0, len(self.text if cut is None else self.text[:cut]), 3):
            yield self.text[start : min(start + 3, cut or len(self.text))]
        if cut is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    def get_job_status(self, job: str) -> Any:
        return self.end.status

    def get_job_info(self, job: str) -> JobDetails:
        return self.end


TEXT = "one\ntwo\nthree\nthe end\n"


@pytest.mark.parametrize("cuts", [(), (5,), (1, 8, 8, 15), (len(TEXT), 2)])
def test_a_lost_connection_neither_repeats_nor_skips_a_word(cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "SECONDS", 0)
    shown: list[str] = []
    client = Tail(TEXT, *cuts, end=details("j", "SUCCEEDED", driver_exit_code=0))
    assert following.follow(client, "j", shown.append, print) == 0
    assert "".join(shown) == TEXT


def test_a_server_that_stays_away_is_an_error_that_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "SECONDS", 0)
    monkeypatch.setattr(following, "RECONNECTS", 3)
    shown: list[str] = []
    client = Tail(TEXT, 4, *[4] * 10, end=details("j", "RUNNING"))
    with pytest.raises(ClusterError, match="connection to the job server is lost") as error:
        following.follow(client, "j", shown.append, print)
    assert "ray job logs --address http://head:8265 --follow j" in str(error.value)
    assert "".join(shown) == TEXT[:4]
    assert len(client.cuts) == 7  # the first connection, which showed something, and three more


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0), ("STOPPED", None, 1), ("FAILED", 2, 2), ("FAILED", 130, 130), ("FAILED", -9, 137), ("FAILED", None, 1),
        ("FAILED", 0, 1), ("STOPPED", 0, 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_jobs(status: str, code: int | None, expected: int):
    said: list[str] = []
    message = "Job entrypoint command failed with exit code 2, last available logs:\nmuch"
    assert following.exit_code(details("j-1", status, driver_exit_code=code, message=message), said.append) == expected
    assert said == ([] if expected == 0 else [f"job j-1: {status}: Job entrypoint command failed with exit code 2"])


# ---------------------------------------------------------------------------------------------------- reaching it


class JobServer(BaseHTTPRequestHandler):
    """Answers as Ray 2.60 does; asks for TOKEN, where there is one."""

    token: str | None = None

    def do_GET(self) -> None:
        asked = self.headers.get("Authorization")
        refused = self.token is not None and asked != f"Bearer {self.token}"
        self.send_response((403 if asked else 401) if refused else 200)
        self.end_headers()
        body = {"ray_version": "2.60.0", "version": "4"} if self.path == "/api/version" else []
        self.wfile.write(b"Unauthorized" if refused else json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def job_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(JobServer, "token", None)
    with ThreadingHTTPServer(("127.0.0.1", 0), JobServer) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()


def test_the_address_that_is_given_wins_over_the_environment(job_server: str, monkeypatch: pytest.MonkeyPatch):
    for name in server.VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert server.connect(job_server).get_address() == job_server
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", job_server)
    assert server.connect().get_address() == job_server


def test_a_token_that_is_missing_is_said(job_server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(JobServer, "token", "the-token-of-the-cluster")
    with pytest.raises(ClusterError, match=rf"{job_server} wants a token and did not accept ours.*RAY_AUTH_TOKEN"):
        server.connect(job_server)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:1", "no job server answers at http://127.0.0.1:1"),
        ("ray://head:10001", "jobs are submitted to the dashboard's URL"),
        ("127.0.0.1:1", "no Ray cluster answers"),
        ("head", "is not HOST:PORT"),
    ],
)
def test_addresses_that_cannot_work(address: str, message: str):
    with pytest.raises(ClusterError, match=message):
        server.connect(address)


def test_a_refusal_of_the_server_is_an_error_of_the_cluster():
    class Refusing(Client):
        def list_jobs(self) -> list[JobDetails]:
            raise RuntimeError("Request failed with status code 500: boom")

    with pytest.raises(ClusterError, match=r"the job server at http://head:8265 refuses: .*boom"):
        server.submit(Refusing(), job=None, say=print)


# ------------------------------------------------------------------------------------------------------ the verb


@pytest.fixture
def submitted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setattr(server, "connect", lambda address: client)
    monkeypatch.chdir(folder)
    return client


def test_without_following_it_says_how_to(submitted: Client, capsys: pytest.CaptureFixture[str]):
    assert call(["submit", "recipes/r.yaml", "--no-follow"]) == 0
    out, err = capsys.readouterr()
    name = out.split()[1]
    assert out == f"job {name} at http://head:8265\n"
    assert f"ray job logs --address http://head:8265 --follow {name}" in err
    assert f"ray job stop --address http://head:8265 {name}" in err


def test_the_commands_exit_code_is_the_jobs(submitted: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "follow", lambda *_: 7)
    assert call(["submit", "recipes/r.yaml"]) == 7
    monkeypatch.setattr(following, "follow", lambda *_: 0)
    assert call(["submit", "recipes/r.yaml"]) == 0


def test_ctrl_c_leaves_the_job_alone(
    submitted: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "follow", interrupted)
    assert call(["submit", "recipes/r.yaml"]) == 130
    err = capsys.readouterr().err
    assert "goes on" in err
    assert "ray job stop --address http://head:8265 small-" in err
    assert "run the same command again" not in err
