"""The frames of a WebSocket (RFC 6455 section 5.2): where they begin and end, and one of our own. Pure.

Only their headers are looked at: payloads, compression, masks and reserved bits are the two ends' business.
"""

import os

_CLOSE = 0x8
_CONTROL = 0x08
_FINAL = 0x80
_LENGTH = 0x7F
_MASKED = 0x80
_LENGTH_BYTES = {126: 2, 127: 8}
_OPCODE = 0x0F


class Frames:
    """Follows one direction of a WebSocket from frame to frame."""

    def __init__(self) -> None:
        self.whole_bytes = 0
        """How much of the last piece lies before the end of the last frame that ended in it; 0 where none did."""
        self.has_closed = False
        """A Close has begun: no frame may follow it (RFC 6455 section 5.5.1)."""
        self._head = bytearray()
        self._left_bytes = 0
        self._is_data = False

    @property
    def is_between(self) -> bool:
        """Say whether the next byte begins a frame, so that a control frame may be put in before it."""
        return not self._left_bytes and not self._head

    def have_data(self, piece: bytes) -> bool:
        """Go on by `piece`, and say whether anything of a text or binary message is in it."""
        at, found = 0, False
        self.whole_bytes = 0
        while at < len(piece):
            if self._left_bytes:
                found |= self._is_data
                step = min(self._left_bytes, len(piece) - at)
                self._left_bytes -= step
            else:
                step = min(_head_bytes(self._head) - len(self._head), len(piece) - at)
                self._head += piece[at : at + step]
                if len(self._head) == _head_bytes(self._head):
                    self._is_data = not self._head[0] & _CONTROL
                    self._left_bytes = _payload_bytes(self._head)
                    self.has_closed |= self._head[0] & _OPCODE == _CLOSE
                    self._head.clear()
                    found |= self._is_data
            at += step
            if self.is_between:
                self.whole_bytes = at
        return found


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """Return a Close; `masked` for a service, as what a client sends has to be. `reason`: 123 bytes at most."""
    payload = code.to_bytes(2) + reason.encode()
    head = bytes([_FINAL | _CLOSE, len(payload) | (_MASKED if masked else 0)])
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def _head_bytes(head: bytearray) -> int:
    """Return how long a frame's header is, as far as its beginning tells; 2 at least."""
    if len(head) < 2:
        return 2
    return 2 + _LENGTH_BYTES.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)


def _payload_bytes(head: bytearray) -> int:
    length = head[1] & _LENGTH
    return int.from_bytes(head[2 : 2 + _LENGTH_BYTES[length]]) if length in _LENGTH_BYTES else length
