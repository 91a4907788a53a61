"""WebSockets: what one end says the other hears, to the last close code."""

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from gateways import HOST, open_gateway
from waiting import until

from autostart.lifecycle import State
from autostart.proxy.frames import Frames


async def echo(request):
    socket = web.WebSocketResponse(protocols=("v2.chat", "v1.chat"), max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT and message.data == "leave":
            await socket.close(code=4001, message=b"as you wish")
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)
    codes.append(socket.close_code)
    return socket


codes: list[int | None] = []


def open_socket(gateway, **options):
    return gateway.session.ws_connect(gateway.url("/chat"), headers={"Host": HOST}, **options)


@pytest.mark.parametrize("compress", [0, 15])
def test_messages_of_any_kind_and_size_pass_both_ways(run, compress):
    async def check():
        async with open_gateway(echo) as gateway:
            async with open_socket(gateway, max_msg_size=0, compress=compress) as socket:
                assert bool(socket.compress) == bool(compress)
                await socket.send_str("grüße")
                assert (await socket.receive()).data == "grüße"
                for size in (0, 1, 126, 70_000, 20_000_000):
                    await socket.send_bytes(b"\x00\x01" * (size // 2) + b"x" * (size % 2))
                    assert len((await socket.receive()).data) == size
            await until(lambda: gateway.ended)
            (event,) = gateway.ended
            assert (event.websocket, event.status, event.code) == (True, 101, "")
            assert event.bytes_in > 0 < event.bytes_out
            assert type(gateway.events[0]).__name__ == "WebSocketOpened"

    run(check())


def test_the_service_chooses_the_sub_protocol(run):
    async def check():
        async with (
            open_gateway(echo) as gateway,
            open_socket(gateway, protocols=("v1.chat", "v3.chat")) as socket,
        ):
            assert socket.protocol == "v1.chat"

    run(check())


def test_the_services_close_code_reaches_the_client(run):
    async def check():
        async with open_gateway(echo) as gateway, open_socket(gateway) as socket:
            await socket.send_str("leave")
            message = await socket.receive()
            assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4001, "as you wish")

    run(check())


def test_the_clients_close_code_reaches_the_service(run):
    async def check():
        codes.clear()
        async with open_gateway(echo) as gateway, open_socket(gateway) as socket:
            await socket.close(code=4002)
            await until(lambda: codes)
            assert codes == [4002]

    run(check())


def test_ping_and_pong_pass_through(run):
    async def check():
        async with open_gateway(echo) as gateway, open_socket(gateway, autoping=False) as socket:
            await socket.ping(b"are you there")
            message = await socket.receive()
            assert (message.type, message.data) == (WSMsgType.PONG, b"are you there")

    run(check())


def test_a_socket_wakes_its_service_and_is_accepted_only_then(run):
    async def check():
        async with open_gateway(echo, start_gate=True) as gateway:
            opening = asyncio.ensure_future(open_socket(gateway).__aenter__())
            await until(lambda: gateway.service.snapshot().waiting == 1)
            gateway.runtime.gate.set()
            socket = await opening
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
            assert gateway.service.snapshot().in_flight == 1
            await socket.close()
            await until(lambda: not gateway.service.snapshot().leases)

    run(check())


def test_a_service_that_does_not_accept_says_so_itself(run):
    async def refuse(request):
        return web.Response(status=403, text="not you", headers={"X-Why": "because"})

    async def check():
        async with open_gateway(refuse) as gateway:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await open_socket(gateway).__aenter__()
            assert (refused.value.status, refused.value.headers["X-Why"]) == (403, "because")
            await until(lambda: gateway.ended)
            assert gateway.ended[0].websocket is False

    run(check())


def test_a_socket_to_a_service_that_cannot_start_gets_an_answer_and_not_a_socket(run):
    async def check():
        async with open_gateway(echo, asleep=True, blocking=False) as gateway:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await open_socket(gateway).__aenter__()
            assert refused.value.status == 503
            await until(lambda: gateway.service.state is State.READY)

    run(check())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("step", [1, 7, 1_000_000])
def test_messages_are_told_from_pings_however_they_are_cut_into_pieces(size, masked, step):
    def frame(opcode, size):
        length = (
            [size] if size < 126 else [126, *size.to_bytes(2)] if size < 2**16 else [127, *size.to_bytes(8)]
        )
        length[0] |= 0x80 * masked
        return bytes([0x80 | opcode, *length]) + b"\x81" * (4 * masked) + b"\x81" * size

    def have_data(frames, stream):
        return [frames.have_data(stream[at : at + step]) for at in range(0, len(stream), step)]

    frames = Frames()
    pings = frame(0x9, 125) + frame(0xA, 0) + frame(0x8, 2)
    for opcode in (0x1, 0x2, 0x0):
        assert not any(have_data(frames, pings))
        assert any(have_data(frames, frame(opcode, size)))
    assert not any(have_data(frames, pings))


def test_a_socket_is_use_while_messages_pass_and_not_while_it_is_merely_open(run):
    async def check():
        async with (
            open_gateway(echo, idleTimeout=0) as gateway,
            open_socket(gateway, autoping=False) as socket,
        ):
            opened = gateway.service.snapshot().last_used_s
            await socket.ping(b"are you there")
            assert (await socket.receive()).type is WSMsgType.PONG
            assert gateway.service.snapshot().last_used_s == opened
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
            assert gateway.service.snapshot().last_used_s > opened
            assert gateway.service.snapshot().in_flight == 1
            assert gateway.service.stop_if_idle()
            await until(lambda: gateway.service.state is State.STOPPED)
            assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}
            await until(lambda: gateway.ended)
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_a_message_on_a_socket_of_a_service_that_went_to_sleep_ends_the_socket(run):
    """A paused container keeps its connections open: the client has to come anew, which wakes it."""

    async def check():
        async with open_gateway(echo, idleTimeout=0) as gateway, open_socket(gateway) as socket:
            frozen = asyncio.Event()
            gateway.runtime.stop = lambda method, grace_s: frozen.wait()
            assert gateway.service.stop_if_idle()
            await socket.send_str("hello")
            assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}
            await until(lambda: gateway.ended)
            frozen.set()

    run(check())


@pytest.mark.parametrize("end", ["client", "service"])
def test_when_one_end_breaks_off_the_other_is_closed(run, end):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfrom service"
        )
        assert await reader.readexactly(11) == b"from client"
        if end == "client":
            assert await reader.read() == b""
            noticed.set()

    noticed = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            head = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            writer.write(head.encode() + b"from client")  # at once, before it is accepted
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert await reader.readexactly(12) == b"from service"
            if end == "client":
                writer.transport.abort()
                await noticed.wait()
            else:
                assert await reader.read() == b""
            writer.close()
            await until(lambda: gateway.ended)
            assert gateway.service.snapshot().leases == ()

    run(check())


@pytest.mark.parametrize("slow", ["client", "service"])
def test_an_end_that_does_not_read_holds_the_other_back(run, slow):
    """Backpressure: what is sent stays bounded, though it would go on for ever."""

    async def pour(writer):
        nonlocal poured
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            poured += 65536

    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await (pour(writer) if slow == "client" else seen.wait())

    poured = 0
    seen = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect(limit=65536)
            head = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            writer.write(head.encode())
            await reader.readuntil(b"\r\n\r\n")
            pouring = asyncio.ensure_future(pour(writer)) if slow == "service" else None
            before = -1
            async with asyncio.timeout(20):
                while poured == 0 or poured != before:  # until it stands still
                    before = poured
                    await asyncio.sleep(0.2)
            assert 0 < poured < 50_000_000
            if pouring is not None:
                pouring.cancel()
            seen.set()
            if slow == "client":
                writer.transport.abort()
            await until(lambda: gateway.ended)
            writer.close()

    run(check())
