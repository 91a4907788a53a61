"""htpasswd files: what may stand in them, and reading them again when they change.

Owns the parsing, the check behind `autostart check`, and the comparison of one password with one stored
hash (slow on purpose: call it in a thread). Imports errors and libpass; knows neither requests nor caches.
A stored hash never appears in a message, a log line or a repr.
"""

import logging
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from autostart.errors import Problem

_log = logging.getLogger(__name__)

ACCEPTED = "bcrypt (`htpasswd -B`), apr1 (`htpasswd -m`) or {SHA} (`htpasswd -s`)"
_MAX_FILE_BYTES = 4 * 2**20
_CHECK_EVERY_S = 1.0
_SETTLED_NS = 2 * 10**9
_BCRYPT_BYTES = 72
_MAX_PASSWORD_BYTES = 4096  # The library raises for longer ones.

# 16 and 23 bytes in base64 leave bits over in the last digit of salt and hash; the library wants them zero.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")
_APR1 = re.compile(r"\$apr1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}")
_SHA = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=")
_STARTS = ("$2a$", "$2b$", "$2y$", "$apr1$", "{SHA}")
_MAX_COST = 17  # The most that Apache's own tool writes; 31 would hold a thread for days.


@dataclass(frozen=True, slots=True)
class Entry:
    """One user. `rank` orders hashes by what checking a password against them costs."""

    user: str
    stored: str = field(repr=False)
    rank: int

    def accepts(self, password: bytes) -> bool:
        """Say whether `password` is this user's. Takes up to seconds: belongs in a thread.

        bcrypt looks at 72 bytes and ignores the rest, in Apache and nginx too; the library refuses longer
        ones since 5.0, so they are cut here.
        """
        if b"\0" in password or len(password) > _MAX_PASSWORD_BYTES:
            return False
        from passlib.hash import apr_md5_crypt, bcrypt, ldap_sha1  # noqa: PLC0415 - 2 MB, for who logs in

        if self.stored.startswith("$2"):
            return bool(bcrypt.verify(password[:_BCRYPT_BYTES], self.stored))
        if self.stored.startswith("$apr1$"):
            return bool(apr_md5_crypt.verify(password, self.stored))
        return bool(ldap_sha1.verify(password, self.stored))


def compare(entry: Entry | None, slowest: Entry, password: bytes) -> bool:
    """Say whether the password is that of `entry`; a no costs what the slowest hash costs, or little more.

    `entry` is None for a name that is not in the file: how long the answer takes must not tell which are.
    """
    if entry is not None and entry.accepts(password):
        return True
    if entry is None or entry.rank != slowest.rank:
        slowest.accepts(password)
    return False


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a file: who can log in, what makes it unusable, and what only keeps single users out."""

    users: dict[str, Entry]
    broken: list[Problem]
    skipped: list[Problem]


def parse(data: bytes, path: Path) -> Parsed:
    """Read the lines `user:hash`; empty lines and `#` comments count for nothing.

    A line that cannot be understood makes the file broken (it may be half written). A hash of a kind that
    is not supported, or a user who stands there twice, does not: the others can be trusted all the same.
    """
    found = Parsed({}, [], [])
    for number, raw in enumerate(data.splitlines(), start=1):
        where = f"{path} line {number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            found.broken.append(Problem(where, "is not UTF-8 text", "user:hash"))
            continue
        if not line or line.startswith("#"):
            continue
        user, colon, rest = line.partition(":")
        stored = rest.partition(":")[0].strip()  # nginx: "name:hash:comment"
        if not colon or not user:
            found.broken.append(Problem(where, "has no user and hash", "user:hash"))
            continue
        where += f", user {user!r}"
        rank = _rank(stored)
        if user in found.users:
            found.skipped.append(Problem(where, "stands there twice; the first one counts", "each user once"))
        elif rank is not None and rank <= _MAX_COST:
            found.users[user] = Entry(user, stored, rank)
        elif rank is not None:
            message = f"the bcrypt cost {rank} would take minutes for every login"
            found.skipped.append(
                Problem(where, message, f"a cost of at most {_MAX_COST} (`htpasswd -B -C 10`)")
            )
        elif not stored or stored.startswith(_STARTS):
            found.broken.append(Problem(where, "the hash is cut short or damaged", ACCEPTED))
        else:
            message = "the password is stored as plain text, crypt or in another way that is not supported"
            found.skipped.append(Problem(where, message, ACCEPTED))
    return found


def _rank(stored: str) -> int | None:
    if (match := _BCRYPT.fullmatch(stored)) and 4 <= int(match[1]) <= 31:
        return int(match[1])
    if _APR1.fullmatch(stored):
        return 1
    return 0 if _SHA.fullmatch(stored) else None


def check_htpasswd(path: Path) -> list[Problem]:
    """Return every mistake in the file: each names file, line and user, never a hash."""
    try:
        data, _ = _read(path)
    except OSError as exc:
        return [Problem(str(path), f"cannot be read: {exc.strerror}", "a file of lines user:hash")]
    parsed = parse(data, path)
    if not (parsed.users or parsed.broken or parsed.skipped):
        return [Problem(str(path), "holds no user, so nobody can log in with it", "lines user:hash")]
    return parsed.broken + parsed.skipped


_Stamp = tuple[int, int, int]


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _read(path: Path) -> tuple[bytes, _Stamp]:
    """Return content and stamp of one and the same file. Never blocks on a pipe; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a file")
        if status.st_size > _MAX_FILE_BYTES:
            raise OSError(0, f"it is larger than {_MAX_FILE_BYTES} bytes")
        return file.read(_MAX_FILE_BYTES + 1), _stamp(status)


class HtpasswdFile:
    """The users of a file, as it was when last it was good.

    `refresh` looks at most once a second, and reads in place: a `stat` takes microseconds and the file is
    small and local, while handing it to a thread would let a removed user in for as long as that takes.
    A file that has become unreadable or broken is told of once, and the users from before go on counting.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._users: dict[str, Entry] = {}
        self._slowest: Entry | None = None
        self._stamp: _Stamp | None = None
        self._look_at_s = float("-inf")
        self._complaint = ""
        self.refresh()

    def __repr__(self) -> str:
        return f"<HtpasswdFile {self.path} users={len(self._users)}>"

    def find(self, user: str) -> Entry | None:
        """Return the user's entry, None where there is none."""
        return self._users.get(user)

    @property
    def slowest(self) -> Entry | None:
        """The entry that is most expensive to check: what a wrong guess of any name is made to cost."""
        return self._slowest

    def refresh(self) -> None:
        """Read the file again if it has changed since it was last looked at."""
        now_s = self._clock()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _CHECK_EVERY_S
        try:
            if self._stamp is not None and _stamp(self.path.stat()) == self._stamp:
                return
            data, stamp = _read(self.path)
        except OSError as exc:
            self._stamp = None
            self._complain(f"cannot be read: {exc.strerror}")
            return
        # Two writes within one tick of the file system's clock can leave the same stamp: a stamp is
        # believed only once it is old enough that no such second write can follow.
        self._stamp = stamp if time.time_ns() - stamp[0] > _SETTLED_NS else None
        parsed = parse(data, self.path)
        if parsed.broken:
            self._complain("; ".join(str(problem) for problem in parsed.broken[:3]))
            return
        self._users = parsed.users
        self._slowest = max(parsed.users.values(), key=lambda entry: entry.rank, default=None)
        if self._slowest is not None and self._slowest.stored.startswith("$2"):
            from passlib.hash import bcrypt  # noqa: PLC0415 - as in `Entry.accepts`

            bcrypt.get_backend()  # loads it now and here: several threads are about to use it at once
        if parsed.skipped:
            self._complain("; ".join(str(problem) for problem in parsed.skipped[:3]), kept=False)
        elif self._complaint:
            self._complaint = ""
            _log.info("event=htpasswd_good_again path=%s users=%d", self.path, len(self._users))

    def _complain(self, complaint: str, *, kept: bool = True) -> None:
        if complaint == self._complaint:
            return
        self._complaint = complaint
        event = "htpasswd_unusable" if kept else "htpasswd_users_skipped"
        _log.warning("event=%s path=%s users=%d problem=%r", event, self.path, len(self._users), complaint)
