"""The last lines of what a process printed, in bounded memory.

Owns the splitting of a byte stream into lines. Knows no process and no event loop, and imports nothing of
ours.
"""

from collections import deque
from collections.abc import Callable


class OutputTail:
    """A ring of the last lines; whatever is fed to it, it holds at most `most_lines` × `most_line_bytes`.

    A line longer than that is cut, with an ellipsis in place of its rest. Bytes that are not UTF-8 are
    replaced. Of a line that was overwritten with carriage returns (a progress bar) the last version counts,
    as on a terminal; otherwise one download would push everything else out of the ring.
    """

    def __init__(
        self,
        most_lines: int = 200,
        most_line_bytes: int = 4096,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """`on_line` is called with each complete line, none left out."""
        self._lines: deque[str] = deque(maxlen=most_lines)
        self._most_lines = most_lines
        self._most_line_bytes = most_line_bytes
        self._unfinished = bytearray()
        self._on_line = on_line

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, in chunks of any size."""
        first, *others = data.split(b"\n")
        self._extend(first)
        if not others:
            return
        unfinished = others.pop()
        self._finish()
        if self._on_line is None:  # a flood of short lines: decode only those that stay
            others = others[-self._most_lines :]
        for line in others:
            self._extend(line)
            self._finish()
        self._extend(unfinished)

    def last(self, lines: int) -> list[str]:
        """Return at most `lines` last lines, oldest first, with the one that has no newline yet."""
        known = [*self._lines, self._text()] if self._unfinished else list(self._lines)
        return known[-lines:] if lines > 0 else []

    def _extend(self, piece: bytes) -> None:
        self._unfinished += piece
        overwritten = self._unfinished.rfind(b"\r", 0, -1)  # the last byte may be half of a \r\n
        if overwritten >= 0:
            del self._unfinished[: overwritten + 1]
        if len(self._unfinished) > self._most_line_bytes + 1:  # one byte too many says that it was cut
            self._unfinished[self._most_line_bytes + 1 :] = b"\r" if self._unfinished.endswith(b"\r") else b""

    def _finish(self) -> None:
        line = self._text()
        self._unfinished.clear()
        self._lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def _text(self) -> str:
        line = self._unfinished.removesuffix(b"\r")
        cut = len(line) > self._most_line_bytes
        return line[: self._most_line_bytes].decode(errors="replace") + ("…" if cut else "")
