"""A store that is a URI, with Ray's workers: each puts its parts into the bucket, and the driver finds them there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluenet.data.prepare import prepare
from cluenet.folders import read_manifest
from helpers.object_store import CREDENTIALS, S3, running_s3
from helpers.stored import FILES, contents, prepared, recipe, write_videos

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def s3() -> Iterator[S3]:
    with running_s3() as s3:
        yield s3


def test_workers_lose_the_connection_and_go_on(s3: S3, tmp_path: Path):
    """It is lost with the first part's bytes, and comes back while the worker waits."""
    import threading

    rows = write_videos(tmp_path)
    made = recipe(tmp_path, rows, store=s3.uri("ray"), mirror=str(tmp_path / "a"))
    local = contents(prepared(recipe(tmp_path, rows, store=str(tmp_path / "local"))))
    healing = threading.Event()

    def heal_when_cut() -> None:
        while not healing.wait(0.2):
            if s3.proxy.down:
                s3.proxy.heal()

    thread = threading.Thread(target=heal_when_cut)
    thread.start()
    s3.proxy.cut(after_bytes=8_000)
    try:
        folder = prepare(made, made.data.train[0])
    finally:
        healing.set()
        thread.join()
    assert s3.proxy.cuts == 1
    assert contents(folder) == local
    assert read_manifest(folder)["rows"] == {"in": FILES + 1, "ready": FILES - 1, "quarantined": 2}
    assert any("/clips/" in key for key in s3.keys("ray/"))
    written = b"".join(s3.content(f"ray/{key}") for key in s3.keys("ray/"))
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in written
