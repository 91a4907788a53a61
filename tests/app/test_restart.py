"""A restart of the whole program, with listening sockets that outlive it, as systemd hands them over."""

import asyncio
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress

import aiohttp
import httpx
import pytest
from program import HOST, Gateway
from waiting import LIMIT_S

RESTARTS = 10


class Client(threading.Thread):
    """Posts without a pause until `leave` is set; `answers` has what it heard, `failure` what went wrong.

    One that `may_be_cut` takes no offence where a connection breaks that it had: it counts only what is refused.
    """

    def __init__(
        self, gateway: Gateway, body: bytes, limits: httpx.Limits, *, may_be_cut: bool = False
    ) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.cuts = 0
        self.failure: httpx.HTTPError | None = None
        self.leave = threading.Event()
        self._url, self._body, self._limits = f"http://127.0.0.1:{gateway.port}/", body, limits
        self._may_be_cut = may_be_cut

    def run(self) -> None:
        try:
            with httpx.Client(limits=self._limits, timeout=60, headers={"Host": HOST}) as client:
                while not self.leave.is_set():
                    self._post(client)
        except httpx.HTTPError as exc:
            self.failure = exc

    def _post(self, client: httpx.Client) -> None:
        try:
            answer = client.post(self._url, content=self._body).raise_for_status()
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            if not self._may_be_cut:
                raise
            self.cuts += 1
        else:
            self.answers.append(int(answer.text))


@pytest.mark.parametrize("kept", [0, 1], ids=["new-connections", "kept-connection"])
def test_ten_restarts_fail_no_post_where_the_sockets_are_handed_over(tmp_path, kept):
    gateway = Gateway(tmp_path)
    body = os.urandom(300_000)
    with socket.create_server(("127.0.0.1", gateway.port), backlog=128) as listener:
        gateway.start(listener)
        client = Client(gateway, body, httpx.Limits(max_keepalive_connections=kept))
        client.start()
        try:
            for _ in range(RESTARTS):
                answered = len(client.answers)
                gateway.until(lambda answered=answered: len(client.answers) > answered or client.failure)
                assert gateway.end() == 0
                gateway.start(listener)
        finally:
            client.leave.set()
            client.join(60)
            gateway.end()
    assert client.failure is None
    assert len(client.answers) >= RESTARTS
    assert set(client.answers) == {len(body)}


@contextmanager
def posting(clients: list[Client]):
    """Let them all post for as long as the `with` takes."""
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.leave.set()
        for client in clients:
            client.join(60)


def restart(gateway: Gateway, listener: socket.socket, clients: list[Client], how: signal.Signals) -> None:
    """End it by `how` once each client has been answered by it, and start another."""
    answered = [len(client.answers) for client in clients]
    gateway.until(
        lambda: all(
            client.failure or len(client.answers) > before
            for client, before in zip(clients, answered, strict=True)
        )
    )
    gateway.process.send_signal(how)
    assert gateway.process.wait(LIMIT_S) == (0 if how is signal.SIGTERM else -how)
    gateway.start(listener)


def eight_clients(gateway: Gateway, **options) -> list[Client]:
    body = os.urandom(30_000)
    limits = [httpx.Limits(max_keepalive_connections=number % 2) for number in range(8)]
    return [Client(gateway, body, limit, **options) for limit in limits]


def test_restarts_fail_no_post_of_many_clients_at_once(tmp_path):
    gateway = Gateway(tmp_path)
    clients = eight_clients(gateway)
    with socket.create_server(("127.0.0.1", gateway.port), backlog=128) as listener:
        gateway.start(listener)
        with posting(clients):
            for _ in range(3):
                restart(gateway, listener, clients, signal.SIGTERM)
        gateway.end()
    assert [client.failure for client in clients] == [None] * 8


def test_autostart_that_is_killed_refuses_no_connection_and_fails_nobody_who_comes_after(tmp_path):
    gateway = Gateway(tmp_path)
    clients = eight_clients(gateway, may_be_cut=True)
    with socket.create_server(("127.0.0.1", gateway.port), backlog=128) as listener:
        gateway.start(listener)
        with posting(clients):
            for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                restart(gateway, listener, clients, how)
        gateway.end()
    assert [client.failure for client in clients] == [None] * 8
    assert all(client.cuts <= 2 for client in clients)


async def told_by_socket(session: aiohttp.ClientSession, url: str, opened) -> object:
    """Return the Close code that a WebSocket hears."""
    async with session.ws_connect(f"{url}/socket") as web_socket:
        assert (await web_socket.receive()).data == "hello"
        opened()
        return (await web_socket.receive()).data


async def told_by_stream(session: aiohttp.ClientSession, url: str, opened) -> object:
    """Return what an event stream is for who reads it to its end."""
    async with session.get(f"{url}/events") as answer:
        assert await answer.content.readline() == b"data: 1\n"
        opened()
        with suppress(aiohttp.ClientPayloadError):
            await answer.read()
            return "complete"
        return "incomplete"


@pytest.mark.parametrize(("told", "expected"), [(told_by_socket, 1012), (told_by_stream, "incomplete")])
def test_what_has_no_end_is_told_at_each_restart_and_comes_again_without_being_refused(
    tmp_path, told, expected
):
    gateway = Gateway(tmp_path, drainTimeout="0.1s")

    async def come_again(listener, restarts: int) -> list[object]:
        opened = asyncio.Queue()
        url = f"http://127.0.0.1:{gateway.port}"

        async def client() -> list[object]:
            async with aiohttp.ClientSession(headers={"Host": HOST}) as session:
                return [await told(session, url, lambda: opened.put_nowait(None)) for _ in range(restarts)]

        coming = asyncio.create_task(client())
        for _ in range(restarts):
            await asyncio.wait({coming, asyncio.ensure_future(opened.get())}, return_when="FIRST_COMPLETED")
            assert await asyncio.to_thread(gateway.end) == 0
            await asyncio.to_thread(gateway.start, listener)
        return await coming

    with socket.create_server(("127.0.0.1", gateway.port)) as listener:
        gateway.start(listener)
        try:
            heard = asyncio.run(asyncio.wait_for(come_again(listener, 2), 2 * LIMIT_S))
        finally:
            gateway.end()
    assert heard == [expected] * 2


@contextmanager
def draining(gateway: Gateway):
    """Tell it to end while a request is open, which is let go, and has to be answered, after the body."""
    answers = []
    slow = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
    slow.start()
    gateway.until(gateway.is_in_use)
    gateway.process.terminate()
    gateway.until(lambda: "draining" in gateway.log.read_text())
    try:
        yield
    finally:
        gateway.let_go()
        slow.join()
        assert gateway.process.wait(30) == 0
    assert [answer.status_code for answer in answers] == [200]


def test_a_request_that_comes_on_a_kept_connection_while_draining_is_answered_and_hears_that_it_was_the_last(
    tmp_path,
):
    gateway = Gateway(tmp_path)
    url = f"http://127.0.0.1:{gateway.port}"
    with (
        socket.create_server(("127.0.0.1", gateway.port)) as listener,
        httpx.Client(base_url=url, headers={"Host": HOST}) as kept,
    ):
        gateway.start(listener)
        kept.get("/pid")
        with draining(gateway):
            last = kept.get("/pid")
    assert (last.status_code, last.headers["Connection"]) == (200, "close")


def test_without_sockets_of_systemd_a_request_that_comes_while_draining_is_told_to_come_again(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.start()
    with draining(gateway):
        refused = gateway.get("/pid")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert "Retry-After" in refused.headers
