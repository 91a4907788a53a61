"""Relay a WebSocket: once the service has accepted, bytes pass between the two connections as they are.

Nothing is taken apart, so sub-protocols, compression, fragments, ping, pong and close codes are agreed
between the two ends, messages may have any size, and none is ever held in memory. Imports http.
"""

import asyncio

from aiohttp import web
from aiohttp.http import StreamWriter

from autostart.proxy.headers import Headers
from autostart.proxy.http import Answer, AnswerCut

_MOST_BUFFERED_BYTES = 2**16


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

    async def run(self, request: web.BaseRequest) -> None:
        """Relay until either end closes, after `accept`; then the other half is cancelled and awaited.

        Raises nothing when a connection breaks: the other one is closed. Cancellation (the client has gone,
        the program ends) closes both.
        """
        assert self._from_service is not None
        assert self._from_client is not None
        assert self._to_service is not None
        halves = {
            asyncio.create_task(_pass_on(self._from_service, self)),
            asyncio.create_task(_pass_on(self._from_client, self._to_service)),
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


async def _pass_on(source: _Incoming, target: web.StreamResponse | StreamWriter) -> None:
    while data := await source.stream.read(_MOST_BUFFERED_BYTES):
        await target.write(data)
