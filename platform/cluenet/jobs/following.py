"""Shows what a job writes until it is over, through lost connections, and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cluenet.errors import ClusterError
from cluenet.jobs.server import how_to_go_on, translated

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

RECONNECTS = 20
"""How often in a row the connection may be lost without a word of the log in between."""
SECONDS = 3.0
"""Between two attempts to reach the server."""

LOGS = ", last available logs"
"""How Ray goes on in its message about a command that failed."""

Write = Callable[[str], Any]


def follow(client: JobSubmissionClient, job: str, write: Write, say: Write) -> int:
    """Writes the job's log as it grows; returns the exit code once the job is over.

    Raises ClusterError when the server stays away; the job may go on.
    """
    asyncio.run(_Log(client, job, write).show())
    with translated(client.get_address()):
        return exit_code(client.get_job_info(job), say)


def exit_code(info: JobDetails, say: Write) -> int:
    """That of the job's command where it is known, 128 + N for signal N as in a shell, 1 for a job that was stopped."""
    status = info.status.value
    if status == "SUCCEEDED":
        return 0
    code = info.driver_exit_code or 0
    reason = (info.message or "").partition("\n")[0].partition(LOGS)[0]  # the log was shown
    say(f"job {info.submission_id}: {status}{reason and ': '}{reason}")
    return (128 - code if code < 0 else code) or 1


class _Log:
    """A job's log, read from its start at every connection; what was shown is not shown again."""

    def __init__(self, client: JobSubmissionClient, job: str, write: Write):
        self.client, self.job, self.write = client, job, write
        self.shown = self.lost = 0

    async def show(self) -> None:
        while not await self._try():
            await asyncio.sleep(SECONDS)

    async def _try(self) -> bool:
        """Whether the job is over and its log shown to the end."""
        from aiohttp import ClientError

        try:
            await self._read()
            return self.client.get_job_status(self.job).is_terminal()
        except (OSError, RuntimeError, ClientError) as error:
            self.lost += 1
            if self.lost > RECONNECTS:
                going_on = how_to_go_on(self.client.get_address(), self.job)
                raise ClusterError(f"the connection to the job server is lost: {error}. Perhaps {going_on}") from error
            return False

    async def _read(self) -> None:
        position = 0
        async for text in self.client.tail_job_logs(self.job):
            new = text[max(self.shown - position, 0) :]
            position += len(text)
            if new:
                self.write(new)
                self.shown, self.lost = position, 0
