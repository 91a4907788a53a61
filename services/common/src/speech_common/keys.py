"""API keys: which there are, and whose a request is.

Owns reading and comparing them. Keeps digests only, so that no log, traceback or memory of settings shows a key.
Imports nothing heavy: it runs before the socket listens. `layers.py` asks for them.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from speech_common.environment import SettingError
from speech_common.errors import MissingKey, WrongKey

OWNER = "speech.owner"
"""Where `layers.py` keeps, in the ASGI scope, the digest of the key that a request came with."""

# RFC 6750: what a Bearer token may be made of. A key with anything else could not be sent.
_KEY = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_ACCEPTED = "keys of letters, digits and -._~+/, at least one"


class ApiKeys:
    """The keys that open the service; none at all leave it open. The value is false then."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(dict.fromkeys(_digest(key) for key in keys))

    @classmethod
    def read(cls, listed: str, path: str) -> Self:
        """Take the keys of API_KEYS, separated by commas, and of API_KEYS_FILE: one a line, `#` begins a comment.

        Raises SettingError, which names no key, where either is set and has none: an open service would be a surprise.
        """
        keys = [key.strip() for key in listed.split(",") if key.strip()]
        if listed and (not keys or not all(_KEY.fullmatch(key) for key in keys)):
            raise SettingError("API_KEYS", "...", f"{_ACCEPTED}, separated by commas")
        if path:
            try:
                lines = Path(path).read_text(encoding="ascii").splitlines()
            except (OSError, ValueError) as exc:
                cause = getattr(exc, "strerror", None) or "it is no plain text"
                raise SettingError("API_KEYS_FILE", path, f"a file of keys, one a line ({cause})") from exc
            found = [line.split("#", 1)[0].strip() for line in lines]
            found = [key for key in found if key]
            if not found or not all(_KEY.fullmatch(key) for key in found):
                raise SettingError("API_KEYS_FILE", path, f"a file of {_ACCEPTED}, one a line")
            keys += found
        return cls(keys)

    def __repr__(self) -> str:
        return f"<ApiKeys {len(self._digests)}>"

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: Iterable[str]) -> str | None:
        """Return whose a request with these `Authorization` headers is: a digest, or None where no key is needed.

        Raises MissingKey, or WrongKey after a comparison that takes as long for a nearly right key as for any other.
        """
        if not self._digests:
            return None
        credentials = list(authorization)
        scheme, _, key = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise MissingKey
        given = _digest(key)
        known = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(known):
            raise WrongKey
        return given.hex()


def owner_of(scope: Mapping[str, Any]) -> str | None:
    """Return whose a request is: equal for equal keys, None where none are configured."""
    owner: str | None = scope.get(OWNER)
    return owner


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
