"""A request's body on its way from the client to the service.

Owns counting it, its limit, and asking for it (`Expect: 100-continue`). Knows nothing of the service's side.
Imports errors and spool.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from autostart import errors
from autostart.proxy.spool import Spool


def let_in(request: web.BaseRequest) -> None:
    """Take in what the client sends: `server` holds every body back until it is wanted."""
    transport = request.transport
    if transport is not None and not transport.is_closing():
        transport.resume_reading()


SetAside = Callable[["Body"], Callable[[], None]]
"""Takes in what the client sends while the service takes nothing; what it returns ends that. See `parking`."""


class Body:
    """The body of one request: what was spooled while it waited, then the rest of the stream.

    `received_bytes` have come from the client, `asked_for` says that somebody has begun to read, `failure` is
    why reading it ended early, and `is_complete` that its end has been reached. `spool` holds what came before
    the rest of the stream and was not read yet.
    """

    def __init__(
        self, request: web.BaseRequest, limit_bytes: int, pause_limit_s: float, set_aside: SetAside
    ) -> None:
        self.received_bytes = 0
        self.asked_for = False
        self.is_complete = False
        self.failure: errors.RequestRefused | None = None
        self.spool: Spool | None = None
        self.request = request
        self._limit_bytes = limit_bytes
        self._pause_limit_s = pause_limit_s
        self._set_aside = set_aside
        self._take_back: Callable[[], None] | None = None
        self._read_from: Spool | None = None
        self._expects_continue = request.headers.get("Expect", "").lower() == "100-continue"

    def is_over(self) -> bool:
        """Say whether more than the limit has come."""
        return self.received_bytes > self._limit_bytes

    def refusal(self) -> errors.RequestRefused | None:
        """Return why this body cannot be passed on, by what has come of it; None where it can."""
        exc = self.request.content.exception()
        if self.is_over():
            self.failure = errors.BodyTooLarge(self._limit_bytes)
        elif isinstance(exc, web.RequestPayloadError):
            self.failure = errors.BadRequest(f"the request body is malformed: {exc}")
        return self.failure

    async def chunks(self, waits_for_client: Callable[[bool], None]) -> AsyncIterator[bytes]:
        """Yield the body in pieces; may be begun again only while `asked_for` is false.

        `waits_for_client` is told whose turn it is: true while the client has to send, false while the service
        has to take. Raises BodyTooLarge, BodyTimeout where the client sends nothing more, or BadRequest where its
        framing is broken.
        """
        self.asked_for = True
        let_in(self.request)
        await self._ask_for_it()
        async for piece in self._pieces(waits_for_client):
            waits_for_client(False)
            self._take_back = self._set_aside(self)
            yield piece
            self._take_back()
            self._refuse_if_unfit()
        waits_for_client(False)
        self.is_complete = True

    async def _pieces(self, waits_for_client: Callable[[bool], None]) -> AsyncIterator[bytes]:
        content = self.request.content
        while self.spool is not None or not content.at_eof():
            if self.spool is not None:
                self._read_from, self.spool = self.spool, None
                async for piece in self._read_from.pieces():
                    yield piece
                self._read_from.close()
                continue
            self._refuse_if_unfit()
            waits_for_client(True)
            try:
                async with asyncio.timeout(self._pause_limit_s):
                    data = await content.readany()
            except TimeoutError:
                self.failure = errors.BodyTimeout(self._pause_limit_s)
                raise self.failure from None
            except web.RequestPayloadError:
                self._refuse_if_unfit()
                raise
            self.received_bytes += len(data)
            self._refuse_if_unfit()
            if data:
                yield data
        self._refuse_if_unfit()

    async def _ask_for_it(self) -> None:
        """Send 100 Continue where the client waits for it (RFC 9110 section 10.1.1)."""
        request = self.request
        if not self._expects_continue or self.received_bytes or request.content.total_bytes:
            return
        self._expects_continue = False
        if request.version >= (1, 1) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0)

    def _refuse_if_unfit(self) -> None:
        if failure := self.refusal():
            raise failure

    def close(self) -> None:
        """Let go of what was spooled."""
        if self._take_back is not None:
            self._take_back()
        for spool in (self._read_from, self.spool):
            if spool is not None:
                spool.close()
