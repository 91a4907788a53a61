"""Clients that do not finish what they began, services and clients whose headers have no end."""

import asyncio
import io
import json

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until

from autostart.proxy.server import Patience

HASTY = Patience(header_s=0.05, keep_alive_s=600.0)
GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
POST = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\n".encode()
MB = 1_000_000


def told(said: bytes) -> tuple[int, str]:
    """The status and the code of the one error that was said."""
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("head", [b"G", b"GET / HTTP/1.1\r\n", GET[:-2], GET[:-1]])
def test_headers_that_are_not_finished_in_time_are_408_and_wake_nothing(run, head):
    async def check():
        async with open_gateway(asleep=True, patience=HASTY) as gateway:
            assert told(await gateway.say(head)) == (408, "header_timeout")
            assert gateway.runtime.starts == 0

    run(check())


def test_headers_that_trickle_get_no_more_time(run):
    async def check():
        async with open_gateway(asleep=True, patience=HASTY) as gateway:
            reader, writer = await gateway.connect()
            writer.write(b"GET / HTTP/1.1\r\n")
            answer = asyncio.ensure_future(reader.read())
            while not answer.done():
                writer.write(b"X: 1\r\n")
                await asyncio.sleep(0.01)
            assert told(answer.result()) == (408, "header_timeout")
            writer.close()

    run(check())


def test_a_client_that_says_nothing_is_let_go_without_a_word(run):
    async def check():
        async with open_gateway(patience=HASTY) as gateway:
            assert await gateway.say(b"") == b""

    run(check())


def test_a_connection_that_is_idle_too_long_ends_and_until_then_has_no_other_limit(run):
    async def check():
        async with open_gateway(patience=Patience(header_s=0.05, keep_alive_s=0.3)) as gateway:
            reader, writer = await gateway.connect()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            writer.write(GET)
            await reader.readuntil(b"hello")
            assert await reader.read() == b""
            assert loop.time() - begun > 0.2
            writer.close()

    run(check())


def test_the_second_request_of_a_connection_has_its_time_too(run):
    async def check():
        async with open_gateway(patience=HASTY) as gateway:
            reader, writer = await gateway.connect()
            writer.write(GET)
            await reader.readuntil(b"hello")
            writer.write(GET[:-1])
            assert told(await reader.read()) == (408, "header_timeout")
            writer.close()

    run(check())


def test_while_a_request_is_answered_the_next_one_may_take_its_time(run):
    async def serve(request):
        if request.path == "/slow":
            asked.set()
            await asyncio.sleep(1.9 * patience.header_s)  # what is tried: longer than the headers may take
        return web.Response(text="done")

    asked = asyncio.Event()
    patience = Patience(header_s=0.6, keep_alive_s=600.0)

    async def check():
        async with open_gateway(serve, patience=patience) as gateway:
            reader, writer = await gateway.connect()
            writer.write(GET.replace(b" / ", b" /slow "))
            await asked.wait()
            writer.write(GET[:-1])
            await reader.readuntil(b"done")
            await asyncio.sleep(
                patience.header_s / 3
            )  # what is tried: longer than what a clock that ran would leave
            writer.write(GET[-1:])
            assert b" 200 OK" in await reader.readuntil(b"done")
            writer.close()

    run(check())


def test_a_long_answer_and_a_long_upload_are_not_cut_by_the_limit_for_headers(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(await request.content.readexactly(5))
        await response.write(await request.content.readexactly(5))
        return response

    async def check():
        async with open_gateway(serve, patience=HASTY) as gateway:
            reader, writer = await gateway.connect()
            writer.write(POST + b"first")
            await reader.readuntil(b"first")
            await asyncio.sleep(4 * HASTY.header_s)  # what is tried
            writer.write(b"later")
            await reader.readuntil(b"later")
            writer.close()

    run(check())


def test_a_body_that_stops_is_408_and_the_service_is_told(run):
    async def serve(request):
        try:
            await request.read()
        finally:
            ended.set()

    ended = asyncio.Event()

    async def check():
        async with open_gateway(serve, bodyTimeout=0.05) as gateway:
            reader, writer = await gateway.connect()
            writer.write(POST + b"begun")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 408")
            assert b"Connection: close" in head
            await reader.readuntil(b'"code": "body_timeout"')
            await ended.wait()
            writer.close()
            await until(lambda: gateway.ended)
            assert (gateway.ended[0].status, gateway.ended[0].code) == (408, "body_timeout")
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_a_body_that_stops_when_its_answer_has_begun_is_cut_and_said_to_be_the_clients_fault(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await request.read()
        return response

    async def check():
        async with open_gateway(serve, bodyTimeout=0.05) as gateway:
            said = await gateway.say(POST + b"b")
            assert said.startswith(b"HTTP/1.1 200")
            assert not said.endswith(b"0\r\n\r\n")
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "body_timeout"
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_a_pause_in_the_body_while_its_service_starts_is_not_counted(run):
    async def serve(request):
        return web.Response(text=await request.text())

    async def check():
        async with open_gateway(serve, start_gate=True, bodyTimeout=0.5) as gateway:
            reader, writer = await gateway.connect()
            writer.write(POST + b"begun")
            await until(lambda: len(gateway.proxy._parking) == 1)
            await asyncio.sleep(0.6)  # what is tried: longer than the limit
            gateway.runtime.gate.set()
            writer.write(b"ended")
            assert b" 200 OK" in await reader.readuntil(b"begunended")
            writer.close()

    run(check())


def test_time_in_which_the_service_takes_nothing_is_not_the_clients(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        await until(lambda: len(gateway.proxy._parking) == 1)
        await asyncio.sleep(0.3)  # what is tried: longer than the limit
        writer.transport.resume_reading()
        await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    size = 30 * MB
    gateway = None

    async def check():
        nonlocal gateway
        async with (
            open_gateway(raw=raw, bodyTimeout=0.2) as gateway,
            gateway.ask("POST", data=io.BytesIO(bytes(size))) as answer,
        ):
            assert answer.status == 200

    run(check())


def endless(kind: str) -> bytes:
    """A head of 10 MB."""
    match kind:
        case "many headers":
            return GET[:-2] + b"".join(b"X-%d: 1\r\n" % number for number in range(800_000)) + b"\r\n"
        case "large headers":
            return GET[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 30_000) for n in range(334)) + b"\r\n"
        case "one header":
            return GET[:-2] + b"X: " + b"x" * 10 * MB + b"\r\n\r\n"
        case "one name":
            return GET[:-2] + b"x" * 10 * MB + b": x\r\n\r\n"
        case "request line":
            return GET.replace(b"/ ", b"/" + b"x" * 10 * MB + b" ")
        case "no line end":
            return b"GET /" + b"x" * 10 * MB
        case _:
            raise ValueError(kind)


KINDS = ["many headers", "large headers", "one header", "one name", "request line", "no line end"]


@pytest.mark.parametrize("kind", KINDS)
def test_10_mb_of_headers_are_refused_and_wake_nothing(run, kind):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            assert told(await gateway.say(endless(kind))) == (431, "headers_too_large")
            assert gateway.runtime.starts == 0

    run(check())


@pytest.mark.parametrize("way", ["at once", "in two pieces", "without an end"])
def test_headers_of_70_kb_are_refused_however_they_come(run, way):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            head = GET[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 10_000) for n in range(7))
            reader, writer = await gateway.connect()
            if way == "in two pieces":
                writer.write(head[:1])
                for _ in range(3):
                    await asyncio.sleep(0)
                head = head[1:]
            writer.write(head + (b"" if way == "without an end" else b"\r\n"))
            assert told(await reader.read()) == (431, "headers_too_large")
            writer.close()

    run(check())


def test_headers_that_are_too_large_are_refused_also_where_another_request_comes_with_them(run):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            reader, writer = await gateway.connect()
            await until(lambda: gateway.proxy._server.connections)
            [connection] = gateway.proxy._server.connections
            head = GET[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 10_000) for n in range(7))
            connection.data_received(head + b"\r\n" + GET)  # in one piece, which a socket does not promise
            assert told(await reader.read()) == (431, "headers_too_large")
            assert gateway.runtime.starts == 0
            writer.close()

    run(check())


def test_who_was_refused_and_sends_on_is_refused_once(run):
    async def serve(request):
        asked.set()
        await asyncio.Event().wait()

    asked = asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway:
            _, writer = await gateway.connect()
            writer.write(GET)
            await asked.wait()
            [connection] = gateway.proxy._server.connections
            connection.data_received(GET[:-2])
            for number in range(20):
                connection.data_received(b"X-%d: %s\r\n" % (number, b"x" * 10_000))
            assert len(connection._messages) == 1
            writer.close()

    run(check())


def test_headers_of_50_kb_pass_both_ways(run):
    many = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 10_000) for number in range(5))

    async def raw(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + head[head.index(b"X-0") :][: len(many)] + b"\r\nok"
        )
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            said = await gateway.say(GET[:-2] + many + b"Connection: close\r\n\r\n")
            assert said.startswith(b"HTTP/1.1 200")
            assert many in said

    run(check())


@pytest.mark.parametrize("kind", ["many headers", "large headers", "one header", "one name", "no line end"])
def test_10_mb_of_headers_of_a_service_are_502_with_the_reason(run, kind):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 " if kind == "no line end" else b"HTTP/1.1 200 OK\r\n")
        writer.write(endless(kind).partition(b"\r\n" if kind != "no line end" else b"/")[2])
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway, gateway.ask() as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (502, "upstream_failed")
            assert error["message"].endswith("its headers are too large")

    run(check())
