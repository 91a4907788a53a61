"""Uploads that wait for a start: little memory each, and one whose client leaves is noticed.

aiohttp reads ahead up to half a megabyte of every upload, and a connection that is not read does not tell of
its end. So, while an upload waits here:

- nothing is read by aiohttp; a second epoll watches all parked sockets at once, for data and for the end;
- one task takes what has come, one upload at a time and a piece at a time, and puts it into a file without a
  name. It also overlaps a slow upload with the start. It is needed to notice who leaves, too: a TCP client's
  FIN queues behind the data that nobody takes;
- once the room for such files is used up, an upload is only watched: then a TCP client that leaves while its
  send queue is full goes unnoticed until somebody reads on.

The same is done for an upload whose service is ready and takes nothing for a while.

Measured: see `bench`. Owns the watching; imports body and spool. No TLS: the pieces are read off the socket.
"""

import asyncio
import contextlib
import ctypes
import os
import select
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from autostart.proxy.body import Body, let_in
from autostart.proxy.spool import Spool, SpoolArea

_PIECE_BYTES = 2**16
_SMALL_BYTES = 2**13
"""A body that is there as a whole and no larger than this stays in memory."""
_TRIM_AFTER_BYTES = 2**22
_PATIENCE_S = 0.5
"""How long a service may take nothing before what comes is set aside: a client that leaves is noticed in a second."""
_ONCE = select.EPOLLONESHOT
_END = select.EPOLLRDHUP
_DATA = select.EPOLLIN
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only


@dataclass(slots=True, eq=False)
class _Parked:
    body: Body
    fd: int
    wait: asyncio.Timeout | None = None
    """Ends the wait of the request, where it waits for a start."""
    in_turn: bool = False

    @property
    def request(self) -> web.BaseRequest:
        return self.body.request


class Parking:
    """All parked uploads. Begins its one task with the first of them; `close` ends it."""

    def __init__(self, spool_dir: Path, spool_size: int) -> None:
        self._area = SpoolArea(spool_dir, spool_size)
        self._parked: dict[int, _Parked] = {}
        self._turns: deque[_Parked] = deque()
        self._has_turns = asyncio.Event()
        self._epoll: select.epoll | None = None
        self._drainer: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._parked)

    @contextlib.asynccontextmanager
    async def parked(self, body: Body) -> AsyncIterator[None]:
        """Keep an upload parked for the body of the `async with`; a client that leaves cancels the task.

        (By way of aiohttp: the connection is aborted, and `handler_cancellation` does the rest.) Raises
        BodyTooLarge and BadRequest as soon as what came is known to be too much, or malformed.
        """
        transport = body.request.transport
        content = body.request.content
        if transport is None or (content.is_eof() and content.total_bytes <= _SMALL_BYTES):
            yield
            return
        place = self._park(body, transport)
        try:
            async with asyncio.timeout(None) as wait:
                place.wait = wait
                yield
        except TimeoutError:
            if wait.expired() and (refusal := body.refusal()):
                raise refusal from None
            raise
        finally:
            self._leave(place)

    def set_aside(self, body: Body) -> Callable[[], None]:
        """Park an upload that its service does not take, from a moment on until the returned function is called."""
        places: list[_Parked] = []

        def begin() -> None:
            if (transport := body.request.transport) is not None:
                places.append(self._park(body, transport))

        def end() -> None:
            timer.cancel()
            while places:
                self._leave(places.pop())

        timer = asyncio.get_running_loop().call_later(_PATIENCE_S, begin)
        return end

    def _park(self, body: Body, transport: asyncio.Transport) -> _Parked:
        place = _Parked(body, transport.get_extra_info("socket").fileno())
        epoll = self._watch()
        transport.pause_reading()
        has_read_ahead = _buffered_bytes(place) > 0
        with contextlib.suppress(OSError):  # closed already: aiohttp is about to cancel this request
            epoll.register(place.fd, _ONCE | _END | (0 if has_read_ahead else _DATA))
        self._parked[place.fd] = place
        if has_read_ahead:
            self._give_turn(place)
        return place

    def _leave(self, place: _Parked) -> None:
        if self._parked.get(place.fd) is place:  # else the number is another connection's by now
            del self._parked[place.fd]
            if self._epoll is not None:
                with contextlib.suppress(OSError):
                    self._epoll.unregister(place.fd)
        let_in(place.request)

    def _watch(self) -> select.epoll:
        if self._epoll is None:
            loop = asyncio.get_running_loop()
            self._epoll = select.epoll()
            loop.add_reader(self._epoll.fileno(), self._on_events, self._epoll)
            self._drainer = loop.create_task(self._drain(), name="drain parked uploads")
        return self._epoll

    def _on_events(self, epoll: select.epoll) -> None:
        for fd, events in epoll.poll(0, 1024):
            place = self._parked.get(fd)
            if place is None:
                continue
            if events & _GONE:
                self._abort(place)
            else:
                self._give_turn(place)

    def _give_turn(self, place: _Parked) -> None:
        if not place.in_turn:
            place.in_turn = True
            self._turns.append(place)
            self._has_turns.set()

    async def _drain(self) -> None:
        """Take pieces off the parked uploads, in turn, for ever."""
        taken_bytes = 0
        while True:
            while not self._turns:
                if taken_bytes >= _TRIM_AFTER_BYTES:
                    taken_bytes = 0
                    await self._area.run(_give_memory_back)
                    continue
                self._has_turns.clear()
                await self._has_turns.wait()
            place = self._turns.popleft()
            place.in_turn = False
            if self._is_there(place) and (data := self._take(place)):
                body = place.body
                taken_bytes += len(data)
                body.received_bytes += len(data)
                body.spool = body.spool or Spool(self._area)
                await body.spool.append(data)
            if place.wait is not None and self._is_there(place) and place.body.refusal():
                place.wait.reschedule(0)
            elif self._is_there(place):
                self._watch_again(place)

    def _is_there(self, place: _Parked) -> bool:
        transport = place.request.transport
        return self._parked.get(place.fd) is place and transport is not None and not transport.is_closing()

    def _may_take(self, place: _Parked) -> bool:
        spool = place.body.spool
        full = self._area.left_bytes < _PIECE_BYTES or (spool is not None and spool.failed)
        return not full and not place.body.is_over() and place.request.content.exception() is None

    def _take(self, place: _Parked) -> bytes:
        """Return the next piece, read through aiohttp's own parser; empty where there is none now."""
        request, content = place.request, place.request.content
        transport = request.transport
        if transport is None or not self._may_take(place):
            return b""
        if not _buffered_bytes(place):
            try:
                data = os.read(place.fd, _PIECE_BYTES)
            except BlockingIOError:
                return b""
            except OSError:
                data = b""
            if not data:
                self._abort(place)
                return b""
            request.protocol.data_received(data)
            if content.exception() is not None:
                return b""
        taken = content.read_nowait()
        # Taking makes aiohttp read again. At the end of the body it may: then it notices a client that leaves.
        if not content.is_eof():
            transport.pause_reading()
        return taken

    def _watch_again(self, place: _Parked) -> None:
        assert self._epoll is not None
        may_take = self._may_take(place)
        with contextlib.suppress(OSError):  # closed in the meantime: aiohttp is about to cancel this request
            if place.request.content.is_eof():
                # There is no more to hold back: from here on aiohttp notices a client that leaves.
                self._epoll.unregister(place.fd)
                let_in(place.request)
            else:
                self._epoll.modify(place.fd, _ONCE | _END | (_DATA if may_take else 0))
        if may_take and _buffered_bytes(place):
            self._give_turn(place)

    def _abort(self, place: _Parked) -> None:
        if place.request.transport is not None:
            place.request.transport.abort()

    async def close(self) -> None:
        """End the task and the watching."""
        if self._epoll is not None and self._drainer is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._drainer.cancel()
            await asyncio.wait({self._drainer})
            self._epoll.close()
            self._epoll = self._drainer = None
        self._area.close()


def _buffered_bytes(place: _Parked) -> int:
    """Return how much aiohttp holds of this body."""
    return place.request.content.total_bytes - place.body.received_bytes


def _give_memory_back() -> None:
    """Hand free memory back to the system: what was read ahead leaves holes that malloc would keep.

    Measured with 400 uploads of 2 MB: 49 kB each without, 15 kB with it. (Pinning malloc's thresholds does it
    too, but costs half of the throughput of large downloads.)
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
