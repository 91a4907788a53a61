"""htpasswd files: what is accepted, what is told of, and how a change takes effect."""

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import bcrypt, ldap_sha1

from autostart import config
from autostart.auth import Authenticator, check_htpasswd
from autostart.errors import Unauthorized
from autostart.htpasswd import Entry, HtpasswdFile, compare, parse

CHEAP = bcrypt.using(rounds=4)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def lets_in(authenticator: Authenticator, user: str, password: str) -> bool:
    try:
        asyncio.run(authenticator.authenticate(basic(user, password)))
    except Unauthorized:
        return False
    return True


def write(path: Path, **users: str) -> None:
    path.write_text("".join(f"{user}:{CHEAP.hash(password)}\n" for user, password in users.items()))


# --- a file that changes ---------------------------------------------------------------------------


def test_changed_password_counts_at_once_and_the_old_one_no_more(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="old", bob="bob")
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    assert lets_in(authenticator, "alice", "old")
    assert lets_in(authenticator, "bob", "bob")
    write(path, alice="new", bob="bob")
    clock.now_s += 1
    assert authenticator.remembered(basic("alice", "old")) is None
    assert not lets_in(authenticator, "alice", "old")
    assert lets_in(authenticator, "alice", "new")


def test_unchanged_line_stays_remembered_when_the_file_changes(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw")
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    assert lets_in(authenticator, "alice", "pw")
    path.write_text(path.read_text() + f"bob:{CHEAP.hash('bob')}\n")
    clock.now_s += 1
    assert authenticator.remembered(basic("alice", "pw")) is not None


def test_removed_user_is_out_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw", bob="bob")
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    assert lets_in(authenticator, "alice", "pw")
    write(path, bob="bob")
    clock.now_s += 1
    assert authenticator.remembered(basic("alice", "pw")) is None
    assert not lets_in(authenticator, "alice", "pw")


def test_user_removed_while_the_password_is_verified_is_not_let_in(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw", bob="bob")

    def compare_and_lose_the_user(entry: Entry | None, slowest: Entry, password: bytes) -> bool:
        accepted = compare(entry, slowest, password)
        write(path, bob="bob")
        clock.now_s += 1
        authenticator.remembered(basic("x", "y"))  # reads the file again
        return accepted

    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock, compare=compare_and_lose_the_user)
    assert not lets_in(authenticator, "alice", "pw")


def test_file_is_looked_at_no_more_than_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw")
    file = HtpasswdFile(path, clock)
    write(path, bob="bob")
    clock.now_s += 0.9
    file.refresh()
    assert file.find("bob") is None
    clock.now_s += 0.1
    file.refresh()
    assert file.find("bob") is not None


def test_second_change_within_one_tick_of_the_file_systems_clock_is_seen(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    path.write_text(f"alice:{ldap_sha1.hash('one')}\n")
    before = path.stat()
    file = HtpasswdFile(path, clock)
    path.write_text(f"alice:{ldap_sha1.hash('two')}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (
        path.stat().st_mtime_ns,
        path.stat().st_size,
        path.stat().st_ino,
    )
    clock.now_s += 1
    file.refresh()
    entry = file.find("alice")
    assert entry is not None
    assert entry.accepts(b"two")


def test_replaced_file_with_an_old_date_is_seen(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw")
    os.utime(path, (1_000_000, 1_000_000))
    file = HtpasswdFile(path, clock)
    other = tmp_path / "other"
    write(other, bobby="pw")
    os.utime(other, (1_000_000, 1_000_000))
    other.replace(path)
    clock.now_s += 1
    file.refresh()
    assert file.find("bobby") is not None
    assert file.find("alice") is None


def spoil_by_removal(path: Path) -> None:
    path.unlink()


def spoil_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_by_half_a_hash(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def spoil_by_bytes(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\x01\n")


def spoil_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spoil_by_size(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 2**20)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_by_removal,
        spoil_by_directory,
        spoil_by_half_a_hash,
        spoil_by_bytes,
        spoil_by_pipe,
        spoil_by_size,
    ],
)
def test_spoilt_file_keeps_the_last_good_users_warns_once_and_recovers(
    tmp_path: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw")
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    spoil(path)
    for _ in range(3):
        clock.now_s += 1
        assert lets_in(authenticator, "alice", "pw")
    assert sum("htpasswd_unusable" in record.message for record in caplog.records) == 1
    assert "$2" not in caplog.text
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write(path, alice="fresh")
    clock.now_s += 1
    assert lets_in(authenticator, "alice", "fresh")


def test_file_that_is_not_there_yet_lets_nobody_in_until_it_is(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    assert not lets_in(authenticator, "alice", "pw")
    write(path, alice="pw")
    clock.now_s += 1
    assert lets_in(authenticator, "alice", "pw")


def test_emptied_file_lets_nobody_in(tmp_path: Path) -> None:
    path, clock = tmp_path / "htpasswd", Clock()
    write(path, alice="pw")
    authenticator = Authenticator(config.Auth(htpasswd=path), clock=clock)
    assert lets_in(authenticator, "alice", "pw")
    path.write_text("")
    clock.now_s += 1
    assert not lets_in(authenticator, "alice", "pw")


def test_unsupported_user_does_not_keep_the_others_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"old:rl.3StKT.4T8M\nplain:hunter2\nalice:{CHEAP.hash('pw')}\n")
    authenticator = Authenticator(config.Auth(htpasswd=path))
    assert lets_in(authenticator, "alice", "pw")
    assert not lets_in(authenticator, "plain", "hunter2")
    assert "hunter2" not in caplog.text
    assert "line 2, user 'plain'" in caplog.text


# --- what a wrong guess costs ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted(Entry):
    asked: list[str] = field(default_factory=list)

    def accepts(self, password: bytes) -> bool:
        self.asked.append(self.user)
        return Entry.accepts(self, password)


def test_wrong_guess_costs_the_slowest_hash_whether_the_name_exists_or_not() -> None:
    asked: list[str] = []
    slow = Counted("slow", CHEAP.hash("slow"), 4, asked)
    fast = Counted("fast", ldap_sha1.hash("fast"), 0, asked)
    for entry, expected in ((None, ["slow"]), (slow, ["slow"]), (fast, ["fast", "slow"])):
        asked.clear()
        assert not compare(entry, slow, b"wrong")
        assert expected == asked


def test_unknown_name_with_the_password_of_the_slowest_user_is_not_let_in(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    write(path, alice="pw")
    assert not lets_in(Authenticator(config.Auth(htpasswd=path)), "mallory", "pw")


# --- the check -------------------------------------------------------------------------------------


def problems(tmp_path: Path, content: str | bytes) -> list[str]:
    path = tmp_path / "users"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in check_htpasswd(path)]


GOOD = CHEAP.hash("pw")
WAYS = "bcrypt (`htpasswd -B`), apr1 (`htpasswd -m`) or {SHA} (`htpasswd -s`)"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"alice:{GOOD}\n", []),
        (f"alice:{GOOD}:a comment\r\n\r\n# note\r\n", []),
        ("", ["users: holds no user, so nobody can log in with it (accepted: lines user:hash)"]),
        ("alice\n", ["users line 1: has no user and hash (accepted: user:hash)"]),
        (f":{GOOD}\n", ["users line 1: has no user and hash (accepted: user:hash)"]),
        (b"\n\xff:x\n", ["users line 2: is not UTF-8 text (accepted: user:hash)"]),
        (
            f"a:{GOOD}\na:{GOOD}\n",
            ["users line 2, user 'a': stands there twice; the first one counts (accepted: each user once)"],
        ),
        (
            "a:rl.3StKT.4T8M\n",
            [
                (
                    "users line 1, user 'a': the password is stored as plain text, crypt or in another way that is not "
                    f"supported (accepted: {WAYS})"
                )
            ],
        ),
        (
            f"a:{GOOD[:-1]}\n",
            [f"users line 1, user 'a': the hash is cut short or damaged (accepted: {WAYS})"],
        ),
        ("a:{SHA}short=\n", [f"users line 1, user 'a': the hash is cut short or damaged (accepted: {WAYS})"]),
        ("a:$apr1$x\n", [f"users line 1, user 'a': the hash is cut short or damaged (accepted: {WAYS})"]),
        ("a:\n", [f"users line 1, user 'a': the hash is cut short or damaged (accepted: {WAYS})"]),
        (
            f"a:{GOOD.replace('$04$', '$31$')}\n",
            [
                (
                    "users line 1, user 'a': the bcrypt cost 31 would take minutes for every login "
                    "(accepted: a cost of at most 17 (`htpasswd -B -C 10`))"
                )
            ],
        ),
    ],
    ids=itertools.count(),  # the hashes are new each time
)
def test_check_names_line_and_user_and_never_the_hash(
    tmp_path: Path, content: str | bytes, expected: list[str]
) -> None:
    assert expected == problems(tmp_path, content)


def test_check_tells_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (problem,) = check_htpasswd(tmp_path / "missing")
    assert problem.message == "cannot be read: No such file or directory"
    (problem,) = check_htpasswd(tmp_path)
    assert problem.message.startswith("cannot be read: ")


@given(st.binary(max_size=300))
def test_no_content_whatsoever_breaks_the_reading(data: bytes) -> None:
    parsed = parse(data, Path("users"))
    assert all(entry.rank <= 17 for entry in parsed.users.values())


@pytest.mark.skipif(shutil.which("htpasswd") is None, reason="Apache's htpasswd is not installed")
@pytest.mark.parametrize("way", ["-B", "-m", "-s"])
def test_what_apaches_own_tool_writes_lets_in(tmp_path: Path, way: str) -> None:
    path = tmp_path / "htpasswd"
    subprocess.run(["htpasswd", "-cb", way, path, "alice", "pw of alice"], check=True, capture_output=True)
    assert check_htpasswd(path) == []
    assert lets_in(Authenticator(config.Auth(htpasswd=path)), "alice", "pw of alice")
