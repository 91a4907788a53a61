"""Waiting in tests: for a state, never for a time."""

import asyncio
import time
from collections.abc import Callable

LIMIT_S = 30.0
"""What has not come true by then never does, however slow and busy the machine."""


async def until(holds: Callable[[], object], what: object = "") -> None:
    """Let the loop turn until `holds()`; fail, showing `what`, where it never does."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.002)


def block_until(holds: Callable[[], object], what: Callable[[], object] = str) -> None:
    """Do as `until` does, for what happens in other processes; `what()` is asked when it fails."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what()}"
        time.sleep(0.01)
