"""An object store (S3, Google Cloud Storage) through pyarrow: a few calls, tried again when the connection is lost. Ray-free.

`storage` is what the platform uses; this is what stands behind it. pyarrow has its own retries of single requests; those here
repeat the whole transfer, after longer waits.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from time import sleep
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from cluenet.errors import StorageError

WAITS_SECONDS: tuple[float, ...] = (1, 5, 20)
"""Before the second, third, ... try."""
BLOCK_BYTES = 16 * 2**20
MARK = ".cluenet"
"""Of an object that is written to see whether writing is allowed."""

_REMOTE = ("AWS Error", "google::cloud::Status")
"""In pyarrow's messages: it is the store that failed, not the local disk or the content of a file."""
_REFUSED = (
    "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT", "SIGNATURE_DOES_NOT_MATCH",
    "EXPIRED_TOKEN", "MISSING_AUTHENTICATION_TOKEN", "PERMISSION_DENIED", "UNAUTHENTICATED",
)  # fmt: skip
_NO_BUCKET = ("NO_SUCH_BUCKET", "NOT_FOUND")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, or the role of the machine)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or the service account of the machine)",
}
_AGAIN = "Run the same command again to resume: what is in the store counts as done."

T = TypeVar("T")
log = logging.getLogger("cluenet")


class _CutOffError(OSError):
    """Less came, or went, than there is."""


@cache
def opened(uri: str) -> ObjectStore:
    """One connection per process. Raises StorageError like every method: unreachable, refused, or no such bucket."""
    return ObjectStore(uri)


class ObjectStore:
    """The objects below a URI; keys are relative to it, with `/`. Safe in threads.

    Writing an object is atomic: it is there whole, or as it was before. Every method raises StorageError.
    """

    def __init__(self, uri: str):
        from pyarrow.fs import FileSystem, FileType

        self.uri = uri
        self._parts = urlsplit(uri)
        try:
            self._fs, self._root = self._persistent("opened", lambda: FileSystem.from_uri(uri))
        except ValueError as error:
            raise StorageError(f"{uri}: {error}. Correct `store`.") from error
        bucket = self._root.partition("/")[0]
        if self._persistent("opened", lambda: self._fs.get_file_info(bucket)).type == FileType.NotFound:
            raise StorageError(self._no_bucket())

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def has(self, key: str) -> bool:
        info = self._persistent(f"asked for {key}", lambda: self._fs.get_file_info(self._at(key)))
        return bool(info.is_file)

    def read(self, key: str, reader: Callable[[Any], T]) -> T:
        """What `reader` makes of the object, which it gets as a file that can seek and fetches only what is read.

        Raises FileNotFoundError too, and what `reader` raises."""

        def attempt() -> T:
            with self._fs.open_input_file(self._at(key)) as file:
                return reader(file)

        return self._persistent(f"read at {key}", attempt)

    def get(self, key: str, file: IO[bytes]) -> None:
        """Copies the object into an open local file. Raises FileNotFoundError too."""

        def copy(source: Any) -> None:
            file.seek(0)
            file.truncate()
            shutil.copyfileobj(source, file, BLOCK_BYTES)
            if file.tell() != source.size():
                raise _CutOffError(f"{key} ended after {file.tell()} of {source.size()} bytes")

        self.read(key, copy)

    def put(self, key: str, source: Path) -> None:
        """Not a stream of Python's: Ctrl-C in the middle would close it, and so finish an object that is cut off. Asked for
        afterwards, because pyarrow (26) tells of no connection that is lost while the content goes out."""
        from pyarrow.fs import LocalFileSystem, copy_files

        local, where = LocalFileSystem(), self._at(key)

        def attempt() -> None:
            copy_files(str(source), where, local, self._fs, chunk_size=BLOCK_BYTES, use_threads=False)
            size = self._fs.get_file_info(where).size  # None where nothing is
            if size != source.stat().st_size:
                raise _CutOffError(f"{key} has {size or 0} of {source.stat().st_size} bytes")

        self._persistent(f"written at {key}", attempt)

    def require_writable(self) -> None:
        """Before work whose result could not be kept."""

        def attempt() -> None:
            with self._fs.open_output_stream(self._at(MARK)) as target:
                target.write(b"Written to see whether writing is allowed.\n")

        self._persistent(f"written at {MARK}", attempt)

    def remove(self, key: str) -> None:
        """An object that is not there is no error."""

        def attempt() -> None:
            try:
                self._fs.delete_file(self._at(key))
            except FileNotFoundError:
                return

        self._persistent(f"changed at {key}", attempt)

    def sizes(self, folder: str, pattern: str = "*", *, deep: bool = False) -> dict[str, int]:
        """Bytes of the objects of a folder by key, in the order of the keys; pattern: of their names. Empty without one."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._at(folder), allow_not_found=True, recursive=deep)
        found = self._persistent(f"listed at {folder}", lambda: self._fs.get_file_info(selector))
        files = [info for info in found if info.is_file and fnmatch(info.base_name, pattern)]
        return {
            info.path.removeprefix(f"{self._root}/"): info.size for info in sorted(files, key=lambda info: info.path)
        }

    # ------------------------------------------------------------------------------------------------- errors

    def _persistent(self, what: str, attempt: Callable[[], T]) -> T:
        """Tried until it works, is refused, or has failed too often."""
        for wait in (*WAITS_SECONDS, None):
            try:
                return attempt()
            except OSError as error:
                if not (isinstance(error, _CutOffError) or any(mark in str(error) for mark in _REMOTE)):
                    raise
                if wait is None or _is_final(error):
                    raise StorageError(self._message(what, error)) from error
                log.warning("%s: connection lost (%s); trying again in %g s", self.uri, _short(error), wait)
                sleep(wait)
        raise AssertionError("unreachable")

    def _message(self, what: str, error: OSError) -> str:
        text = str(error)
        if any(word in text for word in _REFUSED):
            return (
                f"{self.uri}: bucket {self._parts.hostname!r} cannot be {what}: access is refused ({_short(error)}). Check "
                f"{_CREDENTIALS[self._parts.scheme]}, and that they may list, read, write and delete in this bucket."
            )
        if any(word in text for word in _NO_BUCKET):
            return self._no_bucket()
        return (
            f"{self.uri}: bucket {self._parts.hostname!r} cannot be {what}, tried {len(WAITS_SECONDS) + 1} times: "
            f"{_short(error)}. Check the network, and `region` and `endpoint_override` of the URI (or AWS_REGION and "
            f"AWS_ENDPOINT_URL). {_AGAIN}"
        )

    def _no_bucket(self) -> str:
        return (
            f"{self.uri}: there is no bucket {self._parts.hostname!r}, or not for these credentials. Check its name in `store`, "
            f"`region` and `endpoint_override` of the URI, and {_CREDENTIALS[self._parts.scheme]}; or make the bucket."
        )


def _is_final(error: OSError) -> bool:
    return any(word in str(error) for word in (*_REFUSED, *_NO_BUCKET))


def _short(error: OSError) -> str:
    """pyarrow's words, without what changes with every request."""
    return str(error).partition(" (Request ID")[0].partition("; Details")[0]
