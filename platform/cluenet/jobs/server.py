"""Ray's job server: reaching it, and handing it a job, once.

`ray.job_submission` of Ray 2.60 lets RAY_API_SERVER_ADDRESS and RAY_ADDRESS win over the address that it is given, and sends no
token unless RAY_AUTH_MODE says so.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cluenet import cluster
from cluenet.errors import ClusterError
from cluenet.jobs.job import Job

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
AGENT_SECONDS = 60.0
NO_AGENT = "No available agent"
CHATTY = tuple(
    f"ray.{name}"
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
)
"""Loggers that tell users of every step that Ray takes."""


def connect(address: str | None = None) -> JobSubmissionClient:
    """A client of the job server at `address`: the dashboard's URL, or HOST:PORT of a head; else where VARIABLES say.

    Raises ClusterError when nobody answers there, or the cluster wants another token.
    """
    found = address or next((os.environ[name] for name in VARIABLES if os.environ.get(name)), DEFAULT_ADDRESS)
    _check_kind(found)
    cluster.use_token_if_there_is_one()
    if "://" not in found:
        cluster.try_address(found)
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    with translated(found), _variable(VARIABLES[0], found):
        return JobSubmissionClient(found)


def submit(client: JobSubmissionClient, job: Job, say: Callable[[str], None]) -> str:
    """The id of the job's new attempt; of the one under way where there is one, which two would disturb."""
    with translated(client.get_address()):
        attempts = [one for one in client.list_jobs() if _number(one.submission_id, job.name)]
        if running := [one.submission_id for one in attempts if not one.status.is_terminal()]:
            say(f"job {running[0]} has the same settings and is not over: it is followed, nothing is submitted.")
            return str(running[0])
        number = 1 + max((_number(one.submission_id, job.name) for one in attempts), default=0)
        submission_id, entrypoint = f"{job.name}-{number}", shlex.join(job.command)
        return _hand_over(client, entrypoint=entrypoint, submission_id=submission_id, runtime_env=job.runtime_env)


def _hand_over(client: JobSubmissionClient, **settings: Any) -> str:
    """Waits for a head that has just started: the agent that runs jobs comes seconds after the dashboard."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return client.submit_job(**settings)
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(AGENT_SECONDS / 60)


def _number(submission_id: str | None, name: str) -> int:
    """Which attempt of this job an id is; 0 for ids of others."""
    stem, _, number = (submission_id or "").rpartition("-")
    return int(number) if stem == name and number.isdigit() else 0


def _check_kind(address: str) -> None:
    scheme, separator, _ = address.partition("://")
    if separator and scheme not in ("http", "https"):
        raise ClusterError(
            f"address {address!r}: jobs are submitted to the dashboard's URL, such as http://10.0.0.1:8265, or to HOST:PORT of "
            "the head."
        )


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Ray's errors as ClusterError."""
    from ray.exceptions import AuthenticationError
    from requests.exceptions import RequestException

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"the job server at {address} wants a token and did not accept ours. Put the cluster's token (`ray get-auth-token` "
            "on its head) into ~/.ray/auth_token or RAY_AUTH_TOKEN here."
        ) from error
    except (ConnectionError, RequestException) as error:
        raise ClusterError(
            f"no job server answers at {address}: {error}. Check the address (--address, {' or '.join(VARIABLES)}) and that the "
            "head runs with its dashboard; from outside a port has to be forwarded (docs/jobs.md)."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"the job server at {address} refuses: {error}") from error


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def how_to_go_on(address: str, job: str) -> str:
    """Commands for a job that goes on without being followed."""
    mode = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
    return (
        f"job {job} goes on.\n"
        f"  follow it:  {mode}ray job logs --address {address} --follow {job}\n"
        f"  stop it:    {mode}ray job stop --address {address} {job}\n"
        "The same cluenet submit follows it again, and resumes the run once the job is over."
    )
