"""Where the log's lines go: a pipe, a socket or a terminal, which may be full because its reader has stopped.

Imports nothing of ours. A write to what is full waits, and with it all of autostart would: `autostart serve | less`,
a terminal in which Ctrl-S was pressed, a journal on a disk that hangs.
"""

import contextlib
import logging
import os
import select
import threading
from collections import deque
from typing import TextIO

_MOST_BYTES = 2**22
"""What is kept for a reader that may come back: at 200 bytes a line, some 20,000 lines."""
_FLUSH_LIMIT_S = 2.0


class Sink(logging.Handler):
    """Writes lines to `stream`, and never waits for its reader.

    A line that would have to wait is kept, and a thread writes it; the order stays. Where more than `most_bytes` wait,
    further lines are lost, and one line tells how many when there is room again. Raises OSError for a stream that is
    no file.
    """

    def __init__(self, stream: TextIO, most_bytes: int = _MOST_BYTES) -> None:
        super().__init__()
        self.stream = stream
        self._fd = stream.fileno()
        self._is_terminal = os.isatty(self._fd)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._most_bytes = most_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, now or soon."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as every handler does: logging breaks nothing
            self.handleError(record)
            return
        with self._change:
            if not self._waiting and self._has_room(line):
                line = self._write(line)
            if line:
                self._keep(line)

    def flush(self) -> None:
        """Wait for a moment until what was kept is written; logging asks for it when the program ends."""
        with self._change:
            self._change.wait_for(lambda: not self._waiting, _FLUSH_LIMIT_S)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _has_room(self, line: bytes) -> bool:
        """Say whether `line` can be written at once: so much a pipe takes that takes anything (pipe(7)).

        A terminal says yes while it takes a single byte, and has a writer wait for the rest.
        """
        return not self._is_terminal and len(line) <= select.PIPE_BUF and bool(self._poll.poll(0))

    def _write(self, data: bytes) -> bytes:
        """Write what can be written, and return the rest; nothing is kept for a reader that has gone for good."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody who shares the file has made it so
                break
            except OSError:
                return b""
        return data

    def _keep(self, line: bytes) -> None:
        if self._waiting_bytes + len(line) > self._most_bytes:
            self._lost += 1
        else:
            self._waiting.append(line)
            self._waiting_bytes += len(line)
        if self._thread is None:
            thread = threading.Thread(target=self._empty, name="autostart-log", daemon=True)
            with contextlib.suppress(RuntimeError):  # there is none to be had: the next line asks again
                thread.start()
                self._thread = thread

    def _empty(self) -> None:
        """Write what was kept, in a thread that may wait for it."""
        while True:
            with self._change:
                if not self._waiting:
                    self._thread = None
                    self._change.notify_all()
                    return
                line = self._waiting[0]
            left = line
            while left := self._write(left):
                self._poll.poll()
            with self._change:
                self._waiting.popleft()
                self._waiting_bytes -= len(line)
                if self._lost and not self._waiting:
                    self._tell_of_lost()

    def _tell_of_lost(self) -> None:
        told = {"name": "autostart", "levelno": logging.WARNING, "levelname": "WARNING"}
        told["msg"] = f"{self._lost} log lines were lost: whoever reads the log had stopped"
        self._lost = 0
        with contextlib.suppress(Exception):
            self._keep(self._line(logging.makeLogRecord(told)))
