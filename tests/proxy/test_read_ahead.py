"""What is taken of a body before anybody wants it."""

import asyncio
import socket

from aiohttp import web
from gateways import PATIENCE

from autostart.proxy.body import let_in
from autostart.proxy.server import Server


def test_a_dead_peer_is_asked_for_within_minutes_also_where_nothing_is_sent():
    async def body() -> None:
        options: list[int] = []

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            sock = request.transport.get_extra_info("socket")
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            limits = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            options.extend(sock.getsockopt(socket.IPPROTO_TCP, option) for option in limits)
            return web.Response()

        runner = web.ServerRunner(Server(handler, patience=PATIENCE))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
        finally:
            await runner.cleanup()
        enabled, idle_s, every_s, times = options
        assert enabled
        assert idle_s + every_s * times <= 180

    asyncio.run(body())


def test_no_more_of_a_body_is_taken_than_came_with_its_headers_until_it_is_wanted():
    """Left alone, aiohttp takes twice its buffer (256 kB here) ahead of a handler that does not read."""

    async def body() -> None:
        taken: list[int] = []

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            first = request.content.total_bytes
            for _ in range(40):  # time enough for what would be read ahead
                await asyncio.sleep(0.005)
            taken.extend((first, request.content.total_bytes))
            let_in(request)
            size = sum([len(piece) async for piece in request.content.iter_any()])
            return web.Response(text=str(size))

        runner = web.ServerRunner(Server(handler, patience=PATIENCE, read_bufsize=2**18))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
            upload = bytes(4_000_000)
            writer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % len(upload))
            writer.write(upload)
            async with asyncio.timeout(20):
                answer = await reader.readuntil(str(len(upload)).encode())
            writer.close()
        finally:
            await runner.cleanup()
        assert answer.startswith(b"HTTP/1.1 200")
        assert taken[0] == taken[1]

    asyncio.run(body())
