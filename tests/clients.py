"""Clients that do one thing in a thread of their own, while the test does another."""

import threading

import httpx
from program import HOST, Gateway

ENDLESS = "/cgi-bin/endless"


class OpenStream(threading.Thread):
    """Reads an answer without an end; `cut` says whether it ended in an error."""

    def __init__(self, gateway: Gateway, host: str = HOST) -> None:
        super().__init__()
        self.lines = 0
        self.cut: bool | None = None
        self._url = f"http://127.0.0.1:{gateway.port}{ENDLESS}"
        self._host = host

    def run(self) -> None:
        try:
            with httpx.stream("GET", self._url, headers={"Host": self._host}, timeout=60) as answer:
                for _ in answer.iter_lines():
                    self.lines += 1
            self.cut = False
        except httpx.HTTPError:
            self.cut = True


def open_stream(gateway: Gateway) -> OpenStream:
    """Return a client that has got the first of its answer."""
    client = OpenStream(gateway)
    client.start()
    gateway.until(lambda: client.lines > 0)
    return client
