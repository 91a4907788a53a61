"""Ask a service over HTTP, and pass its answer on.

With `connections` the only module that knows aiohttp's ClientSession, so that an upstream protocol of our own can
take its place (DESIGN.md section 7: it is most of the cost of a small request). Imports config, errors, body,
headers and runtime.base.

Two kinds of connections: kept ones, for requests that may be asked again without harm when the connection
turns out to be dead, and fresh ones for all others, so that an upload never meets a dead connection.
"""

import asyncio
import contextlib
import functools
import socket
import struct
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from aiohttp import hdrs, web

from autostart import errors
from autostart.proxy.body import Body
from autostart.proxy.connections import HeadTooLarge, make_session
from autostart.proxy.headers import Headers, unpassable
from autostart.runtime.base import Endpoint

Answer = aiohttp.ClientResponse

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110 section 9.2.2
_TOO_LARGE = ("Got more than", "Too many headers")
"""How aiohttp 3.14.5 says so."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing throws away what was not sent, and tells the peer."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a service is asked, and how long that may take. `service` is its host name in the configuration."""

    service: str
    endpoint: Endpoint
    method: str
    target: str
    headers: Headers
    body: Body | None
    connect_timeout_s: float
    response_timeout_s: float

    @property
    def asks_for_upgrade(self) -> bool:
        """Say whether the service may answer with 101."""
        return hdrs.UPGRADE in self.headers


class AnswerCut(Exception):
    """The service broke off in the middle of its answer."""


class Upstream:
    """The connections to all services. Made without a loop; `end` and then `close` end it."""

    def __init__(self) -> None:
        self._asking: set[asyncio.Timeout] = set()
        self._is_ending = False
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def ask(self, question: Question) -> Answer:
        """Send the request and return the answer as soon as its headers are there; its body is still to come.

        The body is sent while the answer is waited for, and after that as long as the answer goes on. The
        caller leaves the answer by `async with`. Raises UpstreamFailed, UpstreamTimeout, ShuttingDown, and what
        reading the body raises. Cancellation closes the connection.
        """
        body = question.body
        repeatable = question.method in _IDEMPOTENT
        first = self._session(kept=repeatable and body is None)
        try:
            return await self._ask(first, question)
        except _Failed as exc:
            nothing_sent = isinstance(exc.__cause__, aiohttp.ClientConnectorError) or (
                body is None and repeatable
            )
            if not nothing_sent or (body is not None and body.asked_for):
                raise errors.UpstreamFailed(question.service, str(exc)) from exc
        try:
            return await self._ask(self._session(kept=False), question)
        except _Failed as exc:
            raise errors.UpstreamFailed(question.service, str(exc)) from exc

    async def _ask(self, session: aiohttp.ClientSession, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        limit_s, body = question.response_timeout_s, question.body
        begun = loop.time()
        has_answered = False

        def waits_for_client(is_waiting: bool) -> None:  # noqa: FBT001 - a callback of one argument
            if not (has_answered or self._is_ending):
                silence.reschedule(None if is_waiting else loop.time() + limit_s)

        data: Any = None if body is None else body.chunks(waits_for_client)
        try:
            async with asyncio.timeout(limit_s) as silence:
                self._asking.add(silence)
                answer = await session.request(
                    question.method,
                    _url(question.endpoint, question.target),
                    headers=question.headers,
                    data=data,
                    allow_redirects=False,
                    timeout=_connect_limit(question.connect_timeout_s),
                )
        except aiohttp.ConnectionTimeoutError as exc:
            raise _Failed(f"no connection within {question.connect_timeout_s:g} s") from exc
        except TimeoutError:
            if self._is_ending:
                raise errors.ShuttingDown(question.service) from None
            raise errors.UpstreamTimeout(question.service, loop.time() - begun) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            if body is not None and body.failure is not None:
                raise body.failure from exc
            raise _Failed(_describe(exc)) from exc
        finally:
            has_answered = True
            self._asking.discard(silence)
        why = unpassable(
            answer.status, answer.reason or "", answer.headers, upgrade=question.asks_for_upgrade
        )
        if why:
            _drop(answer)
            raise errors.UpstreamFailed(question.service, why)
        return answer

    def _session(self, *, kept: bool) -> aiohttp.ClientSession:
        if self._kept is None or self._fresh is None:
            self._kept, self._fresh = make_session(force_close=False), make_session(force_close=True)
        return self._kept if kept else self._fresh

    def end(self) -> None:
        """Let everybody who waits for an answer to begin be told that autostart stops."""
        self._is_ending = True
        for silence in self._asking:
            if not silence.expired():
                silence.reschedule(0.0)

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        self._kept = self._fresh = None


class _Failed(Exception):
    """The service did not answer; the message says how, in words."""


@functools.lru_cache
def _connect_limit(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=seconds)


def _url(endpoint: Endpoint, target: str) -> yarl.URL:
    """Return a URL whose path *is* the request target, query and all, so that not a byte of it changes."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return yarl.URL.build(scheme="http", host=host, port=endpoint.port, path=target, encoded=True)


def _describe(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"no connection ({exc.os_error.strerror or exc.os_error})"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(exc, HeadTooLarge):
        return "its headers are too large"
    if isinstance(exc, aiohttp.ClientResponseError):
        too_large = exc.message.startswith(_TOO_LARGE)
        return "its headers are too large" if too_large else "what it answered is not HTTP"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "the body of its answer is not complete"
    if isinstance(exc, OSError) and exc.strerror:
        return f"the connection broke ({exc.strerror})"
    return f"the connection broke ({type(exc).__name__})"


class Passed(web.StreamResponse):
    """The service's answer on its way to the client; `sent_bytes` counts its body."""

    def __init__(self, answer: Answer, headers: Headers) -> None:
        super().__init__(status=answer.status, reason=answer.reason or "", headers=headers)
        self.sent_bytes = 0
        self._answer = answer
        self._has_type = hdrs.CONTENT_TYPE in headers
        # What is there as a whole leaves in one piece, headers and body; what trickles begins at once.
        self._send_headers_immediately = not answer.content.is_eof()

    async def _write_headers(self) -> None:
        if not self._has_type:  # aiohttp would have us claim to know it
            self.headers.popall(hdrs.CONTENT_TYPE, None)
        await super()._write_headers()

    async def pass_on(self, request: web.BaseRequest) -> None:
        """Send the answer, piece by piece as it comes, without a limit in time or size.

        Raises AnswerCut where the service breaks off: the connection to the client is closed then, so that
        what it got cannot be taken for the whole. Raises ConnectionError when the client has gone.
        """
        await self.prepare(request)
        content = self._answer.content
        while True:
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError) as exc:
                break_off(request, self)
                raise AnswerCut(_describe(exc)) from exc
            if not data:
                break
            self.sent_bytes += len(data)
            await self.write(data)
        if _was_reset(self._answer):
            break_off(request, self)
            raise AnswerCut("the connection broke")
        await self.write_eof()


def _drop(answer: Answer) -> None:
    """Close an answer and its connection, also where that was given back already."""
    protocol = answer._protocol  # noqa: SLF001 - `connection` is None once the end was seen
    answer.close()
    if protocol is not None:
        protocol.close()


def _was_reset(answer: Answer) -> bool:
    """Say whether an answer that ends with its connection ended with a reset: aiohttp takes that for an end."""
    if "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers:
        return False
    protocol = answer._protocol  # noqa: SLF001 - `connection` is None once the end was seen
    return protocol is not None and isinstance(protocol.exception(), OSError)


def break_off(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """End an answer so that it cannot be taken for the whole; its handler is cancelled then."""
    transport = request.transport
    if transport is None:
        return
    if response.chunked or request.version >= (1, 1) or hdrs.CONTENT_LENGTH in response.headers:
        transport.close()  # what was written still arrives; the framing tells that it is not all
    else:  # its end is the connection's: only a reset tells it from a good one
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
