"""Work for a client only as long as it is there. Knows the framework's requests; imports nothing of ours."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; when the client leaves before, cancel it and raise ClientDisconnect.

    The body of `request` must have been read: what still comes is only the end of the connection.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await _wait_for_end(working, leaving)


async def in_thread(call: Callable[[], T]) -> T:
    """Return what `call` returns, called in a thread. When cancelled, it waits for the end of the call all the same.

    A thread cannot be cut off, and what it was given may not be freed under its hands.
    """
    task = asyncio.create_task(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    finally:
        await _wait_for_end(task)


class Stream(Response):
    """A body in pieces, for as long as the client is there. `on_end` is called when they ended, or it left."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        on_end: Callable[[], None] | None = None,
        *,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. Raises ClientDisconnect."""
        try:
            async with aclosing(self._pieces):
                await while_connected(Request(scope, receive), self._send(send))
        finally:
            if self._on_end is not None:
                self._on_end()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventStream(Stream):
    """Server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], on_end: Callable[[], None] | None = None) -> None:
        # Without the last one, nginx would keep events back until 4 kB of them are there.
        super().__init__(events, on_end, headers={"cache-control": "no-cache", "x-accel-buffering": "no"})


async def _wait_for_end(*tasks: asyncio.Task[Any]) -> None:
    """Wait until all are done, also when cancelled meanwhile, and again: it is passed on afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as exc:
            cancelled = exc
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, for a caller that has gone
    if cancelled is not None:
        raise cancelled


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
