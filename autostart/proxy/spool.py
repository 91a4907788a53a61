"""A file without a name that holds the part of an upload that came while its service was starting.

Owns the file and the budget that all of them share. Imports nothing of ours. File I/O happens in a thread:
a slow disk must not stop the loop.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


_PIECES_BYTES = 2**24
"""What all pieces in memory may come to, when a start ends and everything that waited is read at once."""
_SMALLEST_PIECE_BYTES = 2**14
_LARGEST_PIECE_BYTES = 2**18


class SpoolArea:
    """Where spools lie: the directory, the bytes that are left for all of them, and threads of their own.

    The loop's default threads may all be waiting for something else. `spools` are open now.
    """

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.directory = directory
        self.left_bytes = size_bytes
        self.spools = 0
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="autostart-spool")
        try:
            os.close(_open_nameless(directory))
        except OSError as exc:
            told = "spoolDir=%s is of no use: uploads wait in their clients while a service starts (%s)"
            _log.error(told, directory, exc.strerror)

    def run(self, call: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
        """Run `call` in one of the threads."""
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @property
    def piece_bytes(self) -> int:
        """How much to read at a time: the more spools there are, the less of each."""
        return max(_SMALLEST_PIECE_BYTES, min(_LARGEST_PIECE_BYTES, _PIECES_BYTES // max(1, self.spools)))

    def let_go(self, fd: int) -> None:
        """Close a file in one of the threads: that frees its blocks, 23 to 65 ms for 500 MB, and nobody waits for it."""
        try:
            self._threads.submit(os.close, fd)
        except RuntimeError:  # the threads have ended
            os.close(fd)

    def close(self) -> None:
        """End the threads once they have done what they were given."""
        self._threads.shutdown(wait=False)


class Spool:
    """One upload's file. Written by one task, read by another after it; closed from anywhere, at any time."""

    def __init__(self, area: SpoolArea) -> None:
        self._area = area
        area.spools += 1
        self._fd: int | None = None
        self._size = 0
        self._unwritten = b""
        self._busy: asyncio.Future[None] | None = None
        self._closed = False
        self.failed = False

    async def append(self, data: bytes) -> None:
        """Write `data` behind the rest. Where the disk refuses, keep it in memory and take no more: `failed`."""
        self._area.left_bytes -= len(data)
        self._size += len(data)
        self._busy = self._area.run(self._write, data)
        self._busy.add_done_callback(self._written)
        await asyncio.wait({self._busy})

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            if self._fd is None:
                self._fd = _open_nameless(self._area.directory)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self._unwritten = bytes(view)
            self.failed = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield what was written, in pieces; call once, when nobody appends any more."""
        if self._busy is not None:
            await asyncio.wait({self._busy})
        written = self._size - len(self._unwritten)
        offset = 0
        while offset < written and self._fd is not None:
            data = await self._area.run(os.pread, self._fd, self._area.piece_bytes, offset)
            if not data:
                raise OSError("the spool file is shorter than what was written to it")
            offset += len(data)
            yield data
        if self._unwritten:
            yield self._unwritten

    def _written(self, _: object) -> None:
        self._busy = None
        if self._closed:
            self._drop()

    def close(self) -> None:
        """Give the room back; a write under way is let end first, or its descriptor could be another's by then."""
        if not self._closed:
            self._closed = True
            self._area.spools -= 1
            self._area.left_bytes += self._size
            if self._busy is None:
                self._drop()

    def _drop(self) -> None:
        self._unwritten = b""
        if self._fd is not None:
            self._area.let_go(self._fd)
            self._fd = None


def _open_nameless(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system has O_TMPFILE
        fd, name = tempfile.mkstemp(dir=directory, prefix="autostart-")
        Path(name).unlink()
        return fd
