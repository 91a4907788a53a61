"""Sockets of which one side has said all it has to say, trailers, and pieces that keep their edges."""

import asyncio
import gzip

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until

GET = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize(
    ("method", "phase"), [("GET", "waiting"), ("HEAD", "waiting"), ("GET", "quiet stream")]
)
def test_a_client_that_closes_its_side_has_gone(run, kind, phase, method):
    """What arrives is the same as from one that has left, and the service would compute on for nobody."""

    async def serve(request):
        asked.set()
        try:
            if phase == "quiet stream":
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                await response.write(b"data: 1\n\n")
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway:
            if kind == "unix":
                reader, writer = await asyncio.open_unix_connection(gateway.unix)
            else:
                reader, writer = await gateway.connect()
            writer.write(GET.replace(b"GET", method.encode()))
            await asked.wait()
            if phase == "quiet stream":
                await reader.readuntil(b"\r\n\r\n")
            writer.write_eof()
            await cancelled.wait()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "client_gone"
            assert gateway.service.snapshot().leases == ()
            writer.close()

    run(check())


def test_a_client_that_closes_its_side_of_a_kept_connection_is_let_go(run):
    async def check():
        async with open_gateway() as gateway:
            reader, writer = await gateway.connect()
            writer.write(GET)
            await reader.readuntil(b"hello")
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    run(check())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 4", b"Connection: close", b"Transfer-Encoding: chunked"]
)
def test_a_service_that_closes_its_side_behind_its_answer_is_heard_out(run, framing):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b"4\r\ndone\r\n0\r\n\r\n" if b"chunked" in framing else b"done"
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + body)
        writer.write_eof()
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            for _ in range(2):
                async with gateway.ask() as answer:
                    assert (answer.status, await answer.read()) == (200, b"done")

    run(check())


def test_a_service_that_closes_its_side_without_an_answer_is_502(run):
    async def raw(reader, writer):
        writer.write_eof()
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway, gateway.ask("POST", data=b"body") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, "upstream_failed")

    run(check())


def test_trailers_are_dropped_both_ways(run):
    """Nobody asks us for them: TE is hop-by-hop. A header must not come by a way that no rule looks at."""
    seen: list[bytes] = []

    async def raw(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        assert await reader.readuntil(b"hello\r\n0\r\n") == b"5\r\nhello\r\n0\r\n"
        seen.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            seen.clear()
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTE: trailers\r\nTrailer: Authorization\r\n"
            body = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
            said = await gateway.say(head + body)
            assert said.endswith(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            assert b"Trailer" not in said
            assert seen[-1] == b"\r\n"
            assert b"Authorization" not in seen[0]
            assert b"Trailer" not in seen[0]

    run(check())


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_each_event_arrives_by_itself(run, coding):
    """No event waits for the next one, and compressed ones stay as they are."""
    events = [f"data: {number}\n\n".encode() for number in range(5)]
    sent = [gzip.compress(event) for event in events] if coding == "gzip" else events

    async def serve(request):
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Content-Encoding": coding}
        )
        await response.prepare(request)
        for event in sent:
            await response.write(event)
            await arrived.get()
        return response

    arrived: asyncio.Queue = asyncio.Queue()

    async def check():
        async with open_gateway(serve) as gateway:
            reader, writer = await gateway.connect()
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            for event in sent:
                size = int(await reader.readline(), 16)
                assert await reader.readexactly(size + 2) == event + b"\r\n"
                arrived.put_nowait(None)
            assert await reader.readline() == b"0\r\n"
            writer.close()

    run(check())


def test_each_piece_of_an_upload_arrives_by_itself(run):
    async def serve(request):
        for _ in range(5):
            pieces.append(await request.content.readany())
            arrived.put_nowait(None)
        return web.Response()

    pieces: list[bytes] = []
    arrived: asyncio.Queue = asyncio.Queue()

    async def upload():
        for number in range(5):
            yield b"piece %d" % number
            await arrived.get()

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask("POST", data=upload()) as answer:
            assert answer.status == 200
            assert pieces == [b"piece %d" % number for number in range(5)]

    run(check())
