"""What `store` may be, and where its files are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluenet import objects, storage
from cluenet.errors import RecipeError
from cluenet.prepared import store_folder
from cluenet.recipe import Recipe

URI = "s3://bucket/the store?region=eu-west-1"


def recipe(**settings: str) -> Recipe:
    return Recipe.from_dict(settings)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("ftp://bucket/x", "store: is 'ftp://bucket/x': a path, or a URI with s3://, gs:// or file:// is wanted"),
        ("s3:///x", "names no bucket: s3://bucket/folder"),
        ("s3://[x/y", "is not a URI"),
        ("file://host/x", "write file:///an/absolute/path"),
        (f"s3://bucket/{'x' * 250}", "longer than 255 letters"),
        ("s3://KEY:hush@bucket/x", "holds a user name or a key.*Set AWS_ACCESS_KEY_ID"),
        ("gs://me:hush@bucket/x", "holds a user name or a key"),
    ],
)
def test_a_wrong_uri_is_refused_before_anything_else(store: str, message: str):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe(store=store)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["runs", "mirror"])
def test_only_the_store_may_be_a_uri(name: str):
    with pytest.raises(RecipeError, match=f"{name}: is a URI, and only `store` may be one"):
        recipe(**{name: "s3://bucket/x"})


@pytest.mark.parametrize(
    "store", ["s3://bucket/x", "s3://bucket", "gs://bucket/x", "gs://anonymous@bucket/x", "file:///x", "x", "~/x", URI]
)
def test_good_stores(store: str):
    assert recipe(store=store).store == store


def test_a_mirror_is_named_after_its_uri_and_says_it(tmp_path: Path):
    folder = store_folder(recipe(store=URI, mirror=str(tmp_path)))
    assert folder == tmp_path / "s3%3A%2F%2Fbucket%2Fthe%20store%3Fregion%3Deu-west-1"
    assert store_folder(recipe(store=f"{URI}/", mirror=str(tmp_path))) == folder


def test_a_path_in_a_mirror_is_found_in_the_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever opens it, on whatever machine: the path alone says where the file comes from."""

    class Store:
        def __init__(self, uri: str):
            self.uri = uri

        def has(self, key: str) -> bool:
            return (self.uri, key) == (URI, "prepared/abc/manifest.json")

    monkeypatch.setattr(objects, "opened", Store)
    folder = store_folder(recipe(store=URI, mirror=str(tmp_path)))
    assert storage.is_there(folder / "prepared" / "abc" / "manifest.json")
    assert not storage.is_there(folder / "prepared" / "other" / "manifest.json")
    monkeypatch.setattr(objects, "opened", lambda uri: pytest.fail("a message asks nobody"))
    assert storage.shown(folder / "a" / "b") == f"a/b in {URI} (and its copy {folder / 'a' / 'b'})"


def test_home_and_file_uris_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_folder(recipe(store="~/store")) == tmp_path / "store"
    assert store_folder(recipe(store="s3://b/x", mirror="~/m")) == tmp_path / "m" / "s3%3A%2F%2Fb%2Fx"
    assert store_folder(recipe(store="file:///mnt/my%20nfs")) == Path("/mnt/my nfs")


def test_workers_get_folders_that_mean_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("s3://b/x") == "s3://b/x"
    assert storage.absolute("store") == str(tmp_path / "store")


def test_a_plain_folder_is_used_as_it_is(tmp_path: Path):
    for name in ("part-2", "part-1", "other"):
        (tmp_path / name).write_text(name)
    assert storage.sizes(tmp_path, "part-*") == {tmp_path / "part-1": 6, tmp_path / "part-2": 6}
    assert storage.sizes(tmp_path / "nowhere", "*") == {}
    assert storage.read(tmp_path / "other", lambda file: file.read()) == b"other"
    assert storage.bring(tmp_path / "nowhere") == tmp_path / "nowhere"
    assert storage.bring_folder(tmp_path) == tmp_path
    storage.put(tmp_path / "other", tmp_path / "nowhere")
    storage.put_folder(tmp_path, tmp_path / "nowhere")
    storage.require_writable(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    storage.remove(tmp_path / "other")
    storage.remove(tmp_path / "other")
    assert not storage.is_there(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        storage.read(tmp_path / "other", lambda file: file.read())
