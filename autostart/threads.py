"""Blocking work in a thread of its own, with a limit.

A thread a call, not a pool: a call that hangs holds nothing that another service needs, and a daemon thread
keeps no program from ending. Measured: some 0.1 ms a thread, where the calls take 1 ms and more.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from autostart.errors import TimedOut

T = TypeVar("T")


async def run_in_thread(operation: str, function: Callable[[], T], *, limit_s: float | None = None) -> T:
    """Return what `function` returns or raise what it raises; `operation` names it in errors.

    Raises TimedOut after `limit_s` seconds (None: without a limit), RuntimeError where no thread is to be had. Then, and when cancelled, the thread is left to end by itself, and
    its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may be None itself

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 - told to whoever waits
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name=operation, daemon=True).start()
    try:
        async with asyncio.timeout(limit_s):
            return await future
    except TimeoutError as exc:
        if limit_s is None:  # the function's own
            raise
        raise TimedOut(operation, limit_s) from exc
