"""What a client is told when a request cannot be answered: an HTTP status and OpenAI's error object."""

from __future__ import annotations

from typing import Any, get_args

from cluenet.errors import CluenetError, MediaError
from cluenet.serve.protocol import ErrorBody, ErrorResponse

TYPES = get_args(ErrorBody.model_fields["type"].annotation)
TYPE_OF_STATUS = {
    401: "authentication_error", 403: "authentication_error", 404: "not_found_error", 408: "timeout_error",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
"""Of errors that say nothing but their status. Other statuses: invalid_request_error below 500, else server_error."""


class ServeError(CluenetError):
    """A request that ends with an HTTP error.

    type: of OpenAI's error object (`ErrorBody.type`). param: the field that is wrong. code: a short stable word.
    retry_after: seconds after which asking again is worth it, sent as `Retry-After`. Raises ValueError on an unknown type.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ):
        if type not in TYPES:
            raise ValueError(f"error type {type!r} is none of {', '.join(TYPES)}")
        self.status, self.type, self.message = status, type, message
        self.param, self.code, self.retry_after = param, code, retry_after
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return ServeError, (self.status, self.type, self.message, self.param, self.code, self.retry_after)

    @classmethod
    def of_status(cls, status: int, message: str) -> ServeError:
        """An error of which only the status is known."""
        other = "invalid_request_error" if status < 500 else "server_error"
        return cls(status, TYPE_OF_STATUS.get(status, other), message)

    @classmethod
    def of_media(cls, error: MediaError) -> ServeError:
        """A video that cannot be decoded is the client's; its path is the server's and is left out."""
        message = f"the video cannot be decoded ({error.reason}). Send a whole video file, for example MP4 or WebM."
        return cls(400, "invalid_request_error", message, param="video", code=f"video_{error.reason}")

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        error = ErrorBody(message=self.message, type=self.type, param=self.param, code=self.code)  # type: ignore[arg-type]
        return ErrorResponse(error=error).model_dump()

    def headers(self) -> dict[str, str]:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
