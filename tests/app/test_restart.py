"""A restart of the whole program, with listening sockets that outlive it, as systemd hands them over."""

import os
import socket
import threading
from contextlib import contextmanager

import httpx
import pytest
from program import HOST, Gateway

RESTARTS = 10


class Client(threading.Thread):
    """Posts without a pause until `leave` is set; `answers` has what it heard, `failure` what went wrong."""

    def __init__(self, gateway: Gateway, body: bytes, limits: httpx.Limits) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.failure: httpx.HTTPError | None = None
        self.leave = threading.Event()
        self._url, self._body, self._limits = f"http://127.0.0.1:{gateway.port}/", body, limits

    def run(self) -> None:
        try:
            with httpx.Client(limits=self._limits, timeout=60, headers={"Host": HOST}) as client:
                while not self.leave.is_set():
                    answer = client.post(self._url, content=self._body).raise_for_status()
                    self.answers.append(int(answer.text))
        except httpx.HTTPError as exc:
            self.failure = exc


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
