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


class Body:
    """The body of one request: what was spooled while it waited, then the rest of the stream.

    `received_bytes` have come from the client, `asked_for` says that somebody has begun to read, `failure` is
    why reading it ended early, and `is_complete` that its end has been reached.
    """

    def __init__(self, request: web.BaseRequest, limit_bytes: int) -> None:
        self.received_bytes = 0
        self.asked_for = False
        self.is_complete = False
        self.failure: errors.RequestRefused | None = None
        self.spool: Spool | None = None
        self._request = request
        self._limit_bytes = limit_bytes
        self._expects_continue = request.headers.get("Expect", "").lower() == "100-continue"

    def is_over(self) -> bool:
        """Say whether more than the limit has come."""
        return self.received_bytes > self._limit_bytes

    async def chunks(self, waits_for_client: Callable[[bool], None]) -> AsyncIterator[bytes]:
        """Yield the body in pieces; may be begun again only while `asked_for` is false.

        `waits_for_client` is told whose turn it is: true while the client has to send, false while the service
        has to take. Raises BodyTooLarge, or BadRequest where the client's framing is broken.
        """
        self.asked_for = True
        content = self._request.content
        try:
            if self.spool is not None:
                async for piece in self.spool.pieces():
                    yield piece
                self.spool.close()
            let_in(self._request)
            await self._ask_for_it()
            while not content.at_eof():
                self._refuse_if_over()
                waits_for_client(True)
                data = await content.readany()
                waits_for_client(False)
                self.received_bytes += len(data)
                self._refuse_if_over()
                if data:
                    yield data
            self._refuse_if_over()
            self.is_complete = True
        except web.RequestPayloadError as exc:
            self.failure = errors.BadRequest(f"the request body is malformed: {exc}")
            raise self.failure from exc

    async def _ask_for_it(self) -> None:
        """Send 100 Continue where the client waits for it (RFC 9110 section 10.1.1)."""
        request = self._request
        if not self._expects_continue or self.received_bytes or request.content.total_bytes:
            return
        self._expects_continue = False
        if request.version >= (1, 1) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0)

    def _refuse_if_over(self) -> None:
        if self.is_over():
            self.failure = errors.BodyTooLarge(self._limit_bytes)
            raise self.failure

    def close(self) -> None:
        """Let go of what was spooled."""
        if self.spool is not None:
            self.spool.close()
