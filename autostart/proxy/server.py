"""aiohttp's low-level server, with answers of our own where a request never becomes one.

Owns what is said to a peer that does not speak HTTP, and how long and how large the headers of a request may be.
Imports errors, keepalive and replies.
"""

import asyncio
import logging
import resource
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from autostart import errors
from autostart.proxy.keepalive import keep_asking
from autostart.proxy.replies import Occasion, reply

_log = logging.getLogger(__name__)

_MOST_LINE_BYTES = 2**15
_MOST_HEAD_BYTES = 2**16
_LINGER_S = 2.0
"""How long a client that was refused may go on sending: closed at once, it would see a reset and no answer."""
_TELLS_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for a client: for the headers of a request once they began, and for the next request."""

    header_s: float
    keep_alive_s: float


class Connection(web.RequestHandler):
    """One connection from a client."""

    __slots__ = ("_body", "_head_bytes", "_head_timer", "_header_limit_s", "_is_refused")

    def __init__(self, server: "Server", *, header_limit_s: float, **options: Any) -> None:
        super().__init__(server, **options)
        self._header_limit_s = header_limit_s
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the last request that was read."""
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. A peer that is dead is found in two minutes, also where nothing is sent for hours."""
        super().connection_made(transport)
        self._time_the_head()
        keep_asking(transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and take no more of a body until somebody wants it (`Body` and `Parking` do).

        Left alone, aiohttp takes half a megabyte of every upload before its handler has had its first turn:
        over a gigabyte where 2,000 come at once. A body whose framing breaks ends with an error (aiohttp
        3.14.5 leaves it hanging).
        """
        begun, in_head = self._request_count, self._body.is_eof() and not self._upgraded
        super().data_received(data)
        queue, request = self._messages, self._current_request
        if self._request_count > begun and queue:
            self._end_of_head(self._head_bytes + len(data), self._request_count - begun)
            if not self._body.is_eof() and self.transport is not None:
                self.transport.pause_reading()
        elif in_head and data and not self._close:
            self._head_bytes += len(data)
            self._time_the_head()
            if self._head_bytes > _MOST_HEAD_BYTES:
                self._refuse(errors.HeadersTooLarge(_MOST_HEAD_BYTES))
        if queue and not isinstance(queue[-1][0], RawRequestMessage):
            body = queue[-2][1] if len(queue) > 1 else request.content if request is not None else None
            if body is not None and not body.is_eof():
                body.set_exception(web.RequestPayloadError("its framing is broken"))

    def _end_of_head(self, came_bytes: int, requests: int) -> None:
        """Take note that so many requests have been read, with at most `came_bytes` of headers together."""
        self._body = self._messages[-1][1]
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if came_bytes <= _MOST_HEAD_BYTES:
            return
        for at in range(len(self._messages) - requests, len(self._messages)):
            if _head_bytes(self._messages[at][0]) > _MOST_HEAD_BYTES:
                while len(self._messages) > at:
                    self._messages.pop()
                self._refuse(errors.HeadersTooLarge(_MOST_HEAD_BYTES))
                return

    def _time_the_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._header_limit_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._messages or self._request_in_progress:
            self._time_the_head()  # its time begins when the request before it has ended
        elif self._head_bytes:
            self._refuse(errors.HeaderTimeout(self._header_limit_s))
        else:
            self.force_close()

    def _refuse(self, error: errors.RequestRefused) -> None:
        """Answer `error` after the requests that have come, and take no more."""
        self._messages.append((_ErrInfo(status=400, exc=error, message=str(error)), EMPTY_PAYLOAD))
        self._request_count += 1
        self._close = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `web.RequestHandler`."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer. Who was refused may still be sending, and is let finish so that the answer arrives."""
        finished = await super().finish_response(request, resp, start_time)
        if self._head_timer is not None:  # begun meanwhile
            self._head_timer.cancel()
            self._head_timer = None
            self._time_the_head()
        if self._is_refused and self.transport is not None and not self.transport.is_closing():
            self._close = True
            self.transport.write_eof()
            self.transport.resume_reading()
            await asyncio.sleep(_LINGER_S)  # cancelled by the client's own end
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, and close. Port scanners come by all day: no traceback for them."""
        error = _refusal(exc, message or "") if status < 500 else errors.AutostartError()
        if exc is not None and status >= 500:
            _log.error("a mistake in autostart", exc_info=exc)
        else:  # without the parser's quotation: it may be of a password
            _log.debug("refused what %s sent: %s", request.remote, error)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer has begun already")
        self._is_refused = status < 500
        response = reply(error, Occasion(request_id=secrets.token_hex(8)))
        response.force_close()
        return response


def _head_bytes(message: RawRequestMessage | _ErrInfo) -> int:
    if not isinstance(message, RawRequestMessage):
        return 0
    return len(message.path) + sum(len(name) + len(value) for name, value in message.raw_headers)


def _refusal(exc: BaseException | None, message: str) -> errors.RequestRefused:
    """Return the error for what the parser, or `Connection`, did not take."""
    if isinstance(exc, errors.RequestRefused):
        return exc
    if isinstance(exc, LineTooLong) or message.startswith("Too many headers"):
        return errors.HeadersTooLarge(_MOST_HEAD_BYTES)
    what = message.partition("\n")[0].rstrip(":") or "malformed"
    return errors.BadRequest(f"this is not a valid HTTP request: {what}")


class Server(web.Server):
    """Makes a `Connection` for every client; `deserted` is set while nobody is connected."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        patience: Patience,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._patience = patience
        self._tells_next = 0.0
        self._clients = 0
        self.deserted = asyncio.Event()
        self.deserted.set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """See `web.Server`."""
        super().connection_made(handler, transport)
        self._clients += 1
        self.deserted.clear()
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if self._clients > most_files * 2 // 3:  # the rest is for services, uploads that wait and the engine
            if self._loop.time() >= self._tells_next:
                self._tells_next = self._loop.time() + _TELLS_EVERY_S
                told = "too many connections: %d are open, more are refused (the limit is %d open files)"
                _log.error(told, self._clients - 1, most_files)
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """See `web.Server`."""
        super().connection_lost(handler, exc)
        self._clients -= 1
        if self._clients == 0:
            self.deserted.set()

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(
            self,
            loop=self._loop,
            header_limit_s=self._patience.header_s,
            keepalive_timeout=self._patience.keep_alive_s,
            max_line_size=_MOST_LINE_BYTES,
            max_field_size=_MOST_LINE_BYTES,
            **self._kwargs,
        )
