"""What uvicorn's HTTP protocol leaves open: limits below the application, and errors in OpenAI's shape.

Owns the limits on headers, chunk extensions and trailers, in bytes and in time, and how a connection ends. What of it
depends on uvicorn's insides was read in 0.54.
"""

import asyncio
import json
import uuid
from typing import Any

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from speech_common.replies import error_body

MAX_HEADER_BYTES = 64 * 1024
# A body sent a byte at a time takes 6 bytes for each. What is over it is chunk extensions and trailers, which nobody
# reads, and which no limit of the body counts.
_CHUNKING_SHARE = 8
# Less than the server waits for its last answers.
_LAST_LINGERS_S = 1.0
_REASONS = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    | state     | it waits for          | and ends                                                             |
    |-----------|-----------------------|----------------------------------------------------------------------|
    | head      | the end of the head   | after `head_within_s`, unless an answer is still on its way          |
    | body      | the application       | as the application answers; it limits how long a body may take       |
    | idle      | a first byte          | after uvicorn's `timeout_keep_alive`                                 |
    | lingering | the client to be done | after `lingers_s`: an answer went out, and what still comes is waste |

    The parser would collect a header without end: 20 MB took 0.2 s, 40 MB 1.4 s.
    """

    head_within_s = 30.0
    lingers_s = 30.0

    _header_bytes = 0
    _in_header = True
    _received_bytes = 0
    _body_bytes = 0
    _is_lingering = False
    _upgrades = False
    # With pipelining, what is being answered is not what came last, which is uvicorn's `cycle`.
    _answered: RequestResponseCycle | None = None
    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(self.head_within_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered. Uvicorn tells the last one that came, which may wait behind it."""
        self._end_limit()
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is one header, or chunking, too long."""
        if self._is_lingering:
            return
        if self._in_header:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and b"\r\n\r\n" not in data[:MAX_HEADER_BYTES]:
                self._refuse(431, f"The request's headers are over {MAX_HEADER_BYTES} bytes.")
                return
            if self._limit is None:
                self._limit = self.loop.call_later(self.head_within_s, self._head_is_late)
            self._feed(data)
            return
        self._received_bytes += len(data)
        self._feed(data)
        if self._received_bytes - _CHUNKING_SHARE * self._body_bytes > MAX_HEADER_BYTES:
            self._refuse(
                431, f"The request's trailers or chunk extensions are over {MAX_HEADER_BYTES} bytes."
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header. A trailer is dropped (RFC 9110, section 6.5): it would be appended to the headers."""
        if self._in_header:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop counting: what follows is the body, which has limits of its own."""
        self._upgrades = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._upgrades:
            return  # for `_feed` to begin again
        self._in_header = False
        self._end_limit()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count what the application gets."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count anew: what follows is the next request."""
        if self._upgrades:
            return
        self._in_header = True
        self._header_bytes = self._received_bytes = self._body_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close in stages where the request was answered before it was read (RFC 9112, section 9.6)."""
        if not self._is_lingering:
            super().on_response_complete()
        elif not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()
            self._limit = self.loop.call_later(self.lingers_s, self.transport.close)

    def shutdown(self) -> None:
        """End as soon as what is being answered is; uvicorn calls it when the server ends."""
        self.lingers_s = min(self.lingers_s, _LAST_LINGERS_S)
        super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, self._lingering_where_unread(cycle, app))

    def _lingering_where_unread(self, cycle: RequestResponseCycle, app: ASGIApp) -> Any:
        """Have an answer that comes before the end of its request say that the connection ends with it.

        What was refused would else be received to its end. Closing at once would be worse: where data arrives after that,
        many systems throw away the answer that their client has not read yet.
        """

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_linger(message: Message) -> None:
                if message["type"] != "http.response.start" or not cycle.more_body:
                    await send(message)
                    return
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                await send({**message, "headers": headers})
                cycle.keep_alive = True  # or uvicorn would close it
                self._is_lingering = True

            await app(scope, receive, send_and_linger)

        return answer

    def _feed(self, data: bytes) -> None:
        """Parse. Where an upgrade is offered, the parser sees no body: begin again without the offer.

        A server may ignore it (RFC 9110, section 7.8). Java's HttpClient and `curl --http2` make one with every request
        (uvicorn#2722).
        """
        self._unset_keepalive_if_required()
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self._upgrades:
                    data = self._head_without_upgrade() + data[offer.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                    continue
            except httptools.HttpParserError:
                self._refuse(400, "Invalid HTTP request received.")
            return

    def _head_without_upgrade(self) -> bytes:
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _head_is_late(self) -> None:
        self._limit = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _end_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_started:
            answered = self.cycle.response_complete and self._in_header
            if not answered:
                self.transport.close()  # an answer, or half of one, is out: another one would be taken for the next
                return
        body = json.dumps(error_body(message, "invalid_request_error", None, "malformed_request")).encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
            b"x-request-id: %s\r\n\r\n%s"
            % (status, _REASONS[status], len(body), uuid.uuid4().hex.encode(), body)
        )
        self.transport.close()
