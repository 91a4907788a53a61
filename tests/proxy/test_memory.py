"""How much memory the gateway takes, measured on one that is alone in its process."""

import asyncio
import contextlib
import resource
import sys
from pathlib import Path

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
