"""One at a time, for what is not made for several threads. Imports nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

_CHECK_EVERY_S = 0.1


@contextmanager
def alone(lock: Lock, check: Callable[[], None]) -> Iterator[None]:
    """Hold `lock` within the context. `check` is called ten times a second until then; what it raises ends the waiting."""
    while not lock.acquire(timeout=_CHECK_EVERY_S):
        check()
    try:
        yield
    finally:
        lock.release()
