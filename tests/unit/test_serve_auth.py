"""Keys: none asked for, the right one, every wrong one; and an endpoint that was meant to have keys is never open."""

from __future__ import annotations

import hmac

import pytest

from cluenet.errors import CluenetError
from cluenet.serve import auth
from cluenet.serve.errors import ServeError

KEYS = ("first-key", "second-key")


@pytest.mark.parametrize("header", ["Bearer first-key", "bearer second-key", "Bearer  first-key "])
def test_a_known_key_is_let_in(header: str) -> None:
    auth.check(header, KEYS)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "first-key", "Basic first-key", "Bearer first-ke", "Bearer first-key2", "Bearer FIRST-KEY",
     "Bearer first-key,second-key", "Bearer f\xefrst-key", "Bearer \ud800"],
)  # fmt: skip
def test_anything_else_is_401(header: str | None) -> None:
    with pytest.raises(ServeError, match="Authorization: Bearer") as caught:
        auth.check(header, KEYS)
    assert (caught.value.status, caught.value.type) == (401, "authentication_error")
    assert caught.value.headers() == {"WWW-Authenticate": "Bearer"}
    assert "first" not in str(caught.value)


def test_without_keys_nobody_is_asked() -> None:
    auth.check(None, ())


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or original(a, b))
    auth.check("Bearer first-key", KEYS)
    assert len(compared) == 2, "also after the first one fits"
    assert {len(digest) for pair in compared for digest in pair} == {32}, "whatever the keys' lengths"


def test_keys_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEYS", " one, two ,,")
    assert auth.read_keys("SOME_KEYS") == ("one", "two")
    assert auth.read_keys(None) == ()


@pytest.mark.parametrize(
    ("value", "message"), [(None, "holds no key"), (" , ", "holds no key"), ("a,b c", "key 2"), ("ü", "key 1")]
)
def test_a_variable_without_a_usable_key_is_an_error(
    monkeypatch: pytest.MonkeyPatch, value: str | None, message: str
) -> None:
    monkeypatch.delenv("SOME_KEYS", raising=False)
    if value is not None:
        monkeypatch.setenv("SOME_KEYS", value)
    with pytest.raises(CluenetError, match=message) as caught:
        auth.read_keys("SOME_KEYS")
    assert "SOME_KEYS" in str(caught.value)
    assert "b c" not in str(caught.value), "a key is never shown"
