"""moto's S3 on this machine, behind a proxy that can lose connections."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.request import Request, urlopen

BUCKET = "cluenet"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "kept-to-yourself", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


class Proxy:
    """Passes bytes on to a port of this machine, until `cut` and again from `heal` on."""

    def __init__(self, port: int):
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._left: int | None = None
        self.down = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, after_bytes: int) -> None:
        """Every connection ends, and none can be made, when so many more bytes went through in both directions together."""
        self._left = after_bytes

    def heal(self) -> None:
        self._left, self.down = None, False

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._count(len(data))
                if self.down:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, number: int) -> None:
        if self._left is None:
            return
        self._left -= number
        if self._left < 0:
            self._left, self.down = None, True
            self.cuts += 1


class S3:
    """A bucket behind a proxy."""

    def __init__(self, port: int):
        self.proxy = Proxy(port)
        self._port = port

    def uri(self, folder: str, *, bucket: str = BUCKET, port: int | None = None) -> str:
        place = f"127.0.0.1:{self.proxy.port if port is None else port}"
        return f"s3://{bucket}/{folder}?endpoint_override={place}&scheme=http&region=us-east-1"

    def keys(self, prefix: str = "") -> list[str]:
        found = self._client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
        return [one["Key"].removeprefix(prefix) for one in found if not one["Key"].endswith("/")]

    def content(self, key: str) -> bytes:
        return bytes(self._client().get_object(Bucket=BUCKET, Key=key)["Body"].read())

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """No credentials are good enough."""
        self._post("moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self._post("moto-api/reset-auth", b"inf")

    def _post(self, path: str, data: bytes) -> None:
        with urlopen(Request(f"http://127.0.0.1:{self._port}/{path}", data, {"Content-Type": "text/plain"})):
            pass

    def make_bucket(self) -> None:
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self):
        import boto3

        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self._port}", region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip


@contextmanager
def running_s3() -> Iterator[S3]:
    """With credentials in the environment of this process and of those that it starts."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    s3 = S3(server.get_host_and_port()[1])
    s3.make_bucket()
    yield s3
    s3.proxy.close()
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def healed_by_waiting(s3: S3, waits: list[float]) -> Callable[[float], None]:
    """For `time.sleep`: the connection is back after the first wait."""

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        s3.proxy.heal()

    return sleep
