"""Connections that stall, end early, or offer what this server does not speak."""

import select
import socket

import pytest
from speech_app import FakeEngine, Served, form_request, wav
from speech_common.wire import HttpProtocol
from waiting import LIMIT_S, block_until

UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")


@pytest.fixture
def engine():
    return FakeEngine(" Hello.")


def connect(served):
    return socket.create_connection(served.address, timeout=LIMIT_S)


def answer_of(connection):
    """Return status line, headers and body of the next answer on a connection, and leave what follows there."""
    with connection.makefile("rb", buffering=0) as lines:
        status = lines.readline().decode().strip()
        headers = dict(line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
    body = connection.recv(int(headers["content-length"]), socket.MSG_WAITALL)
    return status, headers, body


def connections(served):
    return list(served.server.server_state.connections)


# What stalls.


@pytest.mark.parametrize("sent", [200, -30], ids=["fields", "file"])
def test_body_that_stalls_is_408_that_is_not_retried_and_the_connection_ends(engine, sent):
    with Served(engine, stalled_after_s=0.05) as served, connect(served) as connection:
        connection.sendall(form_request(wav())[:sent])
        status, headers, body = answer_of(connection)
        assert status == "HTTP/1.1 408 Request Timeout"
        assert b'"code":"request_timeout"' in body
        assert b"came for 0.05 s" in body
        assert (headers["x-should-retry"], headers["connection"]) == ("false", "close")
        assert connection.recv(1) == b""
        assert served.get("/health/busy").json() == {"busy": False}


def test_body_of_which_hardly_anything_comes_is_408(engine):
    """A byte now and then would hold a place in the queue for ever."""
    with Served(engine, stalled_after_s=0.3) as served, connect(served) as connection:
        connection.sendall(form_request(wav())[:200])
        answered = []
        while not answered:
            connection.sendall(b"\0")
            answered, _, _ = select.select([connection], [], [], 0.03)
        assert answer_of(connection)[0] == "HTTP/1.1 408 Request Timeout"
        assert served.get("/health/busy").json() == {"busy": False}


def test_body_that_comes_slowly_is_received(engine):
    request = form_request(wav())
    with Served(engine, stalled_after_s=LIMIT_S) as served, connect(served) as connection:
        for first in range(0, len(request), 400):
            connection.sendall(request[first : first + 400])
            served.get("/health/live")  # by now it was read
        assert answer_of(connection)[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("head", [b"", b"P", b"POST / HTTP/1.1\r\nhost: a\r\n"])
def test_head_that_is_not_complete_in_time_ends_the_connection(served, monkeypatch, head):
    monkeypatch.setattr(HttpProtocol, "head_within_s", 0.05)
    with connect(served) as connection:
        connection.sendall(head)
        assert connection.recv(1) == b""


def test_next_head_on_a_connection_has_its_time_too(served, monkeypatch):
    with connect(served) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert answer_of(connection)[0] == "HTTP/1.1 200 OK"
        monkeypatch.setattr(HttpProtocol, "head_within_s", 0.05)
        connection.sendall(b"GET /hea")
        assert connection.recv(1) == b""


def test_line_after_the_body_does_not_end_what_is_being_answered(served, monkeypatch):
    """Old clients send one; it is the beginning of a next head."""
    served.engine.text = None
    monkeypatch.setattr(HttpProtocol, "head_within_s", 0.05)
    with connect(served) as connection:
        connection.sendall(form_request(wav()) + b"\r\n")
        call = served.engine.call()
        connection.sendall(b"\r\n")
        block_until(lambda: all(each._limit is not None for each in connections(served)))
        block_until(lambda: all(each._limit is None for each in connections(served)))
        call.end()
        assert answer_of(connection)[0] == "HTTP/1.1 200 OK"


def test_who_lost_the_network_is_missed(served):
    with connect(served):
        block_until(lambda: connections(served))
        (accepted,) = connections(served)
        descriptor = accepted.transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=socket.dup(descriptor)) as looked_at:
            assert looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            options = [looked_at.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
    assert options == [60, 15, 4]


# What ends early.


def refused(served, request, status):
    """Send the beginning of a request, look at its refusal, and return the connection as it is then."""
    connection = connect(served)
    connection.sendall(request)
    line, headers, _ = answer_of(connection)
    assert (line.split()[1], headers["connection"]) == (status, "close")
    return connection


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("content-encoding: gzip", "415"),
        ("authorization: Bearer wrong", "401"),
        ("content-length: 600000000", "413"),
    ],
)
def test_answer_to_a_body_that_was_not_read_ends_the_connection(engine, header, status):
    keys = {"API_KEYS": "right"} if status == "401" else {}
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n{header}\r\n\r\n"
    )
    if status == "413":
        head = head.replace("transfer-encoding: chunked\r\n", "")
    with Served(engine, **keys) as served, refused(served, head.encode() + b"5\r\n", status) as connection:
        assert connection.recv(1) == b""
        connection.sendall(b"the rest of it" * 100_000)  # is passed over, and no reset destroys the answer
    with Served(engine) as served:
        block_until(lambda: not connections(served))


def send_on_and_on(connection):
    """For far longer than it may linger: a gigabyte takes most of a second."""
    for _ in range(10_000):
        connection.sendall(bytes(100_000))


def test_who_goes_on_sending_what_was_refused_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(HttpProtocol, "lingers_s", 0.05)
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\ncontent-length: 600000000000\r\n\r\n"
    with refused(served, head, "413") as connection, pytest.raises(ConnectionError):
        send_on_and_on(connection)


def test_answer_to_a_body_that_was_read_keeps_the_connection(served):
    with connect(served) as connection:
        for fields, status in (({"colour": "red"}, "400"), ({}, "200")):
            connection.sendall(form_request(wav(), **fields))
            line, headers, _ = answer_of(connection)
            assert line.split()[1] == status
            assert "connection" not in headers


def test_client_that_leaves_with_more_requests_on_their_way_frees_the_worker(served):
    """Uvicorn tells the last request that came, and it is the first that works."""
    served.engine.text = None
    with connect(served) as connection:
        connection.sendall(form_request(wav()) * 2)
        call = served.engine.call()
        (job,) = served.jobs._working
    block_until(lambda: job.has_ended)
    assert job.state == "cancelled"
    call.look()
    assert call.has_ended.wait(LIMIT_S)
    block_until(lambda: not served.get("/health/busy").json()["busy"])
    assert served.engine.has_no_more_calls()


# What this server does not speak.


@pytest.mark.parametrize(
    "cut", [None, 10, 150, 400], ids=["whole", "in-the-line", "in-the-head", "in-the-body"]
)
def test_offer_of_another_protocol_is_passed_over_and_the_body_read(served, cut):
    request = form_request(wav(), *UPGRADE)
    with connect(served) as connection:
        for _ in range(2):
            connection.sendall(request[:cut])
            if cut:
                served.get("/health/live")  # by now the first part has been read
                connection.sendall(request[cut:])
            status, headers, body = answer_of(connection)
            assert status == "HTTP/1.1 200 OK"
            assert b'"text": "Hello."' in body
            assert "upgrade" not in headers


def test_offers_in_requests_that_come_together_are_passed_over(served):
    with connect(served) as connection:
        connection.sendall(
            form_request(wav(), *UPGRADE) + form_request(wav()) + form_request(wav(), *UPGRADE)
        )
        for _ in range(3):
            status, _, body = answer_of(connection)
            assert status == "HTTP/1.1 200 OK"
            assert b"Hello." in body


@pytest.mark.parametrize("line", [b"CONNECT a:80 HTTP/1.1", b"CONNECT / HTTP/1.1"])
def test_tunnel_is_refused(served, line):
    with connect(served) as connection:
        connection.sendall(line + b"\r\nhost: a\r\n\r\n")
        assert connection.recv(10) == b"HTTP/1.1 4"
    assert served.get("/health/live").status_code == 200
