"""The video of a request, from `data:`, `http(s)://` or `file://`, to the spool, and nothing else.

What a client names is fetched from inside the operator's network. A host is resolved once, every address it has must be
allowed, and the connection goes to one of these addresses, also after each redirect: a name that resolves to something else
a moment later gains nothing. Proxies of the environment are not used. Messages never repeat the URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from cluenet import __version__
from cluenet.config.serve import ServeSection
from cluenet.serve.addresses import is_allowed
from cluenet.serve.errors import ServeError
from cluenet.serve.local_files import LocalFiles
from cluenet.serve.spool import PIECE_BYTES, Spool, Spooled, process_spool, too_large

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
WEB_PORTS = frozenset({80, 443})
"""Other ports below 1024 are of other services."""
ENCODED = re.compile(r"[!-~]+")
HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""A name (international ones are encoded by then) or an address, without a zone."""
RESOLVERS = 32
"""Threads that ask for addresses: a name server that is slow must not hold up anything else."""
HEADERS = {"User-Agent": f"cluenet/{__version__}", "Accept": "video/*, */*;q=0.5", "Accept-Encoding": "identity"}

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> IP addresses. Raises OSError."""


def resolve_host(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """spool: where videos go, the one of this process if None. resolve: how the addresses of a host are found."""

    def __init__(self, section: ServeSection, spool: Spool | None = None, *, resolve: Resolve = resolve_host):
        self._section, self._limits, self._resolve = section, section.limits, resolve
        self._spool = spool or process_spool()
        self._files = LocalFiles(section, self._spool)
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    async def fetch(self, url: str) -> Spooled:
        """Raises ServeError: 400 for a URL that is not allowed or gives no video, 413 beyond `limits.max_bytes`."""
        scheme, _, rest = url.partition(":")
        match scheme.lower():
            case "data":
                return await self._data(rest)
            case "file":
                return await self._file(url)
            case "http" | "https":
                return await self._web(url)
        raise _refusal("give a URL that starts with data:, http://, https:// or file://", "unknown_scheme")

    # ------------------------------------------------------------------------------------------- data: and file:
    async def _data(self, rest: str) -> Spooled:
        """RFC 2397."""
        kind, comma, payload = rest.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise _refusal("a data URI must be data:video/mp4;base64,... (of any media type)", "bad_data_uri")
        if len(payload) // 4 * 3 - 2 > self._limits.max_bytes and "%" not in payload:
            raise too_large(self._limits.max_bytes)
        try:
            content = await asyncio.to_thread(lambda: base64.b64decode(unquote_to_bytes(payload), validate=True))
        except (binascii.Error, ValueError):
            raise _refusal("the data URI is not base64", "bad_data_uri") from None
        return await self._spool.save(_whole(content), self._limits.max_bytes)

    async def _file(self, url: str) -> Spooled:
        """RFC 8089."""
        path = _local_path(url)
        try:
            return await self._files.fetch(path)
        except OSError:  # one message: whether a file outside is there is nobody's business
            raise _refusal("no such file in the folders that this server allows", "file_not_allowed") from None

    # ------------------------------------------------------------------------------------------------ http(s)://
    async def _web(self, url: str) -> Spooled:
        try:
            async with asyncio.timeout(self._limits.fetch_timeout_seconds):
                return await self._redirected(url)
        except TimeoutError:
            message = f"not downloaded within {self._limits.fetch_timeout_seconds:g} s"
            raise _refusal(message, "download_timeout") from None
        except (aiohttp.ClientError, ValueError):
            raise _refusal("the download failed or broke off", "download_failed") from None

    async def _redirected(self, text: str) -> Spooled:
        url = _web_url(text)
        for _ in range(MOST_REDIRECTS + 1):
            addresses = await self._addresses(url)
            async with _session(addresses) as session, session.get(url, allow_redirects=False) as response:
                if response.status not in REDIRECTS:
                    return await self._body(response)
                url = _web_url(response.headers.get("Location", ""), base=url)
        raise _refusal(f"more than {MOST_REDIRECTS} redirects", "too_many_redirects")

    async def _addresses(self, url: URL) -> list[str]:
        """All addresses of the host. Raises ServeError where one of them may not be reached."""
        host, port = str(url.raw_host), int(url.port or 0)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._resolvers, self._resolve, host, port)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            raise _refusal("the host has no address", "host_not_found")
        if not all(is_allowed(address, private=self._section.allow_private_hosts) for address in found):
            raise _refusal("the host is not on the public internet", "host_not_allowed")
        return list(found)

    async def _body(self, response: aiohttp.ClientResponse) -> Spooled:
        most = self._limits.max_bytes
        if response.status != 200:
            raise _refusal(f"the host answered with status {response.status}", "download_failed")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _refusal("the host compresses the video, which is not taken", "download_compressed")
        if (response.content_length or 0) > most:
            raise too_large(most)
        return await self._spool.save(response.content.iter_chunked(PIECE_BYTES), most)


def _refusal(message: str, code: str) -> ServeError:
    return ServeError(400, "invalid_request_error", f"video_url: {message}", param="video_url", code=code)


def _local_path(url: str) -> str:
    """RFC 8089. Percent-encoding is undone once."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refusal("not a file URL", "bad_file_url") from None
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if parts.netloc.lower() not in ("", "localhost") or parts.query or parts.fragment:
        raise _refusal("a file URL must be file:///PATH, with `?` and `#` percent-encoded", "bad_file_url")
    if not path.startswith("/") or "\0" in path:
        raise _refusal("a file URL must have an absolute path", "bad_file_url")
    return path


def _web_url(text: str, base: URL | None = None) -> URL:
    """One parser decides what the host is, for the check and for the connection. base: of a relative redirect."""
    try:
        url = URL(text, encoded=ENCODED.fullmatch(text) is not None)  # as it stands: it may be signed
        url = base.join(url) if base else url
        port = url.port
    except ValueError:
        raise _refusal("not a URL", "bad_url") from None
    if url.scheme not in ("http", "https") or not HOST.fullmatch(url.raw_host or ""):
        raise _refusal("must be http://HOST/... or https://HOST/..., also after redirects", "bad_url")
    if url.raw_user is not None or url.raw_password is not None:
        raise _refusal("a user name or password in the URL is not taken", "bad_url")
    if not port or (port < 1024 and port not in WEB_PORTS):
        raise _refusal("the port must be 80, 443 or 1024 and above", "bad_url")
    return url.with_fragment(None)


def _session(addresses: Sequence[str]) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(resolver=_Pinned(addresses), use_dns_cache=False, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        auto_decompress=False,
        trust_env=False,
    )


class _Pinned(AbstractResolver):
    """Knows the addresses already. aiohttp asks it for names alone, and connects to an IP address of a URL as it stands."""

    def __init__(self, addresses: Sequence[str]):
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            )
            for address in self._addresses
        ]  # fmt: skip

    async def close(self) -> None:
        pass


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
