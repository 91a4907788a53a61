"""Relay a WebSocket: once the service has accepted, bytes pass between the two connections as they are.

Nothing is changed, so sub-protocols, compression, fragments, ping, pong and close codes are agreed between the
two ends, messages may have any size, and none is ever held in memory. The headers of the frames are looked at,
to tell messages from the pings that keep an idle tab alive: only messages are use. Imports frames and http.

The one thing said in addition is the end: when autostart stops, the client gets a Close of its own (1012, the
service restarts: come again) and the service one (1001, going away), each where no frame is cut by it.

Dead peers are found by TCP's keepalive (`keepalive`), and not by pings of ours. Keepalive asks the peer's kernel,
which answers for a busy program too; a ping asks the program, and one that sends for an hour and reads only
then would be cut for its silence. TCP_USER_TIMEOUT would cut clients that merely read nothing for a while.
Behind nginx, the peer is nginx: there `so_keepalive=on` finds the dead, and `proxy_read_timeout` the silent.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.http import StreamWriter

from autostart.proxy.frames import Frames, close_frame
from autostart.proxy.headers import Headers
from autostart.proxy.http import Answer, AnswerCut

_MOST_BUFFERED_BYTES = 2**16
_LAST_WORDS_S = 1.0
"""How long a service may take for what its client had sent before it left."""
_GOING_AWAY = 1001
_SERVICE_RESTART = 1012
"""Of the registry of close codes that RFC 6455 section 11.7 began."""
_REASON = "autostart stops"


class _Incoming:
    """What comes in on one connection: takes the place of aiohttp's parser there.

    asyncio's StreamReader pauses the connection while more than twice its limit waits to be passed on, from
    `follow` on.
    """

    def __init__(self) -> None:
        self.stream = asyncio.StreamReader(limit=_MOST_BUFFERED_BYTES)
        self.total_bytes = 0

    def follow(self, transport: asyncio.Transport) -> None:
        """Let what waits hold the connection back; after aiohttp has handed over what came early.

        For then it resumes reading: a StreamReader that had paused it would never notice, and take everything.
        """
        self.stream.set_transport(transport)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.total_bytes += len(data)
        self.stream.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.stream.feed_eof()


class _Half:
    """One direction of a relay: what `source` says passes to `target`, until the source ends or `end` is called.

    `used` is called whenever something of a message has come.
    """

    def __init__(self, source: _Incoming, target: StreamWriter, used: Callable[[], None]) -> None:
        self._source, self._target, self._used = source, target, used
        self._frames = Frames()
        self._last_frame = b""
        self._has_ended = False

    async def run(self) -> None:
        """Pass on. Once ended, only wait for the source's own Close, or its end. Raises ConnectionError."""
        while data := await self._source.stream.read(_MOST_BUFFERED_BYTES):
            has_data = self._frames.have_data(data)
            if self._has_ended:
                if self._frames.has_closed:
                    return
                continue
            if has_data:
                self._used()
            if self._last_frame and self._frames.whole_bytes and not self._frames.has_closed:
                data = data[: self._frames.whole_bytes] + self._last_frame
                self._has_ended = True
            await self._target.write(data)

    def end(self, frame: bytes) -> None:
        """Let `frame`, a Close, be the last one that passes: now, or after the one that is half passed."""
        if self._last_frame or self._frames.has_closed:
            return
        self._last_frame = frame
        transport = self._target.transport
        # What was followed has been written: `run` awaits nothing between the two.
        if self._frames.is_between and transport is not None and not transport.is_closing():
            transport.write(frame)
            self._has_ended = True


class Relay(web.StreamResponse):
    """The two connections of one WebSocket, made when the service has answered 101."""

    def __init__(self, answer: Answer, headers: Headers) -> None:
        super().__init__(status=101, reason="Switching Protocols", headers=headers)
        self.answer = answer
        self._from_client, self._from_service = _Incoming(), _Incoming()
        self._writers: tuple[StreamWriter, StreamWriter] | None = None
        self._to_service: _Half | None = None
        self._to_client: _Half | None = None
        self._is_ending = False

    @property
    def in_bytes(self) -> int:
        """Bytes that came from the client so far."""
        return self._from_client.total_bytes

    @property
    def out_bytes(self) -> int:
        """Bytes that came from the service so far."""
        return self._from_service.total_bytes

    async def accept(self, request: web.BaseRequest) -> None:
        """Tell the client that its WebSocket is open. Raises AnswerCut where the service has gone already."""
        connection, downstream = self.answer.connection, request.transport
        if connection is None or connection.protocol is None or connection.transport is None:
            raise AnswerCut("it closed the connection right after it had accepted")
        if downstream is None:
            raise ConnectionResetError("the client has gone")
        upstream, loop = connection.transport, asyncio.get_running_loop()
        self.force_close()
        await self.prepare(request)
        self._writers = StreamWriter(connection.protocol, loop), StreamWriter(request.protocol, loop)
        connection.protocol.set_parser(self._from_service, None)
        request.protocol.set_parser(self._from_client)  # type: ignore[arg-type]
        self._from_service.follow(upstream)
        self._from_client.follow(downstream)

    async def run(self, request: web.BaseRequest, used: Callable[[], None]) -> None:
        """Relay until either end closes, after `accept`; then the other half is cancelled and awaited.

        `used` is called whenever something of a message has come, from either end.
        Raises nothing when a connection breaks: the other one is closed. Cancellation (the client has gone,
        the program ends) closes both; what a client has said before it left still goes to the service.
        """
        assert self._writers is not None, "accepted"
        service, client = self._writers
        self._to_service = _Half(self._from_client, service, used)
        self._to_client = _Half(self._from_service, client, used)
        inward, outward = (asyncio.create_task(half.run()) for half in (self._to_service, self._to_client))
        try:
            await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_ending:  # closed before the client has read its Close, the connection might lose it
                await asyncio.wait({inward})
        except asyncio.CancelledError:
            if request.transport is None:
                await asyncio.wait({inward}, timeout=_LAST_WORDS_S)
            raise
        finally:
            for half in (inward, outward):
                half.cancel()
            if request.transport is not None:
                request.transport.close()
            # Last: a client that leaves ends its half first, and cancels this task a moment later.
            await asyncio.gather(inward, outward, return_exceptions=True)

    def end(self) -> None:
        """Ask both ends to close; `run` returns when the client has answered, or left."""
        assert self._to_service is not None, "it runs"
        assert self._to_client is not None, "it runs"
        self._is_ending = True
        self._to_client.end(close_frame(_SERVICE_RESTART, _REASON, masked=False))
        self._to_service.end(close_frame(_GOING_AWAY, _REASON, masked=True))


class Sockets:
    """The WebSockets that are open."""

    def __init__(self) -> None:
        self.open: dict[Relay, asyncio.Future[None]] = {}

    async def run(self, relay: Relay, request: web.BaseRequest, used: Callable[[], None]) -> None:
        """Run a relay, see `Relay.run`, as one that `close` ends."""
        self.open[relay] = asyncio.get_running_loop().create_future()
        try:
            await relay.run(request, used)
        finally:
            self.open.pop(relay).set_result(None)

    async def close(self, limit_s: float) -> None:
        """Tell everybody that autostart stops, and give all together `limit_s` seconds to answer that."""
        for relay in self.open:
            relay.end()
        if self.open:
            await asyncio.wait(self.open.values(), timeout=limit_s)
