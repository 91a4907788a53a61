"""Plain clients on blocking sockets: what they cost is the same for everything that is compared."""

import socket
import time
from dataclasses import dataclass

from bench.stand import HOST, LIMIT_S, Failed

_PIECE = bytes(2**18)


@dataclass(frozen=True, slots=True)
class Asked:
    """When a request was sent and when the first byte of its answer came, in monotonic seconds."""

    sent_s: float
    first_byte_s: float
    status: int

    @property
    def took_s(self) -> float:
        """Seconds from the one to the other."""
        return self.first_byte_s - self.sent_s


def get(port: int, path: str = "/", host: str = "127.0.0.1", service: str = HOST) -> Asked:
    """Ask for `service` once, on a connection of its own. Raises Failed, and OSError where nobody listens."""
    sent_s = time.monotonic()
    with socket.create_connection((host, port), LIMIT_S) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n\r\n".encode())
        head = sock.recv(65536)
        first_byte_s = time.monotonic()
    if not head.startswith(b"HTTP/1."):
        raise Failed(f"no answer: {head!r}")
    return Asked(sent_s, first_byte_s, int(head[9:12]))


def ask_for(port: int, seconds: float) -> list[float]:
    """Ask again and again on one connection, for that long; return how many seconds each answer took."""
    took_s = []
    request = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    end_s = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
        while (sent_s := time.monotonic()) < end_s:
            sock.sendall(request)
            answer = sock.recv(65536)
            took_s.append(time.monotonic() - sent_s)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise Failed(f"a warm request was not answered well: {answer!r}")
    return took_s


def events(port: int) -> list[float]:
    """Read the stream of `bench.backend`; return how many seconds after it was sent each event was here."""
    took_s = []
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
        sock.sendall(f"GET /events HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        text = b""
        while b"\r\n0\r\n\r\n" not in text:
            data = sock.recv(65536)
            now_ns = time.monotonic_ns()
            if not data:
                raise Failed(f"the stream broke off: {text!r}")
            *whole, text = (text + data).split(b"\n\n")
            took_s += [
                (now_ns - int(event.rpartition(b"data: ")[2])) / 1e9 for event in whole if b"data: " in event
            ]
    return took_s


def first_answer(port: int, path: str, host: str, pause_s: float = 0.001) -> float:
    """Ask as often as it takes until the answer is 200; return when its first byte came."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            asked = get(port, path, host)
        except (OSError, Failed):
            asked = None
        if asked is not None and asked.status == 200:
            return asked.first_byte_s
        time.sleep(pause_s)
    raise Failed(f"{host}:{port} did not answer within {LIMIT_S:g} s")


def upload(port: int, size_bytes: int) -> float:
    """Post that many bytes, and return how many seconds it took until the service said that it has them all."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
        sock.sendall(
            f"POST /upload HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {size_bytes}\r\n\r\n".encode()
        )
        left = size_bytes
        while left:
            left -= sock.send(_PIECE[: min(left, len(_PIECE))])
        answer = b""
        while not answer.endswith(f"\r\n\r\n{size_bytes}".encode()):
            data = sock.recv(65536)
            if not data:
                raise Failed(f"the upload was not answered well: {answer!r}")
            answer += data
    return time.monotonic() - begun
