"""Moments that other processes tell of, on one clock: a fifo into which they write a word.

A container writes into it through a bind mount: it is the same kernel.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.stand import Failed

_LIMIT_S = 10.0


class Marks:
    """The moments told since `clear`. A line is "word", stamped as it is read, or "word nanoseconds"."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told: dict[str, float] = {}
        self._news = threading.Condition()

    @contextlib.contextmanager
    def reading(self) -> Iterator["Marks"]:
        """Make the fifo, and read it in a thread for the body of the `with`."""
        os.mkfifo(self.path, 0o666)
        # Open for writing too: it never ends, and nobody who writes has to wait for a reader.
        fd = os.open(self.path, os.O_RDWR)
        thread = threading.Thread(target=self._read, args=(fd,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            os.write(fd, b"end\n")
            thread.join(_LIMIT_S)
            os.close(fd)

    def _read(self, fd: int) -> None:
        while True:
            data = os.read(fd, 4096)
            now = time.monotonic()
            for line in data.decode().splitlines():
                word, _, stamp = line.partition(" ")
                if word == "end":
                    return
                with self._news:
                    self._told[word] = int(stamp) / 1e9 if stamp else now
                    self._news.notify_all()

    def clear(self) -> None:
        """Forget what was told."""
        with self._news:
            self._told.clear()

    def wait(self, word: str) -> float:
        """Return when `word` was told, in monotonic seconds; wait for it. Raises Failed."""
        with self._news:
            if not self._news.wait_for(lambda: word in self._told, _LIMIT_S):
                raise Failed(f"nobody told of {word!r} within {_LIMIT_S:g} s")
            return self._told[word]
