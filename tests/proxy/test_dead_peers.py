"""Peers that vanish without a word: a laptop that is shut, a machine without power, a cable that is pulled out."""

import asyncio
import contextlib
import socket

import pytest
import uvloop
from frames import ACCEPTED, TEXT, asking, frame
from gateways import HOST, open_gateway
from networks import HERE, THERE, pull_out_the_cable, two_machines
from waiting import LIMIT_S, until

from autostart.proxy import keepalive
from autostart.runtime.base import Endpoint

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Ask after a second of silence, and give up a second later: as it is, that takes two minutes."""
    shortest = dict.fromkeys((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), 1)
    monkeypatch.setattr(keepalive, "OPTIONS", shortest)


def run_on(machine, coroutine):
    async def within():
        async with asyncio.timeout(LIMIT_S):
            await coroutine

    machine.run(uvloop.run, within())


def test_a_client_with_a_websocket_that_vanished_gives_its_lease_back():
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED + frame(TEXT, b"hello"))
        service_heard.append(await reader.read())

    async def check():
        async with open_gateway(raw=raw, address=HERE) as gateway:
            client = there.run(socket.create_connection, (HERE, gateway.port))
            reader, writer = await asyncio.open_connection(sock=client)
            try:
                writer.write(asking(HOST))
                await reader.readuntil(b"hello")
                assert gateway.service.snapshot().in_flight == 1
                pull_out_the_cable(there)
                await until(lambda: gateway.ended and not gateway.service.snapshot().leases)
                await until(lambda: service_heard)
            finally:
                writer.transport.abort()

    service_heard: list[bytes] = []
    with two_machines() as (here, there):
        run_on(here, check())
    assert service_heard == [b""]


def test_a_service_with_a_silent_event_stream_that_vanished_is_found_and_the_client_told():
    async def serve(reader, writer):
        if await reader.read(1):  # or it is the readiness check
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + EVENT)
            connections.append(writer.transport)
        else:
            writer.close()

    async def check():
        listener = there.run(socket.create_server, (THERE, 0))
        server = await asyncio.start_server(serve, sock=listener)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(lambda: [connection.abort() for connection in connections])
            stack.callback(server.close)
            gateway = await stack.enter_async_context(open_gateway(asleep=True))
            gateway.runtime.endpoint = Endpoint(THERE, listener.getsockname()[1])
            reader, writer = await gateway.connect()
            stack.callback(writer.transport.abort)
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(EVENT)
            pull_out_the_cable(there)
            assert await reader.read() == b""
            await until(lambda: gateway.ended and not gateway.service.snapshot().leases)
            assert [event.code for event in gateway.ended] == ["answer_cut"]

    connections: list[asyncio.Transport] = []
    with two_machines() as (here, there):
        run_on(here, check())
