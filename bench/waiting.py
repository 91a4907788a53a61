"""Many requests that wait for one start: memory of each, one start, and whether one that leaves is noticed.

The service listens only once a file is there, so all of them wait until the bench lets them go on.
"""

import asyncio
import contextlib
import resource
import socket
import time
from dataclasses import dataclass

from bench.stand import (
    HOST,
    LIMIT_S,
    Failed,
    Gateway,
    Stand,
    fast_backend_command,
    free_port,
    process_service,
    wait_until,
)
from bench.table import Row, median

TITLE = "Waiting: 2,000 requests wait for one start"

_EACH_KB = 30.0
_BODY = bytes(2_000_000)
_WAITING = "autostart_requests_waiting"
_QUIET_S = 0.5
_SETTLE_LIMIT_S = 180.0


@dataclass(frozen=True, slots=True)
class Found:
    """What one round of waiting showed."""

    each_bytes: float
    starts: int
    left_s: list[float]
    answered: int
    peak_bytes: int
    settled_s: float


def measure(waiting: int = 2000, upload_bytes: int = len(_BODY), leaving: int = 20) -> list[Row]:
    """Return the rows, for GET and for uploads; `leaving` of them leave, half-way through their body."""
    _raise_file_limit()
    rows = []
    for name, body_bytes in (("GET", 0), (f"{upload_bytes / 1e6:g} MB upload", upload_bytes)):
        found = asyncio.run(_wait_together(waiting, body_bytes, leaving))
        stayed = waiting - leaving
        rows += [
            Row(
                f"{name}: memory of each",
                found.each_bytes / 1000,
                "kB",
                _EACH_KB,
                f"{waiting:,} wait; all taken in after {found.settled_s:.1f} s",
            ),
            Row(f"{name}: starts", found.starts, "", 1),
            Row(
                f"{name}: one that leaves is noticed after",
                median(found.left_s) * 1000,
                "ms",
                note=f"slowest of {leaving}: {max(found.left_s) * 1000:.0f} ms",
            ),
            Row(
                f"{name}: not answered with 200",
                stayed - found.answered,
                "",
                0,
                f"of the {stayed:,} that stayed",
            ),
            Row(f"{name}: peak memory until all were answered", found.peak_bytes / 1e6, "MB"),
        ]
    return rows


async def _wait_together(waiting: int, body_bytes: int, leaving: int) -> Found:
    with Stand() as stand:
        gate, port = stand.directory / "gate", free_port()
        command = fast_backend_command(port, "--gate", str(gate))
        service = process_service(port, command, startTimeout="10m")
        gateway = stand.gateway({HOST: service}, log={"requests": False})
        before_bytes = gateway.rss_bytes
        gateway.reset_peak()
        begun = time.monotonic()
        async with contextlib.AsyncExitStack() as stack:
            leavers = [await _connect(stack, gateway.port) for _ in range(leaving)]
            for sock in leavers:
                await _send(sock, body_bytes, body_bytes // 2)
            stayers = [await _connect(stack, gateway.port) for _ in range(waiting - leaving)]
            sending = asyncio.gather(*(_send(sock, body_bytes, body_bytes) for sock in stayers))
            await _all_wait(gateway, waiting)
            await asyncio.wait_for(sending, _SETTLE_LIMIT_S)
            settled_s = await _settle(gateway, begun)
            each_bytes = (gateway.rss_bytes - before_bytes) / waiting
            left_s = [await asyncio.to_thread(_leave, gateway, sock) for sock in leavers]
            gate.touch()
            answers = await asyncio.gather(*(_answer(sock) for sock in stayers))
        return Found(
            each_bytes=each_bytes,
            starts=int(
                gateway.metric('autostart_start_duration_seconds_count{service="' + HOST + '",phase="total"')
            ),
            left_s=left_s,
            answered=sum(answers),
            peak_bytes=gateway.peak_bytes,
            settled_s=settled_s,
        )


async def _connect(stack: contextlib.AsyncExitStack, port: int) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


async def _send(sock: socket.socket, body_bytes: int, sent_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    method, length = ("POST", f"Content-Length: {body_bytes}\r\n") if body_bytes else ("GET", "")
    await loop.sock_sendall(sock, f"{method} / HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n".encode())
    await loop.sock_sendall(sock, memoryview(_BODY)[:sent_bytes])


async def _answer(sock: socket.socket) -> bool:
    """Say whether the answer is 200."""
    head = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 4096), _SETTLE_LIMIT_S)
    return head.startswith(b"HTTP/1.1 200 ")


async def _all_wait(gateway: Gateway, waiting: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while await asyncio.to_thread(gateway.metric, _WAITING) < waiting:
        if time.monotonic() > deadline:
            raise Failed(f"not all wait: {gateway.metric(_WAITING):.0f} of {waiting}")
        await asyncio.sleep(0.05)


async def _settle(gateway: Gateway, begun: float) -> float:
    """Wait until the gateway does nothing more; return how many seconds after `begun` that was so."""
    deadline = time.monotonic() + _SETTLE_LIMIT_S
    while time.monotonic() < deadline:
        quiet_since, before_s = time.monotonic(), gateway.cpu_s
        await asyncio.sleep(_QUIET_S)
        if gateway.cpu_s - before_s < 0.02:
            return quiet_since - begun
    raise Failed("the gateway does not come to rest")


def _leave(gateway: Gateway, sock: socket.socket) -> float:
    """Close a connection; return how many seconds later the gateway knows."""
    before = gateway.metric(_WAITING)
    begun = time.monotonic()
    sock.close()
    wait_until(lambda: gateway.metric(_WAITING) < before, "noticing that a client left")
    return time.monotonic() - begun


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
