"""Bearer keys: who may ask."""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from hashlib import sha256

from cluenet.errors import CluenetError
from cluenet.serve.errors import ServeError


def read_keys(variable: str | None) -> tuple[str, ...]:
    """The keys that an environment variable holds, joined by commas. None: no key is asked for.

    Raises CluenetError where the variable has no key, or one that a header cannot carry: an endpoint that was meant to have
    keys is never open by mistake.
    """
    if variable is None:
        return ()
    keys = tuple(key.strip() for key in os.environ.get(variable, "").split(",") if key.strip())
    if not keys:
        raise CluenetError(
            f"serve.keys_variable: the environment variable {variable} holds no key. "
            f"Set it to one key or several joined by commas, or set serve.keys_variable to null to ask for none."
        )
    if bad := [
        place for place, key in enumerate(keys, start=1) if not (key.isascii() and key.isprintable() and " " not in key)
    ]:
        raise CluenetError(
            f"serve.keys_variable: key {bad[0]} of {variable} has characters that a header cannot carry. "
            f"Use letters, digits and signs of ASCII without spaces."
        )
    return keys


def check(authorization: str | None, keys: Sequence[str]) -> None:
    """Raises ServeError 401 unless the `Authorization` header (RFC 6750: `Bearer KEY`) carries one of the keys.

    The time it takes says nothing about the keys: digests of one length are compared, and all of them.
    """
    if not keys:
        return
    scheme, _, given = (authorization or "").partition(" ")
    matches = [hmac.compare_digest(_digest(given.strip()), _digest(key)) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        message = "a valid key is needed. Send the header `Authorization: Bearer KEY`."
        raise ServeError(401, "authentication_error", message, code="invalid_api_key")


def _digest(key: str) -> bytes:
    return sha256(key.encode(errors="surrogatepass")).digest()
