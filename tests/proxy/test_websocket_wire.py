"""WebSockets to the byte: what no client library would send, and what is said when autostart stops."""

import asyncio
import functools
import itertools

import pytest
from frames import (
    ACCEPTED,
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    asking,
    close,
    frame,
    head,
    read_frame,
)
from gateways import HOST, open_gateway
from waiting import LIMIT_S, until

from autostart.proxy.frames import Frames, close_frame


def said(masked: bool) -> dict[str, bytes]:
    """What an end says, by name; with a mask where it is the client."""

    def one(opcode, payload=b"", **options):
        return frame(opcode, payload, masked=masked, **options)

    return {
        **{f"close-{code}": close(code, "grüße", masked=masked) for code in (1000, 1001, 1011, 3000, 4999)},
        "close-without-code": one(CLOSE),
        "close-with-the-longest-reason": close(4000, "x" * 123, masked=masked),
        "ping-and-pong": one(PING, b"p" * 125) + one(PONG, b"unasked") + one(PING),
        "control-between-fragments": one(TEXT, b"one", final=False)
        + one(PING, b"now")
        + one(CONTINUATION, b"two", final=False)
        + one(CONTINUATION),
        "reserved-bits-and-opcodes": one(TEXT, b"deflated", reserved=0b100)
        + one(0x3, b"x", reserved=0b011)
        + one(0xF),
        "lengths-longer-than-need-be": one(BINARY, b"x" * 5, length_bytes=8)
        + one(BINARY, b"", length_bytes=2),
        "largest-16-bit-and-smallest-64-bit-length": one(BINARY, b"x" * 65_535) + one(BINARY, b"x" * 65_536),
        "half-a-frame": head(BINARY, 2**40, masked=masked) + b"only this",
        "half-a-header": head(BINARY, 2**40, masked=masked)[:5],
    }


@pytest.mark.parametrize("end", ["client", "service"])
@pytest.mark.parametrize("what", said(False))
def test_what_one_end_says_the_other_hears_to_the_byte(run, end, what):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        if end == "service":
            writer.write(words)  # with the acceptance; then it leaves at once
        else:
            heard.set_result(await reader.read())

    words = said(end == "client")[what]

    async def check():
        nonlocal heard
        heard = asyncio.get_running_loop().create_future()
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            writer.write(asking(HOST))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            if end == "client":
                writer.write(words)
                writer.close()
                assert await heard == words
            else:
                assert await reader.read() == words
                writer.close()
            await until(lambda: gateway.ended)
            (event,) = gateway.ended
            assert (event.bytes_in, event.bytes_out) == (
                (len(words), 0) if end == "client" else (0, len(words))
            )

    heard = None
    run(check())


def test_a_client_that_pours_before_it_is_accepted_is_held_back(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        await seen.wait()

    async def pour(writer):
        nonlocal poured
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            poured += 65536

    async def stands_still():
        before = -1
        while poured != before:
            before = poured
            await asyncio.sleep(0.2)

    poured = 0
    seen = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw, start_gate=True) as gateway:
            reader, writer = await gateway.connect(limit=65536)
            writer.write(asking(HOST))
            pouring = asyncio.ensure_future(pour(writer))
            await until(lambda: gateway.service.snapshot().waiting == 1 and poured > 2**18)
            async with asyncio.timeout(LIMIT_S):
                await stands_still()
                gateway.runtime.gate.set()
                await reader.readuntil(b"\r\n\r\n")
                await stands_still()
            assert poured < 50_000_000
            pouring.cancel()
            seen.set()
            writer.transport.abort()
            await until(lambda: gateway.ended)

    run(check())


def has_come(relay, sent_bytes: int) -> bool:
    return relay.in_bytes == sent_bytes


def test_the_last_words_of_a_client_that_left_reach_a_service_that_was_busy(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        await has_left.wait()
        heard.set_result(await reader.read())

    async def check():
        nonlocal heard
        heard = asyncio.get_running_loop().create_future()
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            writer.write(asking(HOST))
            await reader.readuntil(b"\r\n\r\n")
            (relay,) = gateway.proxy.sockets.open
            to_service = relay.answer.connection.transport
            piece, pieces = frame(BINARY, b"x" * 20_000), itertools.count(1)
            while to_service.get_write_buffer_size() <= 2**16:  # until no more is taken
                writer.write(piece)
                sent_bytes = next(pieces) * len(piece)
                await until(functools.partial(has_come, relay, sent_bytes))
            last_words = frame(BINARY, b"y" * 110_000) + close(1000)
            writer.write(last_words)
            writer.close()
            await gateway.proxy.deserted()
            has_left.set()
            assert len(await heard) == sent_bytes + len(last_words)
            await until(lambda: gateway.ended)

    heard = None
    has_left = asyncio.Event()
    run(check())


class Open:
    """A WebSocket of which both ends are in the test's hands: `client` and `service`, each (reader, writer)."""

    def __init__(self) -> None:
        self.served = asyncio.Event()
        self.over = asyncio.Event()

    async def raw(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        self.service = reader, writer
        self.served.set()
        await self.over.wait()

    async def begin(self, gateway):
        self.client = await gateway.connect()
        self.client[1].write(asking(HOST))
        await self.client[0].readuntil(b"\r\n\r\n")
        await self.served.wait()

    def end(self):
        self.over.set()
        self.client[1].close()


def run_ending(run, test):
    """Run `test(gateway, socket)` with an open WebSocket."""

    async def check():
        socket = Open()
        async with open_gateway(raw=socket.raw) as gateway:
            await socket.begin(gateway)
            try:
                await test(gateway, socket)
            finally:
                socket.end()
            await until(lambda: gateway.ended)

    run(check())


def test_when_autostart_stops_the_client_is_told_to_come_again_and_the_service_that_it_leaves(run):
    async def check(gateway, socket):
        closing = asyncio.ensure_future(gateway.proxy.sockets.close(LIMIT_S))
        opcode, payload, masked = await read_frame(socket.client[0])
        assert (opcode, payload, masked) == (CLOSE, (1012).to_bytes(2) + b"autostart stops", False)
        opcode, payload, masked = await read_frame(socket.service[0])
        assert (opcode, payload[:2], masked) == (CLOSE, (1001).to_bytes(2), True)
        socket.service[1].write(frame(TEXT, b"too late") + close(1001))
        socket.client[1].write(frame(TEXT, b"too late", masked=True) + close(1012, masked=True))
        await closing
        assert await socket.client[0].read() == b""
        assert await socket.service[0].read() == b""

    run_ending(run, check)


def test_the_close_comes_after_the_frame_that_is_under_way_and_nothing_after_it(run):
    async def check(gateway, socket):
        whole = frame(BINARY, b"y" * 100)
        socket.service[1].write(whole[:40])
        assert await socket.client[0].readexactly(40) == whole[:40]
        closing = asyncio.ensure_future(gateway.proxy.sockets.close(LIMIT_S))
        assert (await read_frame(socket.service[0]))[0] == CLOSE
        socket.service[1].write(whole[40:] + frame(TEXT, b"next") + head(BINARY, 1000) + b"begun")
        rest = await socket.client[0].readexactly(60 + 2 + 2 + 4)
        assert rest[:62] == whole[40:]
        socket.client[1].write(close(1012, masked=True))
        await closing
        after = rest[62:] + await socket.client[0].read()
        assert after == frame(TEXT, b"next") + close_frame(1012, "autostart stops", masked=False)

    run_ending(run, check)


def test_an_end_that_has_closed_already_gets_no_second_close(run):
    async def check(gateway, socket):
        words = close(1000, "done")
        socket.service[1].write(words)
        assert await socket.client[0].readexactly(len(words)) == words
        closing = asyncio.ensure_future(gateway.proxy.sockets.close(LIMIT_S))
        assert (await read_frame(socket.service[0]))[0] == CLOSE
        socket.client[1].write(close(1000, masked=True))
        await closing
        assert await socket.client[0].read() == b""

    run_ending(run, check)


def test_a_client_keeps_its_connection_until_it_has_read_its_close_whatever_the_service_does(run):
    async def check(gateway, socket):
        closing = asyncio.ensure_future(gateway.proxy.sockets.close(LIMIT_S))
        await read_frame(socket.service[0])
        socket.over.set()  # it leaves
        assert await socket.service[0].read() == b""
        socket.client[1].write(frame(BINARY, b"x" * 100_000, masked=True))
        (relay,) = gateway.proxy.sockets.open
        await until(lambda: relay.in_bytes > 100_000)
        assert not closing.done()
        assert (await read_frame(socket.client[0]))[0] == CLOSE
        socket.client[1].write(close(1012, masked=True))
        await closing

    run_ending(run, check)


def test_a_client_that_does_not_answer_its_close_is_not_waited_for(run):
    async def check(gateway, socket):
        await gateway.proxy.sockets.close(0.01)
        assert not gateway.ended

    run_ending(run, check)


@pytest.mark.parametrize("masked", [False, True])
def test_a_close_of_ours_is_a_close(masked):
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(close_frame(1012, "grüße", masked=masked))
        reader.feed_eof()
        assert await read_frame(reader) == (CLOSE, (1012).to_bytes(2) + "grüße".encode(), masked)
        assert await reader.read() == b""

    asyncio.run(read())


def test_where_the_last_whole_frame_ends_is_known_however_the_pieces_are_cut():
    stream = frame(TEXT, b"a" * 10) + frame(BINARY, b"b" * 200, masked=True) + frame(PING)
    ends = {12, 12 + 208, 12 + 208 + 2}
    for step in range(1, len(stream) + 1):
        frames = Frames()
        for at in range(0, len(stream), step):
            piece = stream[at : at + step]
            frames.have_data(piece)
            within = [end - at for end in ends if at < end <= at + len(piece)]
            assert frames.whole_bytes == max(within, default=0)
            assert frames.is_between == (at + len(piece) in ends)
        assert not frames.has_closed
        frames.have_data(close(1000)[:2])
        assert frames.has_closed
