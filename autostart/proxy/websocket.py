"""Relay a WebSocket: once the service has accepted, bytes pass between the two connections as they are.

Nothing is changed, so sub-protocols, compression, fragments, ping, pong and close codes are agreed between the
two ends, messages may have any size, and none is ever held in memory. The headers of the frames are looked at,
to tell messages from the pings that keep an idle tab alive: only messages are use. Imports http.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import StreamWriter

from autostart.proxy.headers import Headers
from autostart.proxy.http import Answer, AnswerCut

_MOST_BUFFERED_BYTES = 2**16


class Frames:
    """Follows one direction of a WebSocket from frame to frame (RFC 6455 section 5.2)."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left_bytes = 0
        self._is_data = False

    def have_data(self, piece: bytes) -> bool:
        """Go on by `piece`, and say whether anything of a text or binary message is in it."""
        at, found = 0, False
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
                    self._head.clear()
                    found |= self._is_data
            at += step
        return found


_CONTROL = 0x08
_LENGTH = 0x7F
_MASKED = 0x80
_LENGTH_BYTES = {126: 2, 127: 8}


def _head_bytes(head: bytearray) -> int:
    """Return how long a frame's header is, as far as its beginning tells; 2 at least."""
    if len(head) < 2:
        return 2
    return 2 + _LENGTH_BYTES.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)


def _payload_bytes(head: bytearray) -> int:
    length = head[1] & _LENGTH
    return int.from_bytes(head[2 : 2 + _LENGTH_BYTES[length]]) if length in _LENGTH_BYTES else length


class _Incoming:
    """What comes in on one connection: takes the place of aiohttp's parser there.

    asyncio's StreamReader pauses the connection while more than twice its limit waits to be passed on.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.stream = asyncio.StreamReader(limit=_MOST_BUFFERED_BYTES)
        self.stream.set_transport(transport)
        self.total_bytes = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.total_bytes += len(data)
        self.stream.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.stream.feed_eof()


class Relay(web.StreamResponse):
    """The two connections of one WebSocket, made when the service has answered 101."""

    def __init__(self, answer: Answer, headers: Headers) -> None:
        super().__init__(status=101, reason="Switching Protocols", headers=headers)
        self._answer = answer
        self._from_client: _Incoming | None = None
        self._from_service: _Incoming | None = None
        self._to_service: StreamWriter | None = None

    @property
    def in_bytes(self) -> int:
        """Bytes that came from the client so far."""
        return self._from_client.total_bytes if self._from_client else 0

    @property
    def out_bytes(self) -> int:
        """Bytes that came from the service so far."""
        return self._from_service.total_bytes if self._from_service else 0

    async def accept(self, request: web.BaseRequest) -> None:
        """Tell the client that its WebSocket is open. Raises AnswerCut where the service has gone already."""
        connection, downstream = self._answer.connection, request.transport
        if connection is None or connection.protocol is None or connection.transport is None:
            raise AnswerCut("it closed the connection right after it had accepted")
        if downstream is None:
            raise ConnectionResetError("the client has gone")
        self.force_close()
        await self.prepare(request)
        self._from_service, self._from_client = _Incoming(connection.transport), _Incoming(downstream)
        self._to_service = StreamWriter(connection.protocol, asyncio.get_running_loop())
        connection.protocol.set_parser(self._from_service, None)
        request.protocol.set_parser(self._from_client)  # type: ignore[arg-type]

    async def run(self, request: web.BaseRequest, used: Callable[[], None]) -> None:
        """Relay until either end closes, after `accept`; then the other half is cancelled and awaited.

        `used` is called whenever something of a message has come, from either end.
        Raises nothing when a connection breaks: the other one is closed. Cancellation (the client has gone,
        the program ends) closes both.
        """
        assert self._from_service is not None
        assert self._from_client is not None
        assert self._to_service is not None
        halves = {
            asyncio.create_task(_pass_on(self._from_service, self, used)),
            asyncio.create_task(_pass_on(self._from_client, self._to_service, used)),
        }
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            if request.transport is not None:
                request.transport.close()
            # Last: a client that leaves ends its half first, and cancels this task a moment later.
            await asyncio.gather(*halves, return_exceptions=True)


async def _pass_on(
    source: _Incoming, target: web.StreamResponse | StreamWriter, used: Callable[[], None]
) -> None:
    frames = Frames()
    while data := await source.stream.read(_MOST_BUFFERED_BYTES):
        if frames.have_data(data):
            used()
        await target.write(data)
