"""A service to measure with: as little of its own as Python allows. `python -m bench.backend PORT`.

Answers every request with 200 and 200 bytes; one with a body, once it is read, with the number of its bytes; one
for /events with a stream of 200 events, one each 5 ms, which tell when they were sent (monotonic, ns).
Trusts what it is sent (a Content-Length, no pipelining), so that it is not what a table ends up measuring.
Standard library, and uvloop with `--fast`.
"""

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path
from typing import cast

BODY = b"autostart bench ".ljust(200, b".")


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


_HELLO = _answer(BODY)
_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = 200
_EVENT_EVERY_S = 0.005


class Connection(asyncio.BufferedProtocol):
    """One connection; the head of a request is taken to come in one piece, or to begin in an empty buffer."""

    _buffer = memoryview(bytearray(2**20))

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def get_buffer(self, _: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, size: int) -> None:
        if self._left:
            self._take_body(size)
            return
        self._head += bytes(self._buffer[:size])
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        self._head = b""
        if head.startswith(b"GET /events "):
            self._telling = asyncio.get_running_loop().create_task(self._tell())
            return
        if head.startswith(b"GET"):
            self._transport.write(_HELLO)
            return
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        self._left = self._body_bytes = int(fields.get(b"content-length", 0))
        if b"100-continue" in fields.get(b"expect", b""):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take_body(len(rest))

    async def _tell(self) -> None:
        self._transport.write(_EVENTS)
        for _ in range(EVENTS):
            await asyncio.sleep(_EVENT_EVERY_S)
            event = b"data: %d\n\n" % time.monotonic_ns()
            self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        self._transport.write(b"0\r\n\r\n")

    def _take_body(self, size: int) -> None:
        self._left -= size
        if not self._left:
            self._transport.write(_answer(b"%d" % self._body_bytes))


async def serve(port: int, mark: Path | None) -> None:
    """Listen until told to stop; a word goes to `mark` at the moment before."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if mark is not None:
        write_mark(mark, "listening")
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=4096)
    await stop.wait()
    server.close()


def write_mark(path: Path, word: str) -> None:
    """Write a word and the time (monotonic, ns) into a fifo; see `marks`."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, f"{word} {time.monotonic_ns()}\n".encode())
    os.close(fd)


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="bench.backend")
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--gate", type=Path, help="listen only once this file is there")
    parser.add_argument("--mark", type=Path, help="fifo that is told the moment")
    parser.add_argument("--fast", action="store_true", help="run on uvloop")
    options = parser.parse_args()
    time.sleep(options.delay)
    while options.gate is not None and not options.gate.exists():
        time.sleep(0.02)
    if options.fast:
        import uvloop  # noqa: PLC0415 - it takes longer to import than all the rest

        uvloop.run(serve(options.port, options.mark))
    else:
        asyncio.run(serve(options.port, options.mark))


if __name__ == "__main__":
    main()
