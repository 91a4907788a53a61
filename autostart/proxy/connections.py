"""Connections to services: which of them may be used again, and what is told of one that breaks.

Owns what aiohttp's client does not see by itself. Imports keepalive.
"""

import asyncio
import contextlib
import functools
import os
import select
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from autostart.proxy.keepalive import keep_asking

_READ_BYTES = 2**18
_MOST_LINE_BYTES = 2**16
_MOST_HEADERS = 512
_MOST_HEAD_BYTES = 2**20
"""All headers of an answer together, interim answers included."""
_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_KEEP_S = 4.0
"""Shorter than what common servers keep an idle connection (uvicorn: 5 s), so that few are met dead."""


class Connection(ResponseHandler):
    """A connection to a service. `is_idle` while it is kept for the next request.

    What a service sends on an idle connection was not asked for: an answer that comes twice, say. aiohttp 3.14.5
    takes it for the answer to the next request, which may be another client's. Such a connection ends.

    What the service said before it broke the connection counts. A service that refuses an upload answers, and
    closes while we still send: that is a reset. Left alone, the write that fails goes before the answer that
    waits to be read.
    """

    is_idle = False
    _head_bytes = 0
    _news: "select.poll | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. A service that is dead is found in two minutes, also where an event stream is silent for hours."""
        super().connection_made(transport)
        keep_asking(transport)

    def is_connected(self) -> bool:
        """Say whether it can be used; the connector asks that of idle ones."""
        return super().is_connected() and not (self.is_idle and self._has_news())

    def _has_news(self) -> bool:
        """Say whether the service has sent something, or its end, that the loop has not read yet."""
        assert self.transport is not None
        if self._news is None:
            self._news = select.poll()
            self._news.register(
                self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP
            )
        return bool(self._news.poll(0))

    def set_response_params(self, **options: Any) -> None:
        """Begin to wait for an answer."""
        self.is_idle = False
        self._head_bytes = 0
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Read what came; headers without an end are not for ever."""
        if self.is_idle and data:
            self.close()
            return
        in_head = self._payload is None or self._payload.is_eof()
        super().data_received(data)
        if in_head and not self.upgraded and not self._buffer and self.exception() is None:
            self._head_bytes += len(data)
            if self._head_bytes > _MOST_HEAD_BYTES and self.transport is not None:
                self.set_exception(HeadTooLarge())
                self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Read what has come before the connection broke, then end."""
        if isinstance(exc, OSError) and self.transport is not None and not self._reading_paused:
            with contextlib.suppress(OSError):
                fd = self.transport.get_extra_info("socket").fileno()
                while self.transport is not None and (data := os.read(fd, _READ_BYTES)):
                    self.data_received(data)
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """End with an error, and leave it to `connection_lost` to tell of a write that failed.

        An answer that has begun ends as well, whether its framing broke or the request's body did (aiohttp 3.14.5
        leaves it hanging).
        """
        closing = self.transport is not None and self.transport.is_closing()
        if closing and not self._connection_lost_called and isinstance(exc, aiohttp.ClientOSError):
            return
        super().set_exception(exc, *cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("it is not complete"), exc)
            if self.transport is not None:
                self.transport.abort()


class HeadTooLarge(aiohttp.ClientError):
    """The service's headers have no end."""


class _Connector(aiohttp.TCPConnector):
    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, Connection):
            protocol.is_idle = True
        super()._release(key, protocol, should_close=should_close)


def make_session(*, force_close: bool) -> aiohttp.ClientSession:
    """Return a session that passes everything on as it is; call in the loop."""
    kept: dict[str, Any] = {} if force_close else {"keepalive_timeout": _KEEP_S}
    connector = _Connector(limit=0, force_close=force_close, **kept)
    factory: Any = functools.partial(Connection, loop=asyncio.get_running_loop())
    connector._factory = factory  # noqa: SLF001 - there is no option
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_AUTO_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        read_bufsize=_READ_BYTES,
        max_line_size=_MOST_LINE_BYTES,
        max_field_size=_MOST_LINE_BYTES,
        max_headers=_MOST_HEADERS,
    )
    # It repeats by method alone; `Upstream.ask` knows better when that does no harm.
    session._retry_connection = False  # noqa: SLF001 - there is no option
    return session
