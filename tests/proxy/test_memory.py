"""How much memory the gateway takes, measured on one that is alone in its process."""

import asyncio
import contextlib
import resource
import sys
from pathlib import Path

import pytest
from frames import ACCEPTED, BINARY, CONTINUATION, PING, asking, frame, head
from program import WITH_US

HERE = Path(__file__).parent
MB = 1_000_000


def rss(pid: int, field: str = "VmRSS") -> int:
    """Bytes of memory that the process has now (`VmRSS`), or had at most (`VmHWM`)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


@contextlib.asynccontextmanager
async def lone_gateway(serve, directory: Path):
    """A gateway in a process of its own, in front of `serve` in this one."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096, limit=2**20)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *WITH_US,
        sys.executable,
        str(HERE / "lone_gateway.py"),
        str(port),
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2
        ),
    )
    try:
        yield process, int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()
        server.close()


def post(size: int) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: s.example.org\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    return head.encode()


def test_500_mb_up_and_500_mb_down_pass_in_constant_memory(tmp_path):
    total = 500 * MB
    piece = bytes(MB)

    async def serve(reader, writer):
        if not await reader.read(1):
            writer.close()  # the readiness check
            return
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < total:
            taken += len(await reader.read(2**20))
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n".encode())
        for _ in range(total // MB):
            writer.write(piece)
            await writer.drain()
        writer.close()

    async def check():
        async with lone_gateway(serve, tmp_path) as (process, port):
            process.stdin.write(b"start\n")
            before = rss(process.pid)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
            writer.write(post(total))
            for _ in range(total // MB):
                writer.write(piece)
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            got = 0
            while data := await reader.read(2**20):
                got += len(data)
            assert got == total
            writer.close()
            assert rss(process.pid, "VmHWM") - before <= 12 * MB

    asyncio.run(asyncio.wait_for(check(), 120))


def test_a_parked_upload_takes_30_kb_at_most(tmp_path):
    count, size = 400, 2 * MB

    async def serve(reader, writer):
        raise AssertionError("nobody is let through here")

    async def check():
        async with lone_gateway(serve, tmp_path) as (process, port):
            body = bytes(size)

            async def begin():
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(post(size) + body)
                async with asyncio.timeout(60):
                    await writer.drain()
                return writer

            warm = [await begin() for _ in range(20)]
            before = rss(process.pid)
            writers = await asyncio.gather(*(begin() for _ in range(count)))
            async with asyncio.timeout(60):  # what has come is taken bit by bit, and then given back
                while (rss(process.pid) - before) / count > 30_000:
                    await asyncio.sleep(0.05)
            for writer in [*warm, *writers]:
                writer.transport.abort()

    asyncio.run(asyncio.wait_for(check(), 120))


def one_frame(size: int, *, masked: bool):
    yield head(BINARY, size, masked=masked)
    for _ in range(size // MB):
        yield bytes(MB)


def many_fragments(size: int, *, masked: bool):
    """The same in fragments of 10 kB, and a ping after each hundred."""
    fragment = frame(CONTINUATION, bytes(10_000), masked=masked, final=False)
    yield frame(BINARY, masked=masked, final=False)
    for _ in range(size // MB):
        yield 100 * fragment + frame(PING, masked=masked)
    yield frame(CONTINUATION, masked=masked)


@pytest.mark.parametrize("message", [one_frame, many_fragments])
def test_a_message_of_100_mb_passes_each_way_in_constant_memory(tmp_path, message):
    size = 100 * MB

    async def say(writer, *, masked):
        for piece in message(size, masked=masked):
            writer.write(piece)
            await writer.drain()

    async def hear(reader, *, masked):
        """Take as much as `say` says, and return whether it begins and ends as that does."""
        pieces = list(message(size, masked=masked))
        length = sum(map(len, pieces))
        beginning, taken = await reader.readexactly(20), 20
        while taken < length:
            data = await reader.read(2**20)
            assert data
            taken += len(data)
        return (pieces[0] + pieces[1][:20]).startswith(beginning) and data.endswith(pieces[-1][-6:])

    async def serve(reader, writer):
        if not await reader.read(1):
            writer.close()  # the readiness check
            return
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ACCEPTED)
        heard.append(await hear(reader, masked=True))
        await say(writer, masked=False)
        writer.close()

    heard: list[bool] = []

    async def check():
        async with lone_gateway(serve, tmp_path) as (process, port):
            process.stdin.write(b"start\n")
            before = rss(process.pid)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
            writer.write(asking("s.example.org"))
            await reader.readuntil(b"\r\n\r\n")
            await say(writer, masked=True)
            heard.append(await hear(reader, masked=False))
            assert heard == [True, True]
            writer.close()
            assert rss(process.pid, "VmHWM") - before <= 12 * MB

    asyncio.run(asyncio.wait_for(check(), 120))
