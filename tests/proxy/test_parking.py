"""Uploads that wait for a start: little memory each, nobody's departure unnoticed, not a byte lost."""

import asyncio
import hashlib
import os
import socket

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until


async def digest(request):
    sha = hashlib.sha256()
    async for piece in request.content.iter_any():
        sha.update(piece)
    return web.Response(text=sha.hexdigest())


def parked(gateway) -> int:
    return len(gateway.proxy._parking)


async def begin(gateway, kind: str, size: int, sent: bytes):
    """Begin an upload of `size` bytes and send the first of them, as far as they are taken."""
    if kind == "unix":
        reader, writer = await asyncio.open_unix_connection(gateway.unix)
    else:
        reader, writer = await gateway.connect()
    head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + sent)
    return reader, writer


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("size", [0, 1, 8_192, 8_193, 65_536, 300_000, 3_000_000])
@pytest.mark.parametrize("spool_size", [0, 100_000, 2**30])
def test_a_parked_upload_arrives_whole(run, kind, size, spool_size):
    async def check():
        body = os.urandom(size)
        async with open_gateway(digest, start_gate=True, spool_size=spool_size) as gateway:
            reader, writer = await begin(gateway, kind, size, body)
            await until(lambda: gateway.service.snapshot().waiting == 1)
            for _ in range(20):
                await asyncio.sleep(0)
            gateway.runtime.gate.set()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(hashlib.sha256(body).hexdigest().encode())
            writer.close()
            assert parked(gateway) == 0
            assert gateway.proxy._parking._area.left_bytes == spool_size

    run(check())


def test_a_chunked_upload_is_parked_and_arrives_whole(run):
    async def check():
        body = os.urandom(1_000_000)

        async def pieces():
            for start in range(0, len(body), 7_777):
                yield body[start : start + 7_777]

        async with open_gateway(digest, start_gate=True) as gateway:
            asked = asyncio.ensure_future(gateway.ask("POST", data=pieces()).__aenter__())
            await until(lambda: gateway.proxy._parking._area.left_bytes <= 2**30 - 1_000_000)
            gateway.runtime.gate.set()
            assert await (await asked).text() == hashlib.sha256(body).hexdigest()

    run(check())


def test_an_upload_that_trickles_goes_on_while_its_service_starts_and_after(run):
    async def check():
        async with open_gateway(digest, start_gate=True) as gateway:
            reader, writer = await begin(gateway, "tcp", 300_000, b"a" * 100_000)
            left = gateway.proxy._parking._area
            await until(lambda: left.left_bytes == 2**30 - 100_000)
            writer.write(b"b" * 100_000)
            await until(lambda: left.left_bytes == 2**30 - 200_000)
            gateway.runtime.gate.set()
            await until(lambda: parked(gateway) == 0)
            writer.write(b"c" * 100_000)
            expected = hashlib.sha256(b"a" * 100_000 + b"b" * 100_000 + b"c" * 100_000).hexdigest()
            assert (await reader.read()).endswith(expected.encode())
            writer.close()

    run(check())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("leaves", ["close", "abort"])
@pytest.mark.parametrize("sent", [0, 50_000, 5_000_000])
def test_a_parked_client_that_leaves_is_noticed(run, kind, leaves, sent):
    async def check():
        async with open_gateway(digest, start_gate=True) as gateway:
            _, writer = await begin(gateway, kind, 5_000_001, b"x" * sent)
            await until(lambda: gateway.service.snapshot().waiting == 1)
            if leaves == "close":
                writer.close()
            else:
                writer.transport.abort()
            await until(lambda: gateway.ended)
            assert (gateway.ended[0].status, gateway.ended[0].code) == (499, "client_gone")
            assert gateway.service.snapshot().leases == ()
            assert parked(gateway) == 0
            assert gateway.proxy._parking._area.left_bytes == 2**30

    run(check())


def test_a_unix_client_that_leaves_is_noticed_even_without_room_to_spool(run):
    async def check():
        async with open_gateway(digest, start_gate=True, spool_size=0) as gateway:
            _, writer = await begin(gateway, "unix", 5_000_000, b"x" * 5_000_000)
            await until(lambda: parked(gateway) == 1)
            writer.transport.abort()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "client_gone"

    run(check())


def test_of_many_parked_uploads_exactly_those_that_leave_are_gone(run):
    count, size = 300, 400_000

    async def check():
        body = b"x" * size
        async with open_gateway(digest, start_gate=True) as gateway:
            clients = await asyncio.gather(*(begin(gateway, "tcp", size, body) for _ in range(count)))
            await until(lambda: gateway.service.snapshot().waiting == count)
            for _, writer in clients[::3]:
                writer.transport.abort()
            await until(lambda: gateway.service.snapshot().waiting == count - len(clients[::3]))
            assert gateway.runtime.starts == 1
            gateway.runtime.gate.set()
            expected = hashlib.sha256(body).hexdigest().encode()
            for number, (reader, writer) in enumerate(clients):
                if number % 3:
                    assert (await reader.read()).endswith(expected)
                    writer.close()
            await until(lambda: len(gateway.ended) == count)
            assert gateway.proxy._parking._area.left_bytes == 2**30
            assert gateway.runtime.starts == 1

    run(check())


def test_a_client_that_leaves_while_its_spooled_upload_is_passed_on_leaves_no_file(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()

    async def check():
        async with open_gateway(raw=raw, start_gate=True) as gateway:
            left = gateway.proxy._parking._area
            _, writer = await begin(gateway, "tcp", 30_000_001, b"x" * 30_000_000)
            await until(lambda: left.left_bytes == 2**30 - 30_000_000)
            gateway.runtime.gate.set()
            await begun.wait()
            writer.close()
            await until(lambda: gateway.ended)
            assert gateway.ended[0].code == "client_gone"
            assert (left.left_bytes, left.spools) == (2**30, 0)

    run(check())


def test_a_full_disk_keeps_the_upload_waiting_and_whole(run, tmp_path):
    body = os.urandom(500_000)

    async def check():
        async with open_gateway(digest, start_gate=True) as gateway:
            gateway.proxy._parking._area.directory = tmp_path / "is not there"
            reader, writer = await begin(gateway, "tcp", len(body), body)
            await until(lambda: parked(gateway) == 1)
            for _ in range(50):
                await asyncio.sleep(0)
            gateway.runtime.gate.set()
            assert (await reader.read()).endswith(hashlib.sha256(body).hexdigest().encode())
            writer.close()

    run(check())


def test_parked_uploads_are_given_back_when_the_start_fails(run):
    from autostart import errors

    async def check():
        async with open_gateway(digest, start_gate=True) as gateway:
            gateway.runtime.failure = errors.Exited("it", 1)
            reader, writer = await begin(gateway, "tcp", 2_000_000, b"x" * 2_000_000)
            await until(lambda: gateway.proxy._parking._area.left_bytes < 2**30)
            gateway.runtime.gate.set()
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
            writer.close()
            await until(lambda: gateway.ended)
            assert gateway.proxy._parking._area.left_bytes == 2**30

    run(check())


def test_nothing_is_read_ahead_of_what_is_spooled(run):
    """Without room for files, a parked upload is left in the kernel's buffers."""

    async def check():
        async with open_gateway(digest, start_gate=True, spool_size=0) as gateway:
            _, writer = await begin(gateway, "tcp", 50_000_000, b"")
            raw = writer.get_extra_info("socket")
            await until(lambda: parked(gateway) == 1)
            sender = socket.socket(fileno=os.dup(raw.fileno()))
            sender.setblocking(False)
            sent = 0
            async with asyncio.timeout(20):
                for _ in range(100):
                    try:
                        while True:
                            sent += sender.send(b"x" * 65536)
                    except BlockingIOError:
                        await asyncio.sleep(0.005)
            (place,) = gateway.proxy._parking._parked.values()
            assert place.request.content.total_bytes < 600_000
            assert sent < 20_000_000
            sender.close()
            writer.transport.abort()

    run(check())
