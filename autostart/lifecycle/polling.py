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
_POLL_SHARE_S = 0.001
"""What others wait for delays warm requests too: with 40 services that never listen, their p99 was 1.8 times as long
(`bench isolation`). So all starts together poll once in this time at most, those that take long in five times it."""
_YOUNG_S = 1.0
"""A start takes long from here on."""


class Crowd:
    """The starts that are polled now; the more they are, the longer the pauses of each.

    Those that take long count apart: one that hangs slows no young one down.
    """

    def __init__(self) -> None:
        self._places: set[Place] = set()

    @contextlib.contextmanager
    def place(self) -> Iterator["Place"]:
        """Belong to it for the body of the `with`."""
        place = Place(self)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)

    def count(self, *, slow: bool) -> int:
        """Return how many of them poll slowly, or do not yet."""
        return sum(place.is_slow is slow for place in self._places)


class Place:
    """One start in the crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self.is_slow = False
        self._crowd = crowd

    async def pause(self, begun: float) -> None:
        """Pause as one does that began at `begun` (the loop's time)."""
        await asyncio.sleep(self.pause_s(asyncio.get_running_loop().time() - begun))

    def pause_s(self, waited_s: float) -> float:
        """Return how long to pause after so many seconds."""
        own_s = min(max(_POLL_S, waited_s * _POLL_GROWTH), _SLOWEST_POLL_S)
        self.is_slow = waited_s >= _YOUNG_S
        share_s = 5 * _POLL_SHARE_S if self.is_slow else _POLL_SHARE_S
        return max(own_s, share_s * self._crowd.count(slow=self.is_slow))


everybody = Crowd()
