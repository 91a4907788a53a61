"""Who uses a service, and since when nobody does: the leases and the idle clock of one service."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from autostart.runtime.base import Endpoint


@dataclass(slots=True, eq=False)
class Lease:
    """One open use of a service, from before the wait until the last byte.

    `endpoint` is None while it waits. `since_s` is wall-clock seconds. With `counts` false it holds off a
    stop as any other, but does not move the idle clock. With `holds` false it is no use while it is merely open
    (a WebSocket): see `Use.used`.
    """

    by: str
    since_s: float
    counts: bool
    endpoint: Endpoint | None = None
    holds: bool = True


class Use:
    """The open leases, and the idle clock, which starts when the last of them *ends* (promise 1)."""

    __slots__ = ("_clock", "_drained", "_held_until", "_wall", "idle_since", "last_used_s", "leases")

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self.leases: set[Lease] = set()
        self.idle_since = clock()
        self.last_used_s: float | None = None
        self._held_until = 0.0
        self._drained: asyncio.Event | None = None  # only while somebody waits: an event takes 0.7 kB

    def take(self, by: str, *, counts: bool) -> Lease:
        """Open a lease."""
        lease = Lease(by=by, since_s=self._wall(), counts=counts)
        self.leases.add(lease)
        return lease

    def give_back(self, lease: Lease) -> bool:
        """Close a lease, and say whether it was a use.

        A request that was refused, or left before the service was ready, did not use it.
        """
        self.leases.discard(lease)
        if not self.leases and self._drained is not None:
            self._drained.set()
            self._drained = None
        if lease.endpoint is None or not lease.counts:
            return False
        if lease.holds:
            self._move_clock()
        return True

    def used(self, lease: Lease) -> None:
        """Take note that this lease is used right now; from here on it is used at such moments only."""
        lease.holds = False
        if lease.counts:
            self._move_clock()

    def worked(self) -> None:
        """Start the idle clock anew: the service works, though nobody has a lease. That is no request's last use."""
        self.idle_since = self._clock()

    def _move_clock(self) -> None:
        self.idle_since = self._clock()
        self.last_used_s = self._wall()

    @property
    def is_held(self) -> bool:
        """Say whether a lease is open that holds off a stop."""
        return any(lease.holds for lease in self.leases)

    def became_ready(self, running_since_s: float | None = None) -> None:
        """Start the idle clock.

        For what was found running since `running_since_s` (wall-clock seconds) it goes on from its last use.
        """
        self.idle_since = self._clock()
        if running_since_s is not None:
            now_s = self._wall()
            self.idle_since -= max(0.0, now_s - max(running_since_s, self.last_used_s or now_s))

    def hold(self, for_s: float) -> None:
        """Hold off idle stops for this many seconds from now; 0 releases."""
        self._held_until = self._clock() + for_s if for_s > 0 else 0.0

    def go_on(self, last_used_s: float | None, held_until_s: float | None) -> None:
        """Take over what was kept of an earlier life, in wall-clock seconds; None where there is nothing."""
        self.last_used_s = last_used_s
        self.hold((held_until_s or 0.0) - self._wall())

    @property
    def held_for_s(self) -> float:
        """Seconds that a hold still lasts."""
        return max(0.0, self._held_until - self._clock())

    def idle_at(self, idle_timeout_s: float) -> float:
        """Return when, on the monotonic clock, the service will have been idle long enough."""
        return max(self.idle_since + idle_timeout_s, self._held_until)

    async def drained(self) -> None:
        """Wait until no lease is open."""
        while self.leases:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()
