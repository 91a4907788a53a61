"""Calls to a runtime, bounded: whatever goes wrong in one, a mistake of ours included, is a RuntimeFailure."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from autostart import errors
from autostart.errors import RuntimeFailure
from autostart.runtime.base import Observation, Runtime, StopMethod

_LOOK_LIMIT_S = 60.0
"""Looks wait for each other (`Engine.looking`), so that a thousand services are not looked at all at once."""
_STOP_MARGIN_S = 5.0
"""What a runtime may need over the grace it gives: the kill itself, and hearing of it."""


@asynccontextmanager
async def limited(doing: str, limit_s: float, option: str = "") -> AsyncIterator[None]:
    """Give the body of the `async with` at most `limit_s` seconds.

    Raises TimedOut, which says what was `doing` and which `option` sets the limit, and RuntimeFailure: what
    else the body raises becomes InternalFailure, so that nobody waits for ever because of a bug.
    """
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise errors.TimedOut(doing, limit_s, option=option) from exc
    except RuntimeFailure:
        raise
    except Exception as exc:
        raise mistake(exc) from exc


def mistake(exc: Exception) -> errors.InternalFailure:
    """Return what a bug of ours is told as; the bug itself stays its cause, for the log."""
    failure = errors.InternalFailure(f"{type(exc).__name__}: {exc}")
    failure.__cause__ = exc
    return failure


async def look(runtime: Runtime) -> Observation:
    """Return what is true now. Raises RuntimeFailure."""
    async with limited("looking at it", _LOOK_LIMIT_S):
        return await runtime.observe()


async def cpu_seconds(runtime: Runtime) -> Mapping[str, float]:
    """Return the CPU seconds that each part has used so far. Raises RuntimeFailure."""
    async with limited("reading its CPU time", _LOOK_LIMIT_S):
        return await runtime.cpu_seconds()


async def stop(runtime: Runtime, method: StopMethod, grace_s: float) -> None:
    """End what runs, or freeze it; `grace_s` is the option stopTimeout. Raises RuntimeFailure."""
    async with limited("stopping", grace_s + _STOP_MARGIN_S, "stopTimeout"):
        await runtime.stop(method, grace_s)
