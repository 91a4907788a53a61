"""Frames of WebSockets made and read by hand, for tests that have to see every byte."""

import asyncio

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
KEY = b"\x11\x22\x33\x44"
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def asking(host: str) -> bytes:
    """The head of a request for a WebSocket."""
    return f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode()


def head(opcode: int, size: int, *, final=True, masked=False, reserved=0, length_bytes=None) -> bytes:
    """The header of a frame; `length_bytes` (0, 2, 8) says how its length is written, else as short as can be."""
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 2**16 else 8
    first = 0x80 * final | reserved << 4 | opcode
    second = {0: size, 2: 126, 8: 127}[length_bytes] | 0x80 * masked
    length = size.to_bytes(length_bytes) if length_bytes else b""
    return bytes([first, second]) + length + KEY * masked


def frame(opcode: int, payload: bytes = b"", *, masked=False, **options) -> bytes:
    return head(opcode, len(payload), masked=masked, **options) + (mask(payload) if masked else payload)


def close(code: int, reason: str = "", *, masked=False) -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason.encode(), masked=masked)


def mask(payload: bytes, key: bytes = KEY) -> bytes:
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """The next frame, of less than 126 bytes: opcode, payload, whether it was masked."""
    first, second = await reader.readexactly(2)
    masked = bool(second & 0x80)
    key = await reader.readexactly(4) if masked else b"\x00" * 4
    return first & 0x0F, mask(await reader.readexactly(second & 0x7F), key), masked
