"""An event loop whose time passes at once: a limit of a minute is reached without waiting for it."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Stuck(Exception):
    """Everybody waits for something that nobody will ever do."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while anybody has something to do, and then jumps to the next timer.

    `time` is its clock. Nothing may wait for another thread, process or socket. Connections are made in memory:
    `dial(port)` raises OSError where nobody is connected, and returns once somebody is.
    """

    def __init__(self, dial: Callable[[int], Awaitable[None]]) -> None:
        self.now = 1000.0
        self._dial = dial
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    async def create_connection(self, protocol_factory, host, port, **_options):
        await self._dial(port)
        protocol = protocol_factory()
        transport = _Transport(self, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        if timeout is None:
            raise Stuck
        self._loop.now += max(0.0, timeout)
        return []


class _Transport(asyncio.Transport):
    """One end of a connection on which nothing is said."""

    def __init__(self, loop: VirtualLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol

    def abort(self) -> None:
        self._loop.call_soon(self._protocol.connection_lost, None)


def run(main: Coroutine[Any, Any, None], dial: Callable[[int], Awaitable[None]]) -> None:
    """Run `main` in virtual time, as asyncio.run does."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(dial)) as runner:
        runner.run(main)
