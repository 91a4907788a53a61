"""Who is let in: Basic, Bearer, `allow`, what is remembered, and what malformed headers meet."""

import asyncio
import base64
import os
import threading
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import apr_md5_crypt, bcrypt, ldap_sha1
from waiting import until

from autostart import config
from autostart.auth import Authenticator, Identity, Method, generate_key, hash_key
from autostart.errors import Forbidden, Unauthorized
from autostart.htpasswd import Entry, compare

CHEAP = bcrypt.using(rounds=4)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Gate:
    """The real comparison, counted, and held back until it is opened."""

    def __init__(self, *, opened: bool = True) -> None:
        self.calls = 0
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()
        self.open = threading.Event()
        if opened:
            self.open.set()

    def __call__(self, entry: Entry | None, slowest: Entry, password: bytes) -> bool:
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            assert self.open.wait(30)
            return compare(entry, slowest, password)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(
        f"# people\n\nalice:{CHEAP.hash('wonderland')}\nbob:{apr_md5_crypt.hash('builder')}\n"
        f"carol:{ldap_sha1.hash('carol pw')}\nzoë:{CHEAP.hash('pässwört:mit:punkten')}\n",
        encoding="utf-8",
    )
    return path


def ask(authenticator: Authenticator, header: str | None) -> Identity:
    return asyncio.run(authenticator.authenticate(header))


async def gathered(waits: list[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.parametrize(
    ("user", "password"),
    [("alice", "wonderland"), ("bob", "builder"), ("carol", "carol pw"), ("zoë", "pässwört:mit:punkten")],
)
def test_right_password_is_let_in_for_every_supported_hash(users: Path, user: str, password: str) -> None:
    identity = ask(Authenticator(config.Auth(htpasswd=users)), basic(user, password))
    assert Identity(user, Method.BASIC) == identity


@pytest.mark.parametrize(
    "header",
    [
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("alice", "wonderland "),
        basic("ALICE", "wonderland"),
        basic("nobody", "wonderland"),
        basic("", ""),
        basic("alice", "x" * 4200),
        basic("bob", "x" * 4200),
        basic("alice", "wonder\0land"),
        "Basic",
        "Basic ",
        "Basic !!!not-base64!!!",
        "Basic YWxpY2U",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"alice:\xff\xfe").decode(),
        "Basic " + base64.b64encode("zoë:x".encode("latin-1")).decode(),
        "Basic " + "QUFB" * 100_000,
        "Basic a b c",
        "Basic \udcff\udcfe",
        "Bearer",
        "Bearer ",
        "Bearer two words",
        "Bearer \udcff",
        "Bearer naïve",
        "Digest username=alice",
        "Negotiate YII=",
        "\x00\x01",
        "alice:wonderland",
    ],
)
def test_wrong_and_malformed_headers_are_unauthorized(users: Path, header: str) -> None:
    auth = config.Auth(
        htpasswd=users, api_keys=[{"name": "k", "hash": hash_key(generate_key())}], realm="here"
    )
    authenticator = Authenticator(auth)
    assert authenticator.remembered(header) is None
    with pytest.raises(Unauthorized) as caught:
        ask(authenticator, header)
    assert (caught.value.realm, caught.value.offered) == ("here", True)


@pytest.mark.parametrize("header", [None, "", "   "])
def test_no_header_is_told_apart_from_a_wrong_one(users: Path, header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        ask(Authenticator(config.Auth(htpasswd=users)), header)
    assert caught.value.offered is False


@given(header=st.text(max_size=60) | st.text(max_size=60).map(lambda text: f"Basic {text}"))
def test_no_header_whatsoever_raises_anything_but_unauthorized(header: str) -> None:
    authenticator = Authenticator(config.Auth(api_keys=[{"name": "k", "hash": hash_key(generate_key())}]))
    with pytest.raises(Unauthorized):
        ask(authenticator, header)


def test_huge_header_is_not_even_looked_at() -> None:
    key = "k" * 9000
    authenticator = Authenticator(config.Auth(api_keys=[{"name": "k", "hash": hash_key(key)}]))
    assert authenticator.remembered(f"Bearer {key}") is None


def test_scheme_is_case_insensitive(users: Path) -> None:
    header = basic("bob", "builder").replace("Basic", "bAsIc")
    assert ask(Authenticator(config.Auth(htpasswd=users)), header).name == "bob"


def test_password_longer_than_bcrypt_looks_at_is_cut_as_apache_and_nginx_do(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"alice:{CHEAP.hash('x' * 72)}\n")
    assert ask(Authenticator(config.Auth(htpasswd=path)), basic("alice", "x" * 80)).name == "alice"


def test_every_key_is_known_at_once_by_its_name() -> None:
    keys = {f"key {number}": generate_key() for number in range(3)}
    auth = config.Auth(api_keys=[{"name": name, "hash": hash_key(key)} for name, key in keys.items()])
    authenticator = Authenticator(auth)
    expected = [Identity(name, Method.BEARER) for name in keys]
    assert expected == [authenticator.remembered(f"Bearer {key}") for key in keys.values()]
    assert expected == [ask(authenticator, f"bearer  {key} ") for key in keys.values()]


def test_password_is_not_taken_for_a_key_nor_a_key_for_a_password(users: Path) -> None:
    key = generate_key()
    authenticator = Authenticator(
        config.Auth(htpasswd=users, api_keys=[{"name": "alice", "hash": hash_key(key)}])
    )
    for header in ("Bearer wonderland", basic("alice", key)):
        with pytest.raises(Unauthorized):
            ask(authenticator, header)


def test_allow_leaves_out_the_others_with_their_name(users: Path) -> None:
    key = generate_key()
    keys = [{"name": "robot", "hash": hash_key(key)}]
    authenticator = Authenticator(config.Auth(htpasswd=users, api_keys=keys, allow=["alice"]))
    assert ask(authenticator, basic("alice", "wonderland")).name == "alice"
    for header, name in ((basic("bob", "builder"), "bob"), (f"Bearer {key}", "robot")):
        for _ in range(2):
            with pytest.raises(Forbidden) as caught:
                ask(authenticator, header)
            assert name == caught.value.identity
            assert authenticator.remembered(header) is None


def test_wrong_password_of_somebody_left_out_is_unauthorized_not_forbidden(users: Path) -> None:
    with pytest.raises(Unauthorized):
        ask(Authenticator(config.Auth(htpasswd=users, allow=["alice"])), basic("bob", "wrong"))


def test_verified_password_is_remembered_for_minutes(users: Path) -> None:
    clock, gate = Clock(), Gate()
    authenticator = Authenticator(config.Auth(htpasswd=users), clock=clock, compare=gate)
    header = basic("alice", "wonderland")
    assert authenticator.remembered(header) is None
    ask(authenticator, header)
    clock.now_s += 299
    assert ask(authenticator, header).name == "alice"
    assert Identity("alice", Method.BASIC) == authenticator.remembered(header)
    assert gate.calls == 1
    clock.now_s += 2
    assert authenticator.remembered(header) is None
    ask(authenticator, header)
    assert gate.calls == 2


def test_wrong_password_is_never_remembered(users: Path) -> None:
    gate = Gate()
    authenticator = Authenticator(config.Auth(htpasswd=users), compare=gate)
    ask(authenticator, basic("alice", "wonderland"))
    for _ in range(2):
        with pytest.raises(Unauthorized):
            ask(authenticator, basic("alice", "wonderlan"))
    assert gate.calls == 3


def test_memory_is_bounded_and_forgets_the_longest_unused(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    names = [f"user{number}" for number in range(1026)]
    path.write_text("".join(f"{name}:{ldap_sha1.hash(name)}\n" for name in names))
    authenticator = Authenticator(config.Auth(htpasswd=path))

    async def scenario() -> list[str]:
        for name in names:
            await authenticator.authenticate(basic(name, name))
            assert authenticator.remembered(basic("user0", "user0")) is not None
        return [name for name in names if authenticator.remembered(basic(name, name)) is None]

    assert asyncio.run(scenario()) == ["user1", "user2"]


def test_many_with_the_same_credentials_verify_once(users: Path) -> None:
    gate = Gate(opened=False)
    authenticator = Authenticator(config.Auth(htpasswd=users), compare=gate)

    async def scenario() -> list[Identity]:
        waits = [
            asyncio.ensure_future(authenticator.authenticate(basic("alice", "wonderland"))) for _ in range(50)
        ]
        await until(lambda: gate.running == 1)
        gate.open.set()
        return list(await asyncio.gather(*waits))

    assert [Identity("alice", Method.BASIC)] * 50 == asyncio.run(scenario())
    assert gate.calls == 1


def test_flood_of_guesses_runs_few_at_a_time_and_every_wait_ends(users: Path, caplog: Any) -> None:
    gate = Gate(opened=False)
    authenticator = Authenticator(config.Auth(htpasswd=users), compare=gate)

    async def scenario() -> list[Any]:
        guesses = [
            asyncio.ensure_future(authenticator.authenticate(basic("alice", f"guess {number}")))
            for number in range(200)
        ]
        await until(lambda: sum(guess.done() for guess in guesses) == 200 - 64)
        gate.open.set()
        return await gathered(guesses)

    results = asyncio.run(scenario())
    assert {Unauthorized} == {type(result) for result in results}
    assert gate.calls == 64
    assert gate.most_running <= max(1, len(os.sched_getaffinity(0)) // 2)
    assert sum("password_flood" in record.message for record in caplog.records) == 1
    assert "guess" not in caplog.text


def test_flood_on_one_service_does_not_hold_up_another(users: Path) -> None:
    opened = threading.Event()
    order: list[bytes] = []

    def compare_in_order(entry: Entry | None, slowest: Entry, password: bytes) -> bool:
        order.append(password)
        assert opened.wait(30)
        return compare(entry, slowest, password)

    flooded, other = (Authenticator(config.Auth(htpasswd=users), compare=compare_in_order) for _ in range(2))

    async def scenario() -> None:
        guesses = [asyncio.ensure_future(flooded.authenticate(basic("bob", f"{n}"))) for n in range(60)]
        await until(lambda: len(order) > 0)
        welcome = asyncio.ensure_future(other.authenticate(basic("alice", "wonderland")))
        await asyncio.sleep(0)  # it has asked for its turn
        opened.set()
        await welcome
        await gathered(guesses)

    asyncio.run(scenario())
    assert order.index(b"wonderland") <= 2 * len(os.sched_getaffinity(0))


def test_leaving_client_leaves_the_verification_to_the_others(users: Path) -> None:
    gate = Gate(opened=False)
    authenticator = Authenticator(config.Auth(htpasswd=users), compare=gate)

    async def scenario() -> Identity:
        header = basic("alice", "wonderland")
        first = asyncio.ensure_future(authenticator.authenticate(header))
        second = asyncio.ensure_future(authenticator.authenticate(header))
        await until(lambda: gate.running == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open.set()
        return await second

    assert Identity("alice", Method.BASIC) == asyncio.run(scenario())
    assert gate.calls == 1


def test_request_after_all_others_have_left_starts_afresh(users: Path) -> None:
    gate = Gate(opened=False)
    authenticator = Authenticator(config.Auth(htpasswd=users), compare=gate)

    async def scenario() -> Identity:
        header = basic("alice", "wonderland")
        first = asyncio.ensure_future(authenticator.authenticate(header))
        await until(lambda: gate.running == 1)
        first.cancel()
        second = asyncio.ensure_future(authenticator.authenticate(header))
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open.set()
        return await second

    assert Identity("alice", Method.BASIC) == asyncio.run(scenario())


def test_keys_and_remembered_passwords_pass_while_guesses_are_queued(users: Path) -> None:
    gate = Gate()
    key = generate_key()
    auth = config.Auth(htpasswd=users, api_keys=[{"name": "robot", "hash": hash_key(key)}])
    authenticator = Authenticator(auth, compare=gate)

    async def scenario() -> list[Identity]:
        await authenticator.authenticate(basic("alice", "wonderland"))
        gate.open.clear()
        guesses = [
            asyncio.ensure_future(authenticator.authenticate(basic("bob", str(n)))) for n in range(100)
        ]
        await until(lambda: gate.running == 1)
        passed = [
            await authenticator.authenticate(header)
            for header in (basic("alice", "wonderland"), f"Bearer {key}")
        ]
        gate.open.set()
        await gathered(guesses)
        return passed

    assert [identity.name for identity in asyncio.run(scenario())] == ["alice", "robot"]


def test_secrets_are_in_no_repr(users: Path) -> None:
    key = generate_key()
    auth = config.Auth(htpasswd=users, api_keys=[{"name": "robot", "hash": hash_key(key)}])
    authenticator = Authenticator(auth)
    ask(authenticator, basic("alice", "wonderland"))
    shown = (
        repr(authenticator)
        + repr(vars(authenticator)["_file"])
        + repr(authenticator.remembered(f"Bearer {key}"))
    )
    for secret in ("wonderland", key, "$2b$", hash_key(key)):
        assert secret not in shown


def test_made_keys_are_recognisable_long_and_different() -> None:
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("autostart_") and len(key) >= len("autostart_") + 43 for key in keys)


def test_hash_of_a_key_is_what_the_configuration_accepts() -> None:
    key = generate_key()
    assert hash_key(key) == config.Auth(api_keys=[{"name": "k", "hash": hash_key(key)}]).api_keys[0].hash
    assert hash_key("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("key", ["", "two words", "naïve", "a:b", "line\n"])
def test_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        hash_key(key)
