"""Turns for what many want to do at once, and none may keep from the others. Imports nothing of ours."""

import asyncio

_TURN_S = 0.25


class Turns:
    """So many at a time. A turn ends after `limit_s` for those who wait, whatever becomes of who has it.

    A look takes milliseconds. One that hangs, for a directory on a disk that is gone, say, goes on; but eight of them
    must not keep all other services from being looked at.
    """

    def __init__(self, most: int, limit_s: float = _TURN_S) -> None:
        self._free = asyncio.Semaphore(most)
        self._limit_s = limit_s

    def turn(self) -> "Turn":
        """Return what to enter with `async with`: the body begins once there is a turn."""
        return Turn(self._free, self._limit_s)


class Turn:
    """One turn; a small object, for a thousand may wait for theirs at once."""

    __slots__ = ("_free", "_limit_s", "_timer")

    def __init__(self, free: asyncio.Semaphore, limit_s: float) -> None:
        self._free = free
        self._limit_s = limit_s
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._free.acquire()
        self._timer = asyncio.get_running_loop().call_later(self._limit_s, self._end)

    async def __aexit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Give the turn to the next, once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.release()
