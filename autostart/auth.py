"""Who may use a service: Basic auth from an htpasswd file, and API keys as Bearer tokens.

Owns the reading of `Authorization`, the memory of verified passwords and the making of keys. Imports config,
errors and htpasswd; knows no HTTP beyond that one header. Nothing here logs, shows or keeps a credential:
passwords are remembered as digests under a key that lives as long as the process.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from autostart import config, errors
from autostart.htpasswd import Entry, HtpasswdFile, check_htpasswd, compare

__all__ = ["Authenticator", "Identity", "Method", "check_htpasswd", "generate_key", "hash_key"]

_log = logging.getLogger(__name__)

KEY_PREFIX = "autostart_"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_MAX_HEADER_CHARS = 8192
_REMEMBERED_FOR_S = 300.0
_REMEMBERED_AT_MOST = 1024
_VERIFYING_AT_MOST = 64
_FLOOD_TOLD_EVERY_S = 60.0

# Half of the cores, for all services together: guessing passwords must leave room for the work itself.
_CORES = max(1, len(os.sched_getaffinity(0)) // 2)
_threads = ThreadPoolExecutor(max_workers=_CORES, thread_name_prefix="autostart-password")


class Method(StrEnum):
    """How somebody proved who they are."""

    BASIC = "basic"
    BEARER = "bearer"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking: the name in the htpasswd file, or the name of the API key."""

    name: str
    method: Method


def generate_key() -> str:
    """Return a new API key: 256 random bits behind a prefix that secret scanners can look for."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Return what the configuration keeps of `key`.

    Plain SHA-256 is enough for keys of 256 random bits; it is no way to keep a password that somebody
    thought up. Raises ValueError for what cannot be sent as a Bearer token (RFC 6750 section 2.1).
    """
    if not _TOKEN.fullmatch(key):
        raise ValueError("a key consists of letters, digits and . _ ~ + / - only")
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


Compare = Callable[[Entry | None, Entry, bytes], bool]
"""The slow part, run in a thread: see `htpasswd.compare`."""


@dataclass(frozen=True, slots=True)
class _Basic:
    user: str
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Bearer:
    token: str = field(repr=False)


def _read(authorization: str | None) -> _Basic | _Bearer | None:
    """Return the credentials in the header; None for none, malformed ones and other schemes. Never raises."""
    if not authorization or len(authorization) > _MAX_HEADER_CHARS:
        return None
    scheme, _, rest = authorization.strip().partition(" ")
    value = rest.strip()
    match scheme.lower():  # RFC 9110 section 11.1: schemes are case-insensitive
        case "basic":
            try:
                decoded = base64.b64decode(value, validate=True)
                user, colon, password = decoded.decode("utf-8").partition(":")
            except (binascii.Error, ValueError):
                return None
            # RFC 7617 section 2: neither part contains control characters.
            if not colon or any(ord(char) < 32 or ord(char) == 127 for char in user + password):
                return None
            return _Basic(user, password.encode())
        case "bearer":
            return _Bearer(value) if _TOKEN.fullmatch(value) else None
        case _:
            return None


class Authenticator:
    """Decides, for one set of rules, whether a request may go on.

    `remembered` answers at once, for API keys and for passwords that were verified within the last five
    minutes; `authenticate` answers always. A verified password is remembered as a digest over user, password
    and stored hash, so that it counts for nothing once the file says otherwise.

    Where a password has to be verified, the work runs in a thread, a few at a time; the same credentials
    asked for by many at once are verified once. A wrong guess costs the same for names that exist and names
    that do not: that of the slowest hash in the file.
    """

    def __init__(
        self, auth: config.Auth, *, clock: Callable[[], float] = time.monotonic, compare: Compare = compare
    ) -> None:
        self._realm = auth.realm
        self._allow = None if auth.allow is None else frozenset(auth.allow)
        self._keys = [(key.name, bytes.fromhex(key.hash.removeprefix("sha256:"))) for key in auth.api_keys]
        self._file = None if auth.htpasswd is None else HtpasswdFile(auth.htpasswd, clock)
        self._clock = clock
        self._compare = compare
        self._flood_told_s = float("-inf")
        self._secret = secrets.token_bytes(32)
        self._memory: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._turns = asyncio.Semaphore(max(1, _CORES // 2))
        self._verifying: dict[bytes, _Verification] = {}

    def __repr__(self) -> str:
        return f"<Authenticator realm={self._realm!r} keys={len(self._keys)} file={self._file!r}>"

    def remembered(self, authorization: str | None) -> Identity | None:
        """Return who is asking where that is known without waiting; None says to ask `authenticate`."""
        identity = self._recall(_read(authorization))
        return identity if identity is not None and self._allows(identity) else None

    async def authenticate(self, authorization: str | None) -> Identity:
        """Return who is asking.

        Raises Unauthorized without valid credentials, Forbidden where `allow` leaves them out. Cancelling it
        leaves a verification that others wait for too running.
        """
        credentials = _read(authorization)
        identity = self._recall(credentials)
        if identity is None and isinstance(credentials, _Basic):
            identity = await self._verify(credentials)
        if identity is None:
            raise errors.Unauthorized(self._realm, offered=bool(authorization and authorization.strip()))
        if not self._allows(identity):
            raise errors.Forbidden(identity.name)
        return identity

    def _allows(self, identity: Identity) -> bool:
        return self._allow is None or identity.name in self._allow

    def _recall(self, credentials: _Basic | _Bearer | None) -> Identity | None:
        match credentials:
            case _Bearer(token):
                return self._key_holder(token)
            case _Basic(user) if self._file is not None:
                self._file.refresh()
                digest = self._digest(credentials, self._file.find(user))
                identity, until_s = self._memory.get(digest, (None, 0.0))
                if identity is None:
                    return None
                if self._clock() >= until_s:
                    del self._memory[digest]
                    return None
                self._memory.move_to_end(digest)
                return identity
            case _:
                return None

    def _key_holder(self, token: str) -> Identity | None:
        digest = hashlib.sha256(token.encode()).digest()
        holder = None
        for name, expected in self._keys:  # all of them, always: the time tells nothing
            if hmac.compare_digest(digest, expected) and holder is None:
                holder = Identity(name, Method.BEARER)
        return holder

    def _digest(self, credentials: _Basic, entry: Entry | None) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=32)
        stored = entry.stored if entry else ""
        for part in (credentials.user.encode(), credentials.password, stored.encode()):
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
        return digest.digest()

    async def _verify(self, credentials: _Basic) -> Identity | None:
        """Compare with the file, together with everybody who asks for the same at the same time."""
        if self._file is None or self._file.slowest is None:
            return None
        digest = self._digest(credentials, self._file.find(credentials.user))
        verification = self._verifying.get(digest)
        if verification is None:
            if len(self._verifying) >= _VERIFYING_AT_MOST:
                self._tell_of_flood()
                return None
            verification = _Verification(asyncio.create_task(self._look(credentials, digest)))
            self._verifying[digest] = verification
        verification.waiting += 1
        try:
            return await asyncio.shield(verification.task)
        finally:
            verification.waiting -= 1
            if not verification.waiting:
                # Forgotten in the same step as cancelled, so that nobody can join what is about to end.
                self._verifying.pop(digest, None)
                verification.task.cancel()

    async def _look(self, credentials: _Basic, digest: bytes) -> Identity | None:
        assert self._file is not None
        async with self._turns:
            entry, slowest = self._file.find(credentials.user), self._file.slowest
            if slowest is None:
                return None
            accepted = await asyncio.get_running_loop().run_in_executor(
                _threads, self._compare, entry, slowest, credentials.password
            )
        if not accepted or entry is None or self._file.find(entry.user) != entry:
            return None
        identity = Identity(entry.user, Method.BASIC)
        if digest == self._digest(credentials, entry):
            self._memory[digest] = (identity, self._clock() + _REMEMBERED_FOR_S)
            while len(self._memory) > _REMEMBERED_AT_MOST:
                self._memory.popitem(last=False)
        return identity

    def _tell_of_flood(self) -> None:
        """Every wait ends: in a flood of guesses further ones are told no instead of queueing for minutes."""
        if self._clock() - self._flood_told_s >= _FLOOD_TOLD_EVERY_S:
            self._flood_told_s = self._clock()
            _log.warning("event=password_flood realm=%r waiting=%d", self._realm, len(self._verifying))


@dataclass(slots=True)
class _Verification:
    """One comparison that is under way, owned by those who wait for it: the last to leave cancels it."""

    task: asyncio.Task[Identity | None]
    waiting: int = 0
