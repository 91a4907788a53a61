"""How often a service that starts is asked whether it is ready.

Measured (DESIGN.md section 7): a poll costs 0.2 ms of CPU, so every 2 ms is affordable in the first
200 ms; against every 5 ms that takes 2 ms off the median of what a quick start is lengthened by (`bench cold`).
Imports nothing of ours.
"""

import asyncio
import contextlib
from collections.abc import Iterator

_POLL_S = 0.002
_SLOWEST_POLL_S = 0.05
_POLL_GROWTH = 0.01
"""The pause grows to this share of the time already waited, so a late answer is noticed within 1 %."""
_YOUNG_S = 0.5
"""A start takes long from here on."""
_APART_S = {False: 0.001, True: 0.01}
"""Between two polls of those that are young, and of those that take long. What others wait for delays warm requests
too: where 40 services that never listen were polled all at once, the p99 of the others was 2.6 times as long
(`bench isolation`)."""


def pause_s(waited_s: float) -> float:
    """Return how long a start pauses between two polls that has taken so many seconds."""
    return min(max(_POLL_S, waited_s * _POLL_GROWTH), _SLOWEST_POLL_S)


class Crowd:
    """The starts that are polled now. They take turns, so that their polls never come all at once.

    Those that take long have turns of their own: one that hangs slows no young one down.
    """

    def __init__(self) -> None:
        self._size = 0
        self._next_at = dict.fromkeys(_APART_S, 0.0)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Belong to it for the body of the `with`."""
        self._size += 1
        try:
            yield
        finally:
            self._size -= 1

    async def pause(self, begun: float) -> None:
        """Pause as one does that began at `begun` (the loop's time), then wait for the turn."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(pause_s(loop.time() - begun))
        now = loop.time()
        if (turn_s := self.take_turn(now, now - begun)) > 0:
            await asyncio.sleep(turn_s)

    def take_turn(self, now: float, waited_s: float) -> float:
        """Return in how many seconds one that has waited so long may poll.

        Turns may have been given to who has left since: nobody waits longer than all that are here would take.
        """
        is_slow = waited_s >= _YOUNG_S
        apart_s = _APART_S[is_slow]
        at = min(max(now, self._next_at[is_slow]), now + self._size * apart_s)
        self._next_at[is_slow] = at + apart_s
        return at - now


everybody = Crowd()
