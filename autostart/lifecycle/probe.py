"""Ask a service over HTTP, with plain asyncio sockets: what readiness and the busy check have in common.

Knows neither aiohttp nor docker, and no state of a service.
"""

import asyncio

from autostart.runtime.base import Endpoint

_CONNECT_S = 0.25
"""A lost SYN is repeated by the kernel only after 1 s; a new attempt is faster."""
_MOST_LINE_BYTES = 4096
_MOST_HEAD_LINES = 100

TROUBLE = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)
"""What reading an answer raises where it is none: it breaks off, or is no HTTP."""


async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a new connection; the caller aborts it. Raises OSError, also where none comes in time."""
    async with asyncio.timeout(_CONNECT_S):
        return await asyncio.open_connection(endpoint.host, endpoint.port, limit=_MOST_LINE_BYTES)


async def ask_status(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str, version: str = "1.1"
) -> int:
    """GET `path` and return the final status; what is read next is the headers of the answer.

    Has no limit in time. Raises one of TROUBLE.
    """
    request = (
        f"GET {path} HTTP/{version}\r\nHost: {host}\r\nUser-Agent: autostart\r\nConnection: close\r\n\r\n"
    )
    writer.write(request.encode("latin-1"))
    while True:
        line = await reader.readuntil(b"\n")
        answered, status, *_ = line.split()
        if not answered.startswith(b"HTTP/"):
            raise ValueError(line)
        if not 100 <= int(status) < 200:
            return int(status)
        await _read_headers(reader)


async def get(endpoint: Endpoint, path: str, host: str, most_bytes: int) -> tuple[int, bytes]:
    """GET `path`; return status and body, of which at most `most_bytes` may come.

    Asks with HTTP/1.0, to which nobody may answer in chunks (RFC 9112 section 6.1). Has no limit in time; cancelled,
    it leaves no connection open. Raises one of TROUBLE; ValueError for a body that is too long.
    """
    reader, writer = await connect(endpoint)
    try:
        status = await ask_status(reader, writer, path, host, version="1.0")
        length = (await _read_headers(reader)).get(b"content-length")
        left = most_bytes + 1 if length is None else int(length)
        body = bytearray()
        while left > 0 and len(body) <= most_bytes and (data := await reader.read(left)):
            body += data
            left -= len(data)
        if len(body) > most_bytes:
            raise ValueError("the body is too long")
        if length is not None and left:
            raise EOFError
        return status, bytes(body)
    finally:
        writer.transport.abort()


async def _read_headers(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    """Read up to the empty line that ends them; names in lower case."""
    headers: dict[bytes, bytes] = {}
    for _ in range(_MOST_HEAD_LINES):
        line = (await reader.readuntil(b"\n")).strip()
        if not line:
            return headers
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")
