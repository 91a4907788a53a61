"""aiohttp's low-level server, with answers of our own where a request never becomes one.

Owns what is said to a peer that does not speak HTTP. Imports errors and replies.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

from autostart import errors
from autostart.proxy.replies import Occasion, reply

_log = logging.getLogger(__name__)

_KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}
"""Seconds without a byte until the peer's kernel is asked, seconds between that, and how often (Linux: 2 hours)."""


class Connection(web.RequestHandler):
    """One connection from a client."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. A peer that is dead is found in two minutes, also where nothing is sent for hours."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            for option, value in _KEEPALIVE.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and take no more of a body until somebody wants it (`Body` and `Parking` do).

        Left alone, aiohttp takes half a megabyte of every upload before its handler has had its first turn:
        over a gigabyte where 2,000 come at once. A body whose framing breaks ends with an error (aiohttp
        3.14.5 leaves it hanging).
        """
        begun = self._request_count
        super().data_received(data)
        queue, request = self._messages, self._current_request
        if self._request_count > begun and queue and not queue[-1][1].is_eof() and self.transport is not None:
            self.transport.pause_reading()
        if queue and not isinstance(queue[-1][0], RawRequestMessage):
            body = queue[-2][1] if len(queue) > 1 else request.content if request is not None else None
            if body is not None and not body.is_eof():
                body.set_exception(web.RequestPayloadError("its framing is broken"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, and close. Port scanners come by all day: no traceback for them."""
        if exc is not None and status >= 500:
            _log.error("a mistake in autostart", exc_info=exc)
        else:
            _log.debug("refused what %s sent: %s", request.remote, exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer has begun already")
        what = (message or "").partition("\n")[0].rstrip(":") or "malformed"
        error = (
            errors.BadRequest(f"this is not a valid HTTP request: {what}")
            if status < 500
            else errors.AutostartError()
        )
        response = reply(error, Occasion(request_id=secrets.token_hex(8)))
        response.force_close()
        return response


class Server(web.Server):
    """Makes a `Connection` for every client; `deserted` is set while nobody is connected."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any
    ) -> None:
        super().__init__(handler, **options)
        self._clients = 0
        self.deserted = asyncio.Event()
        self.deserted.set()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """See `web.Server`."""
        super().connection_made(handler, transport)
        self._clients += 1
        self.deserted.clear()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """See `web.Server`."""
        super().connection_lost(handler, exc)
        self._clients -= 1
        if self._clients == 0:
            self.deserted.set()

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
