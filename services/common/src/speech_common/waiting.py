"""Wait for what another thread makes, and ask meanwhile whether anybody still does. Imports nothing of ours."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
Check = Callable[[], None] | None
"""What a waiting thread calls ten times a second; what it raises ends the waiting."""
CHECK_EVERY_S = 0.1


def result_of(future: Future[T], check: Check, limit_s: float = math.inf) -> T:
    """Wait for `future`, calling `check` meanwhile. Raises what either raises, or TimeoutError after `limit_s`."""
    end = time.monotonic() + limit_s
    while not wait({future}, min(CHECK_EVERY_S, max(0.0, end - time.monotonic()))).done:
        if time.monotonic() >= end:
            raise TimeoutError
        if check:
            check()
    return future.result()
