"""What a client names is fetched: from everywhere that is allowed, from nowhere else, within limits, and without a trace."""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluenet.config.serve import Limits, ServeSection
from cluenet.serve import fetch as fetching
from cluenet.serve import local_files
from cluenet.serve.addresses import is_allowed
from cluenet.serve.errors import ServeError
from cluenet.serve.fetch import Fetcher
from cluenet.serve.spool import LOCK, Spool
from helpers.raw_server import Answer, RawServer, raw_server, redirect, response

VIDEO = bytes(range(256)) * 20
SECRET = "s3cr3t"
OUTSIDE = ("127.0.0.2", "127.0.0.1")
"""(plays the public internet, plays the private network) where `internet` is used."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    assert [path.name for path in made.folder.iterdir()] == [LOCK], "no video is left, whatever happened"
    made.close()


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 passes for a public address."""
    monkeypatch.setattr(fetching, "is_allowed", lambda address, private: address == OUTSIDE[0])


def section(*, roots: tuple[Path, ...] = (), private: bool = False, **limits: Any) -> ServeSection:
    return ServeSection(
        allowed_roots=tuple(map(str, roots)), allow_private_hosts=private,
        limits=Limits(**{"fetch_timeout_seconds": 10, **limits}),
    )  # fmt: skip


async def content(fetcher: Fetcher, url: str) -> bytes:
    with await fetcher.fetch(url) as spooled:
        return spooled.path.read_bytes()


async def refusal(fetcher: Fetcher, url: str) -> ServeError:
    with pytest.raises(ServeError) as caught:
        await fetcher.fetch(url)
    assert SECRET not in str(caught.value), "messages never repeat the URL"
    return caught.value


def code_of(spool: Spool, settings: ServeSection, url: str) -> tuple[int, str | None]:
    error = asyncio.run(refusal(Fetcher(settings, spool), url))
    return error.status, error.code


# ------------------------------------------------------------------------------------------------ data:


@pytest.mark.parametrize("head", ["data:video/mp4;base64,", "DATA:;BASE64,", "data:video/webm;codecs=vp8;base64,"])
def test_data_uris(spool: Spool, head: str) -> None:
    url = head + base64.b64encode(VIDEO).decode()
    assert asyncio.run(content(Fetcher(section(), spool), url)) == VIDEO


def test_percent_encoded_base64(spool: Spool) -> None:
    url = "data:video/mp4;base64," + base64.b64encode(VIDEO).decode().replace("=", "%3D").replace("+", "%2B")
    assert "%" in url
    assert asyncio.run(content(Fetcher(section(), spool), url)) == VIDEO


@pytest.mark.parametrize(
    "url",
    [
        "data:video/mp4",
        "data:video/mp4,AAAA",
        "data:video/mp4;base64",
        "data:;base64,A",
        "data:;base64,AA*A",
        "data:;base64,ÄÄÄÄ",
    ],
)
def test_data_uris_that_are_none(spool: Spool, url: str) -> None:
    assert code_of(spool, section(), url) == (400, "bad_data_uri")


def test_an_empty_data_uri(spool: Spool) -> None:
    assert code_of(spool, section(), "data:;base64,") == (400, "video_empty")


def test_a_large_data_uri_is_refused_before_it_is_decoded(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (298, 299, 300):
        url = "data:;base64," + base64.b64encode(bytes(size)).decode()
        assert len(asyncio.run(content(Fetcher(section(max_bytes=300), spool), url))) == size
    url = "data:;base64," + base64.b64encode(bytes(301)).decode()
    assert code_of(spool, section(max_bytes=300), url) == (413, "too_many_bytes")
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    url = "data:;base64," + base64.b64encode(bytes(310)).decode()
    assert code_of(spool, section(max_bytes=300), url) == (413, "too_many_bytes")


@pytest.mark.parametrize(
    "url", ["", "video.mp4", "/etc/passwd", "ftp://host/a", "gopher://host/", "javascript:0", " http://host/"]
)
def test_other_schemes(spool: Spool, url: str) -> None:
    assert code_of(spool, section(roots=(Path("/"),), private=True), url) == (400, "unknown_scheme")


# ------------------------------------------------------------------------------------------------ file:


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """<root>: what is allowed. <outside>: what is not. Links lead from one to the other."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for path in (root / "sub", outside):
        path.mkdir(parents=True)
    for path in (root / "a b#?.mp4", root / "sub" / "clip.mp4", root / "100%.mp4"):
        path.write_bytes(VIDEO)
    (outside / "secret.mp4").write_bytes(b"secret")
    (root / "inner.mp4").symlink_to(root / "sub" / "clip.mp4")
    (root / "inner").symlink_to("sub")
    (root / "outer.mp4").symlink_to(outside / "secret.mp4")
    (root / "outer").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (tmp_path / "root-beside").symlink_to(outside)
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize(
    "path",
    ["sub/clip.mp4", "a%20b%23%3F.mp4", "100%25.mp4", "inner.mp4", "inner/clip.mp4", "sub/../sub/clip.mp4", "outer/../root/sub/clip.mp4",
     "sub/%63lip.mp4"],
)  # fmt: skip
@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST"])
def test_files_below_an_allowed_root(spool: Spool, folder: Path, path: str, host: str) -> None:
    fetcher = Fetcher(section(roots=(folder.parent / "nowhere", folder)), spool)
    assert asyncio.run(content(fetcher, f"file://{host}{folder}/{path}")) == VIDEO


@pytest.mark.parametrize(
    "path",
    ["../outside/secret.mp4", "../outside/missing.mp4", "%2e%2e/outside/secret.mp4", "%2E%2E%2Foutside%2Fsecret.mp4",
     "%252e%252e/outside/secret.mp4", "sub/../../outside/secret.mp4", "outer.mp4", "outer/secret.mp4", "outer/missing.mp4", "inner/../../outside/secret.mp4",
     "../root-beside/secret.mp4", "loop", "loop/x", "missing.mp4", "sub", "", "sub/clip.mp4/x", "pipe", "x" * 300, "x/" * 3000],
)  # fmt: skip
def test_nothing_outside_and_nothing_but_files(spool: Spool, folder: Path, path: str) -> None:
    """One message for all: it does not tell whether a file outside is there."""
    assert code_of(spool, section(roots=(folder,)), f"file://{folder}/{path}") == (400, "file_not_allowed")


@pytest.mark.parametrize("url", ["file:///dev/zero", "file:///dev/stdin", "file:///proc/self/root/etc/hostname"])
def test_devices_and_magic_links(spool: Spool, url: str) -> None:
    roots = (Path("/dev"), Path("/proc/self/root/etc/nowhere"))
    assert code_of(spool, section(roots=roots), url) == (400, "file_not_allowed")


@pytest.mark.parametrize(
    "rest",
    [
        "//other.host{}",
        "//127.0.0.1{}",
        "//user@localhost{}",
        "//localhost:80{}",
        "//{}?x",
        "//{}#x",
        "{}%00",
        "sub/clip.mp4",
        "//[{}",
    ],
)
def test_file_urls_that_are_none(spool: Spool, folder: Path, rest: str) -> None:
    url = "file:" + rest.format(folder / "sub" / "clip.mp4")
    assert code_of(spool, section(roots=(folder,)), url) == (400, "bad_file_url")


def test_without_roots_there_are_no_files(spool: Spool, folder: Path) -> None:
    assert code_of(spool, section(), f"file://{folder}/sub/clip.mp4") == (400, "file_not_allowed")


def test_a_root_may_be_a_link(spool: Spool, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    fetcher = Fetcher(section(roots=(tmp_path / "link",)), spool)
    assert asyncio.run(content(fetcher, f"file://{tmp_path}/link/sub/clip.mp4")) == VIDEO


@pytest.mark.parametrize("path", ["outer.mp4", "outer/secret.mp4"])
def test_a_link_exchanged_after_the_check_is_not_followed(
    spool: Spool, folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files.os.path, "realpath", os.path.abspath)  # as if the link had not been there
    assert code_of(spool, section(roots=(folder,)), f"file://{folder}/{path}") == (400, "file_not_allowed")


def test_files_have_the_limit_too_and_are_closed(spool: Spool, folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for path in ("sub/clip.mp4", "pipe", "outer.mp4", "missing/x"):
        asyncio.run(refusal(Fetcher(section(roots=(folder,), max_bytes=100), spool), f"file://{folder}/{path}"))
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


# ------------------------------------------------------------------------------------------------ addresses

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1", "100.64.0.1", "192.0.0.1",
    "198.18.0.1", "240.0.0.1", "255.255.255.255", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "::ffff:127.0.0.1",
    "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136::1", "2001:db8::1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1", "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254",
    "168.63.129.16", "100.100.100.200", "192.0.0.192", "::ffff:0.0.0.0", "::ffff:224.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC + PRIVATE + NEVER)
def test_which_addresses_are_public(address: str) -> None:
    assert is_allowed(address, private=False) == (address in PUBLIC)


@pytest.mark.parametrize("address", PUBLIC + PRIVATE + NEVER)
def test_private_addresses_may_be_allowed_but_metadata_never(address: str) -> None:
    assert is_allowed(address, private=True) == (address not in NEVER)


# ------------------------------------------------------------------------------------------------ http(s):


def test_a_download(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name; the connection goes to the address found, the name stays in the request; no proxy is asked."""

    async def test() -> None:
        async with raw_server(response(VIDEO)) as server, raw_server(b"") as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            fetcher = Fetcher(section(private=True), spool, resolve=lambda host, port: ["127.0.0.1"])
            assert await content(fetcher, f"http://video.example:{server.port}/a%20b?c=d&e=%2F#f") == VIDEO
            assert proxy.connections == 0
        [head] = server.heads
        assert head.startswith("GET /a%20b?c=d&e=%2F HTTP/1.1\r\n")
        assert f"Host: video.example:{server.port}\r\n" in head
        assert not any(name in head.lower() for name in ("cookie", "referer", "authorization", "gzip"))

    asyncio.run(test())


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """(certificate, key) that video.example has signed for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "video.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("video.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(signed.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_certificates_are_checked_for_the_name(
    spool: Spool, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes to an address, the certificate must be the name's, and from somebody who is trusted."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(*certificate)
    trusting = functools.partial(aiohttp.TCPConnector, ssl=ssl.create_default_context(cafile=str(certificate[0])))

    async def test() -> None:
        async with raw_server(response(VIDEO), tls=server_side) as server:
            fetcher = Fetcher(section(private=True), spool, resolve=lambda host, port: ["127.0.0.1"])
            assert (await refusal(fetcher, f"https://video.example:{server.port}/")).code == "download_failed"
            monkeypatch.setattr(aiohttp, "TCPConnector", trusting)
            assert await content(fetcher, f"https://video.example:{server.port}/") == VIDEO
            assert (await refusal(fetcher, f"https://other.example:{server.port}/")).code == "download_failed"

    asyncio.run(test())


HOSTS = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]",
         "[::ffff:7f00:1]", "127。0。0。1", "①②⑦.0.0.1", "169.254.169.254"]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_no_request_reaches_this_machine(spool: Spool, host: str) -> None:
    async def test() -> None:
        async with raw_server(response(VIDEO)) as server:
            error = await refusal(Fetcher(section(), spool), f"http://{host}:{server.port}/{SECRET}")
            assert (error.status, error.code in ("host_not_allowed", "host_not_found", "bad_url")) == (400, True)
            assert server.connections == 0

    asyncio.run(test())


def test_every_address_of_a_name_must_be_allowed(spool: Spool) -> None:
    async def test() -> None:
        for addresses in (["8.8.8.8", "127.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["2606:4700::1", "::1"]):
            fetcher = Fetcher(section(), spool, resolve=lambda host, port, found=addresses: found)
            assert (await refusal(fetcher, "http://video.example/")).code == "host_not_allowed"

    asyncio.run(test())


@pytest.mark.usefixtures("internet")
def test_a_name_that_changes_its_address_gains_nothing(spool: Spool) -> None:
    """DNS rebinding: public when it is checked, private a moment later."""

    async def test() -> None:
        answers = iter([["127.0.0.2"], ["127.0.0.1"], ["127.0.0.1"]])
        async with raw_server(response(VIDEO), "127.0.0.1") as private:
            fetcher = Fetcher(section(), spool, resolve=lambda host, port: next(answers))
            error = await refusal(fetcher, f"http://video.example:{private.port}/")
            assert error.code == "download_failed", "nobody listens at the address that was checked"
            assert private.connections == 0
        assert next(answers) == ["127.0.0.1"], "it was asked for once"

    asyncio.run(test())


@pytest.mark.usefixtures("internet")
@pytest.mark.parametrize(
    ("location", "code"),
    [("http://{private}/x", "host_not_allowed"), ("//{private}/x", "host_not_allowed"), ("http://localhost:{port}/", "host_not_allowed"),
     ("file:///etc/passwd", "bad_url"), ("data:;base64,AAAA", "bad_url"), ("http://user:pw@127.0.0.2/", "bad_url"), ("http://[", "bad_url"),
     ("http://127.0.0.2:22/", "bad_url"), ("", "too_many_redirects"), ("/again", "too_many_redirects")],
)  # fmt: skip
def test_redirects_are_checked_again(spool: Spool, location: str, code: str) -> None:
    async def test() -> None:
        async with raw_server(response(VIDEO), "127.0.0.1") as private:
            where = redirect(location.format(private=f"127.0.0.1:{private.port}", port=private.port))
            async with raw_server(where, "127.0.0.2") as public:
                fetcher = Fetcher(section(roots=(Path("/"),)), spool)
                assert (await refusal(fetcher, f"{public.url}/{SECRET}")).code == code
                assert private.connections == 0
                assert public.connections == (6 if code == "too_many_redirects" else 1)

    asyncio.run(test())


def test_five_redirects_are_followed(spool: Spool) -> None:
    async def test() -> None:
        async def answer(head: str, writer: asyncio.StreamWriter) -> None:
            step = int(head.split()[1].strip("/"))
            writer.write(response(VIDEO) if step == 5 else redirect(f"{step + 1}"))

        async with raw_server(answer) as server:
            assert await content(Fetcher(section(private=True), spool), f"{server.url}/0") == VIDEO

    asyncio.run(test())


@pytest.mark.parametrize(
    "url",
    ["http://", "http:///x", "http:video.mp4", "http://user@h/", "http://user:pw@h/", "http://:@h/", "http://h:0/", "http://h:22/", "http://h:25/",
     "http://h:65536/", "http://h:x/", "http://[::1/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://h%00/", "https://a b/",
     "http://8.8.8.8@127.0.0.1/", "http://127.0.0.1\\@8.8.8.8/", "http://h\x00/", "http://" + "a" * 300 + "/"],
)  # fmt: skip
def test_odd_urls(spool: Spool, url: str) -> None:
    resolve = lambda host, port: pytest.fail(f"looked for {host!r}") if len(host) < 300 else []  # noqa: E731
    status, _ = code_of_with(spool, url, resolve)
    assert status == 400


def code_of_with(spool: Spool, url: str, resolve: fetching.Resolve) -> tuple[int, str | None]:
    error = asyncio.run(refusal(Fetcher(section(private=True), spool, resolve=resolve), url))
    return error.status, error.code


async def trickle(head: str, writer: asyncio.StreamWriter) -> None:
    """Slow loris: a little at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.02)


async def slow_head(head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Slow: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(head: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def endless(head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        await writer.drain()


async def asked(spool: Spool, answer: Answer | bytes, **limits: Any) -> tuple[ServeError, RawServer]:
    async with raw_server(answer) as server:
        error = await refusal(Fetcher(section(private=True, **limits), spool), f"{server.url}/{SECRET}")
        await asyncio.sleep(0.01)
    return error, server


@pytest.mark.parametrize("answer", [trickle, slow_head, silent])
def test_a_slow_host_is_given_up(spool: Spool, answer: Answer) -> None:
    error, _ = asyncio.run(asked(spool, answer, fetch_timeout_seconds=0.3))
    assert (error.status, error.code) == (400, "download_timeout")


def test_a_slow_name_server_is_given_up(spool: Spool) -> None:
    async def test() -> None:
        released = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(host: str, port: int) -> list[str]:
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result()
            return []

        fetcher = Fetcher(section(fetch_timeout_seconds=0.1), spool, resolve=slow)
        assert (await refusal(fetcher, "http://video.example/")).code == "download_timeout"
        released.set()

    asyncio.run(test())


def test_an_endless_body_is_broken_off(spool: Spool) -> None:
    error, server = asyncio.run(asked(spool, endless, max_bytes=100_000))
    assert (error.status, error.code) == (413, "too_many_bytes")
    assert server.aborted == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response(b"abc", length=10), (400, "download_failed")),  # broken off
        (response(b"abc", length=10**9), (413, "too_many_bytes")),  # announced
        (response(bytes(2000)), (413, "too_many_bytes")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", (400, "download_failed")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", (400, "download_failed")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", (400, "download_failed")),
        (b"SSH-2.0-OpenSSH_9.2\r\n", (400, "download_failed")),
        (b"", (400, "download_failed")),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, (400, "download_failed")),
        (response(b"abc", "Content-Encoding: gzip"), (400, "download_compressed")),
        (response(b""), (400, "video_empty")),
        (response(b"no", status="404 Not Found"), (400, "download_failed")),
        (response(b"no", status="500 Oops"), (400, "download_failed")),
        (response(b"part", status="206 Partial Content"), (400, "download_failed")),
    ],
)  # fmt: skip
def test_answers_that_are_no_video(spool: Spool, answer: bytes, expected: tuple[int, str]) -> None:
    error, _ = asyncio.run(asked(spool, answer, max_bytes=1000))
    assert (error.status, error.code) == expected


def test_a_port_where_nobody_listens(spool: Spool) -> None:
    async def test() -> None:
        async with raw_server(b"") as server:
            pass
        error = await refusal(Fetcher(section(private=True), spool), server.url)
        assert (error.status, error.code) == (400, "download_failed")

    asyncio.run(test())


def test_a_client_that_goes_away_ends_the_download(spool: Spool) -> None:
    async def test() -> None:
        async with raw_server(trickle) as server:
            task = asyncio.create_task(Fetcher(section(private=True), spool).fetch(server.url))
            while not server.heads:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not server.aborted:
                await asyncio.sleep(0.01)

    asyncio.run(test())


def test_logs_have_nothing_of_a_request(spool: Spool, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            good, bad, slow, moved = [
                await stack.enter_async_context(raw_server(answer))
                for answer in (response(VIDEO), b"nonsense", trickle, redirect(f"/{SECRET}"))
            ]
            fetcher = Fetcher(section(private=True, roots=(folder,), fetch_timeout_seconds=0.3), spool)
            assert await content(fetcher, f"{good.url}/{SECRET}?token={SECRET}") == VIDEO
            for url in (*(f"{server.url}/{SECRET}" for server in (bad, slow, moved)), f"file://{folder}/{SECRET}",
                        f"http://{SECRET}.invalid/", f"data:;base64,{SECRET}*", f"http://{SECRET}:pw@h/"):  # fmt: skip
                await refusal(fetcher, url)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(test(), debug=True)
    assert SECRET not in caplog.text
