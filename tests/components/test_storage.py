"""A store that is a URI, against moto's S3: another machine uses what one prepared, and a lost connection loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluenet import cli, objects, storage
from cluenet.errors import StorageError
from cluenet.folders import atomic_write_json, building, finished, read_manifest, write_manifest
from cluenet.planning import Plan
from cluenet.prepared import PreparedSet, folder_of, store_folder
from cluenet.recipe import Recipe
from helpers.listed import openings
from helpers.object_store import CREDENTIALS, S3, healed_by_waiting, running_s3
from helpers.stored import FILES, contents, prepared, recipe, write_videos

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as s3:
        yield s3


@pytest.fixture(autouse=True)
def connected(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that were waited; tests do not wait."""
    waits: list[float] = []
    monkeypatch.setattr(objects, "sleep", waits.append)
    yield waits
    s3.proxy.heal()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list:
    return write_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def local(rows: list, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a store on a disk holds in the end."""
    folder = tmp_path_factory.mktemp("local")
    return contents(prepared(recipe(folder, rows, store=str(folder / "store"))))


def there(s3: S3, name: str, mirror: Path) -> Path:
    """A folder of the store `name`, in this mirror."""
    return store_folder(Recipe.from_dict({"store": s3.uri(name), "mirror": str(mirror)})) / "folder"


# ----------------------------------------------------------------------------------------------------------- files


def test_a_file_is_on_every_machine_and_comes_only_once(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, other = (there(s3, "files", tmp_path / name) for name in ("here", "other"))
    assert not finished(here)
    write_manifest(here, {"a": 1})
    assert s3.keys("files/") == ["folder/manifest.json"]
    fetched = []
    get = objects.ObjectStore.get
    monkeypatch.setattr(
        objects.ObjectStore, "get", lambda *args: (fetched.append(args[1]), time.sleep(0.2), get(*args))
    )
    assert finished(other)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_manifest, [other] * 4)) == [{"a": 1}] * 4
    assert fetched == ["folder/manifest.json"]
    assert os.listdir(other) == ["manifest.json"]
    s3.proxy.cut(after_bytes=0)
    assert finished(other)  # what is here needs no question
    assert read_manifest(other) == {"a": 1}


def test_what_cannot_be_put_there_is_not_here_either(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "WAITS_SECONDS", ())  # a try takes the client of S3 six seconds
    here = there(s3, "unput", tmp_path)
    assert not finished(here)
    s3.proxy.cut(after_bytes=0)
    with pytest.raises(StorageError, match=r"cannot be written at folder/manifest\.json"):
        write_manifest(here, {"a": 1})
    assert list(here.iterdir()) == []


def test_a_folder_is_there_with_its_manifest_which_goes_last(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, other = (there(s3, "base", tmp_path / name) for name in ("here", "other"))
    order = []
    put = objects.ObjectStore.put
    monkeypatch.setattr(objects.ObjectStore, "put", lambda *args: (order.append(args[1]), put(*args)))
    with building(here) as part:
        write_manifest(part, {})
        (part / "zoo").mkdir()
        (part / "zoo" / "weights").write_bytes(b"x" * 1000)
    assert order == ["folder/zoo/weights", "folder/manifest.json"]
    assert (storage.bring_folder(other) / "zoo" / "weights").read_bytes() == b"x" * 1000
    with building(other) as part:  # the first one to end wins
        (part / "zoo").write_text("late")
        write_manifest(part, {"late": True})
    assert read_manifest(other) == {}


def test_what_another_machine_finished_replaces_an_earlier_try(s3: S3, tmp_path: Path):
    here, other = (there(s3, "tries", tmp_path / name) for name in ("here", "other"))
    atomic_write_json(here / "clips" / "part-0", "old")  # and this machine stops
    atomic_write_json(other / "clips" / "part-0", "new")
    write_manifest(other, {})
    assert read_manifest(here) == {}
    assert json.loads(storage.bring(here / "clips" / "part-0").read_text()) == "new"


def test_a_folder_is_taken_from_another_machine(s3: S3, tmp_path: Path):
    folder = there(s3, "taken", tmp_path).with_name(".base.0123abcd.part")  # as `building` calls it
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"x")
    storage.put_folder(folder, folder)
    shutil.rmtree(folder)  # as it is on a machine that did not write it
    storage.take_folder(folder)
    assert (folder / "deep" / "weights").read_bytes() == b"x"
    assert s3.keys("taken/") == []


def test_ctrl_c_leaves_no_object_that_is_cut_off(s3: S3, tmp_path: Path):
    content = os.urandom(24 * 2**20)
    source, target = tmp_path / "large", there(s3, "interrupted", tmp_path)
    source.write_bytes(content)
    storage.require_writable(target)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.put(source, target)
            time.sleep(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not storage.is_there(target) or s3.content("interrupted/folder") == content


# --------------------------------------------------------------------------------------------------------- preparing


def test_another_machine_sees_the_same_set_and_fetches_what_it_reads(s3: S3, rows: list, local: dict, tmp_path: Path):
    made = recipe(tmp_path, rows, store=s3.uri("whole"), mirror=str(tmp_path / "a"))
    prepared(made)
    other = recipe(tmp_path, rows, store=s3.uri("whole"), mirror=str(tmp_path / "b"))
    shutil.rmtree(tmp_path / "a")
    folder = folder_of(other, other.data.train[0])
    found = PreparedSet(folder)
    assert len(list((folder / "clips").glob("*"))) == 0
    found.frames(found.clip_keys[0])
    assert len(list((folder / "clips").glob("*"))) == 1
    assert contents(folder) == local
    assert len(openings(tmp_path / "openings.log")) == FILES


@pytest.mark.parametrize("after_bytes", [1_000, 8_000, 20_000])
def test_a_connection_that_comes_back_is_only_a_wait(
    s3: S3, rows: list, local: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after_bytes: int, caplog
):
    made = recipe(tmp_path, rows, store=s3.uri(f"lost-{after_bytes}"), mirror=str(tmp_path / "a"))
    waits: list[float] = []
    monkeypatch.setattr(objects, "sleep", healed_by_waiting(s3, waits))
    assert not finished(folder_of(made, made.data.train[0]))  # the connection is good
    cuts = s3.proxy.cuts
    s3.proxy.cut(after_bytes=after_bytes)
    assert contents(prepared(made)) == local
    assert s3.proxy.cuts == cuts + 1
    assert waits == [1]
    assert "connection lost" in caplog.text


def test_a_connection_that_stays_lost_ends_the_run_and_the_next_one_goes_on(
    s3: S3, rows: list, local: dict, tmp_path: Path, connected: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(objects, "WAITS_SECONDS", (1,))
    made = recipe(tmp_path, rows, store=s3.uri("broken"), mirror=str(tmp_path / "a"))
    after_the_first_part(s3, monkeypatch, lambda: s3.proxy.cut(after_bytes=0))
    with pytest.raises(StorageError) as caught:
        prepared(made)
    message = str(caught.value)
    for words in (s3.uri("broken"), "'cluenet'", "tried 2 times", "endpoint_override", "Run the same command again"):
        assert words in message
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in message
    assert connected == list(objects.WAITS_SECONDS)
    s3.proxy.heal()
    parts = [key for key in s3.keys("broken/") if "/clips/" in key]
    assert len(parts) == 1
    log = tmp_path / "openings.log"
    log.unlink()
    other = recipe(tmp_path, rows, store=s3.uri("broken"), mirror=str(tmp_path / "b"))
    prepare = Plan(other).steps()[0]
    assert (prepare.state, prepare.what) == ("resumable", "decode the clips of listed train (1 parts are done)")
    folder = prepared(other)
    assert contents(folder) == local
    manifest = read_manifest(folder)
    assert manifest["run"]["parts"] == {"decoded": 1, "reused": 1}
    assert len(openings(log)) == FILES - manifest["run"]["files"]["reused"]
    counts = manifest["rows"]
    assert counts == {"in": FILES + 1, "ready": FILES - 1, "quarantined": 2}


def after_the_first_part(s3: S3, monkeypatch: pytest.MonkeyPatch, action) -> None:
    put = objects.ObjectStore.put

    def one_part(self: objects.ObjectStore, key: str, source: Path) -> None:
        put(self, key, source)
        if "/clips/" in key:
            monkeypatch.setattr(objects.ObjectStore, "put", put)
            action()

    monkeypatch.setattr(objects.ObjectStore, "put", one_part)


def test_killed_in_the_middle_another_machine_goes_on(s3: S3, rows: list, local: dict, tmp_path: Path):
    made = recipe(tmp_path, rows, store=s3.uri("killed"), mirror=str(tmp_path / "a"), delay_seconds=0.1)
    (tmp_path / "recipe.json").write_text(json.dumps(made.to_dict()))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "helpers.stored", str(tmp_path / "recipe.json")]
    process = subprocess.Popen(command, env=env, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any("/clips/" in key for key in s3.keys("killed/")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(key.endswith("manifest.json") for key in s3.keys("killed/"))
    log = tmp_path / "openings.log"
    log.unlink()
    other = recipe(tmp_path, rows, store=s3.uri("killed"), mirror=str(tmp_path / "b"), delay_seconds=0.1)
    folder = prepared(other)
    assert contents(folder) == local
    assert len(openings(log)) == FILES - read_manifest(folder)["run"]["files"]["reused"] < FILES


# ------------------------------------------------------------------------------------------------- refused before work


def test_a_bucket_that_is_not_there(s3: S3, rows: list, tmp_path: Path):
    made = recipe(tmp_path, rows, store=s3.uri("x", bucket="nowhere"), mirror=str(tmp_path / "a"))
    with pytest.raises(StorageError, match=r"there is no bucket 'nowhere'.*`endpoint_override`.*or make the bucket"):
        prepared(made)
    assert openings(tmp_path / "openings.log") == []


def test_credentials_that_are_refused(s3: S3, rows: list, tmp_path: Path, connected: list[float]):
    made = recipe(tmp_path, rows, store=s3.uri("refused"), mirror=str(tmp_path / "a"))
    with s3.refusing(), pytest.raises(StorageError, match=r"'cluenet'.*access is refused.*AWS_ACCESS_KEY_ID") as caught:
        prepared(made)
    assert not any(value in str(caught.value) for name, value in CREDENTIALS.items() if "SECRET" in name)
    assert openings(tmp_path / "openings.log") == connected == []


def test_writing_that_is_refused_is_found_before_work(s3: S3, rows: list, tmp_path: Path, connected: list[float]):
    made = recipe(tmp_path, rows, store=s3.uri("read-only"), mirror=str(tmp_path / "a"))
    assert not finished(store_folder(made))  # the connection is good
    with s3.refusing(), pytest.raises(StorageError, match=r"access is refused"):
        storage.require_writable(store_folder(made))
    assert connected == []


def test_a_server_that_is_not_there(s3: S3, rows: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "WAITS_SECONDS", (1,))
    made = recipe(tmp_path, rows, store=s3.uri("x", port=1), mirror=str(tmp_path / "a"))
    with pytest.raises(StorageError, match=r"'cluenet' cannot be opened, tried 2 times: .*NETWORK_CONNECTION"):
        prepared(made)
    assert openings(tmp_path / "openings.log") == []


def test_a_setting_of_the_uri_that_is_none(rows: list, tmp_path: Path):
    made = recipe(tmp_path, rows, store="s3://cluenet/x?regoin=here", mirror=str(tmp_path / "a"))
    with pytest.raises(StorageError, match=r"Unexpected query parameter in S3 URI: 'regoin'. Correct `store`"):
        prepared(made)


def test_the_command_line_ends_with_2_before_any_work(s3: S3, rows: list, tmp_path: Path, monkeypatch, capsys):
    made = recipe(tmp_path, rows, store=s3.uri("x", bucket="nowhere"), mirror=str(tmp_path / "a"))
    (tmp_path / "recipe.yaml").write_text(made.to_yaml())
    monkeypatch.setattr("cluenet.cluster.connected", lambda *_, **__: pytest.fail("Ray is started"))
    assert cli.call(["prepare", str(tmp_path / "recipe.yaml")]) == 2
    assert "there is no bucket 'nowhere'" in " ".join(capsys.readouterr().err.split())


def test_replies_of_a_teacher_are_kept_for_every_machine(s3: S3, tmp_path: Path):
    from cluenet_components.clue_sources import _teacher_cache as cache
    from cluenet_components.clue_sources._teacher_replies import Reply

    class Once(cache.Teacher):
        asked = 0

        def identity(self) -> dict:
            return {"name": "once"}

        def ask(self, request: cache.Request) -> Reply:
            self.asked += 1
            return Reply("yes")

    teacher = Once()
    answers = [cache.Memory(teacher, there(s3, "replies", tmp_path / name)).ask(cache.Request("?")) for name in "ab"]
    assert answers == [(Reply("yes"), True), (Reply("yes"), False)]
    assert teacher.asked == 1


def test_json_is_replaced_here_and_there(s3: S3, tmp_path: Path):
    file = there(s3, "json", tmp_path)
    for value in (1, 2):
        atomic_write_json(file, value)
    assert json.loads(file.read_text()) == json.loads(s3.content("json/folder")) == 2
