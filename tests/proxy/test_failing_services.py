"""Services that refuse, break off, stay silent or die, and clients that leave."""

import asyncio
import errno
import hashlib
import io
import os
import socket
import struct

import aiohttp
import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from processes import free_port
from waiting import until

from autostart.proxy.connections import Connection
from autostart.runtime.base import Endpoint


def reset(writer) -> None:
    """Close the connection so that the other end sees a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def told(answer) -> tuple[int, str]:
    return answer.status, (await answer.json())["error"]["code"]


def test_a_refused_connection_is_502(run):
    async def check():
        async with open_gateway() as gateway:
            gateway.service._endpoint = Endpoint("127.0.0.1", free_port())
            for method in ("GET", "POST"):
                async with gateway.ask(method, data=b"x" if method == "POST" else None) as answer:
                    assert await told(answer) == (502, "upstream_failed")
            assert gateway.service.snapshot().leases == ()

    run(check())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 O", b"not http at all\r\n\r\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_service_that_breaks_off_before_its_answer_is_502(run, said, method):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)

    async def check():
        async with (
            open_gateway(raw=raw) as gateway,
            gateway.ask(method, data=b"body" if method == "POST" else None) as answer,
        ):
            assert await told(answer) == (502, "upstream_failed")

    run(check())


def test_a_kept_connection_that_turns_out_dead_is_replaced_once(run):
    requests: list[bytes] = []

    async def raw(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head.split()[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        head = await reader.readuntil(b"\r\n\r\n")  # and now it leaves without an answer
        requests.append(head.split()[1])

    async def check():
        async with open_gateway(raw=raw) as gateway:
            for number in (1, 2):
                async with gateway.ask("GET", f"/{number}") as answer:
                    assert await answer.read() == b"ok"
            assert requests == [b"/1", b"/2", b"/2"]

    run(check())


@pytest.mark.parametrize(("method", "body", "times"), [("GET", None, 2), ("PUT", b"body", 1)])
def test_a_service_that_leaves_without_an_answer_is_asked_again_only_where_nothing_was_uploaded(
    run, method, body, times
):
    requests: list[bytes] = []

    async def raw(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    async def check():
        async with open_gateway(raw=raw) as gateway, gateway.ask(method, data=body) as answer:
            assert await told(answer) == (502, "upstream_failed")
        assert len(requests) == times

    run(check())


def test_an_upload_never_meets_a_dead_connection_and_is_never_sent_twice(run):
    requests: list[bytes] = []

    async def raw(reader, writer):
        requests.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        if requests[-1] == b"POST":
            await reader.readexactly(4)
            if requests.count(b"POST") == 2:
                return  # breaks off after the body has come
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        requests.append(b"on a kept connection")

    async def check():
        async with open_gateway(raw=raw) as gateway:
            async with gateway.ask() as answer:
                assert answer.status == 200
            async with gateway.ask("POST", data=b"body") as answer:
                assert answer.status == 200
            async with gateway.ask("POST", data=b"body") as answer:
                assert await told(answer) == (502, "upstream_failed")
            assert requests == [b"GET", b"POST", b"POST"]

    run(check())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked", b"Connection: close"]
)
def test_an_answer_that_is_cut_does_not_look_complete(run, framing):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\n"
            + framing
            + b"\r\n\r\n"
            + (b"5\r\npart1\r\n" if b"chunked" in framing else b"part1")
        )
        await writer.drain()
        await got_part.wait()
        reset(writer)

    got_part = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"part1")
            got_part.set()
            rest = await reader.read()
            assert b"0\r\n\r\n" not in rest
            writer.close()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "answer_cut"

    run(check())


def test_a_cut_answer_to_http_1_0_ends_with_a_reset(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\npart1\r\n")
        await writer.drain()
        await got_part.wait()

    got_part = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            writer.write(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(b"part1")
            got_part.set()
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(check())


def test_an_answer_that_comes_before_the_service_resets_an_upload_is_passed_on(run):
    """The write that fails is seen before the answer that waits to be read."""

    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(100_000)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nhuge")
        reset(writer)

    async def pieces():
        while True:
            yield b"x" * 100_000

    async def check():
        async with open_gateway(raw=raw) as gateway:
            for _ in range(10):
                async with gateway.ask("POST", data=pieces()) as answer:
                    assert (answer.status, await answer.read()) == (413, b"huge")

    run(check())


def test_a_write_that_fails_leaves_room_for_the_answer_that_waits_to_be_read(run):
    class Broken(asyncio.Transport):
        def is_closing(self):
            return True

    async def check():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            connection = Connection(asyncio.get_running_loop())
            connection.connection_made(Broken({"socket": ours}))
            connection.set_response_params()
            answer = asyncio.ensure_future(connection.read())
            await asyncio.sleep(0)  # it waits
            connection.set_exception(aiohttp.ClientOSError(errno.EPIPE, "cannot write the body"))
            connection.connection_lost(BrokenPipeError(errno.EPIPE, "broken pipe"))
            message, _ = await answer
            assert message.code == 413

    run(check())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_silence_beyond_the_response_timeout_is_504(run, method):
    async def raw(reader, writer):
        await reader.read()

    async def check():
        async with (
            open_gateway(raw=raw, responseTimeout=0.05) as gateway,
            gateway.ask(method, data=b"x" if method == "POST" else None) as answer,
        ):
            assert await told(answer) == (504, "upstream_timeout")

    run(check())


def test_the_time_of_the_start_is_not_the_time_of_the_answer(run):
    limit_s = 2.0

    async def check():
        async with open_gateway(start_gate=True, responseTimeout=limit_s) as gateway:
            asyncio.get_running_loop().call_later(limit_s + 0.1, gateway.runtime.gate.set)
            async with gateway.ask() as answer:
                assert answer.status == 200

    run(check())


def test_a_service_that_does_not_take_the_upload_is_504(run):
    async def raw(reader, writer):
        await asyncio.Event().wait()

    async def pieces():
        for _ in range(500):
            yield b"x" * 100_000

    async def check():
        async with (
            open_gateway(raw=raw, responseTimeout=0.05) as gateway,
            gateway.ask("POST", data=pieces()) as answer,
        ):
            assert await told(answer) == (504, "upstream_timeout")

    run(check())


def test_a_slow_upload_is_not_the_services_silence(run):
    async def pieces():
        yield b"first"
        await asyncio.sleep(1.2)  # a slow client: longer than the timeout
        yield b"last"

    async def serve(request):
        return web.Response(text=await request.text())

    async def check():
        async with (
            open_gateway(serve, responseTimeout=1) as gateway,
            gateway.ask("POST", data=pieces()) as answer,
        ):
            assert (answer.status, await answer.text()) == (200, "firstlast")

    run(check())


def test_a_pause_in_the_answer_is_no_silence(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(1.2)  # longer than the timeout, which counts until the headers only
        await response.write(b"late")
        return response

    async def check():
        async with open_gateway(serve, responseTimeout=1) as gateway, gateway.ask() as answer:
            assert await answer.read() == b"late"

    run(check())


@pytest.mark.parametrize("begins", [False, True])
def test_when_the_client_has_gone_the_service_is_told(run, begins):
    async def serve(request):
        asked.set()
        try:
            if begins:
                response = web.StreamResponse()
                await response.prepare(request)
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway:
            _, writer = await gateway.connect()
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await asked.wait()
            writer.close()
            await cancelled.wait()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "client_gone"
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_a_client_that_leaves_in_the_middle_of_its_upload_ends_it(run):
    async def serve(request):
        started.set()
        try:
            await request.read()
        except (web.RequestPayloadError, ConnectionError, asyncio.CancelledError):
            broken.set()
            raise

    started, broken = asyncio.Event(), asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway:
            _, writer = await gateway.connect()
            writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\nbegun".encode())
            await started.wait()
            writer.close()
            await broken.wait()
            await until(lambda: gateway.ended)

    run(check())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("sent", [1_000, 1_000_000, 30_000_000])
def test_a_client_that_leaves_while_the_service_takes_nothing_is_noticed(run, kind, sent):
    async def raw(reader, writer):
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            if kind == "unix":
                _, writer = await asyncio.open_unix_connection(gateway.unix)
            else:
                _, writer = await gateway.connect()
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 50000000\r\n\r\n"
            writer.write(head.encode() + b"x" * sent)
            await until(lambda: gateway.service.snapshot().in_flight)
            writer.close()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "client_gone"
            assert gateway.service.snapshot().leases == ()
            assert len(gateway.proxy._parking) == 0
            assert gateway.proxy._parking._area.left_bytes == 2**30

    run(check())


def test_an_upload_arrives_whole_though_the_service_takes_nothing_for_a_while_twice(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for size in (10_000_000, 5_000_000):
            writer.transport.pause_reading()
            await until(lambda: len(gateway.proxy._parking) == 1)
            writer.transport.resume_reading()
            digest.update(await reader.readexactly(size))
        digest.update(await reader.readexactly(len(body) - 15_000_000))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest.hexdigest().encode())
        await writer.drain()

    body = os.urandom(40_000_000)

    async def check():
        nonlocal gateway, digest
        digest = hashlib.sha256()
        async with open_gateway(raw=raw) as gateway:
            async with gateway.ask("POST", data=io.BytesIO(body)) as answer:
                assert await answer.text() == hashlib.sha256(body).hexdigest()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].bytes_in == len(body)
            assert gateway.proxy._parking._area.left_bytes == 2**30

    gateway = digest = None
    run(check())


def test_a_malformed_chunk_is_400_and_breaks_the_request_off(run, caplog):
    async def serve(request):
        started.set()
        await request.read()
        raise AssertionError("the body never ends")

    started = asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway:
            reader, writer = await gateway.connect()
            writer.write(
                f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode()
            )
            await started.wait()
            writer.write(b"zz\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400")
            writer.close()

    run(check())
    assert not [record for record in caplog.records if record.name.startswith(("aiohttp", "autostart"))]


def test_a_mistake_of_ours_is_told_without_a_traceback(run, caplog):
    async def check():
        async with open_gateway() as gateway:
            gateway.proxy.routes = {HOST: object()}
            async with gateway.ask() as answer:
                text = await answer.text()
                assert (answer.status, (await answer.json())["error"]["code"]) == (500, "internal_error")
                assert "Traceback" not in text
                assert "object" not in text

    run(check())
    assert "a mistake in autostart" in caplog.text
