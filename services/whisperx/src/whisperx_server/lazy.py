"""What is loaded when it is first asked for, in a thread of its own: who waits for it may leave, and the load goes on.

Knows nothing of what is loaded. Imports nothing heavy.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

from speech_common.waiting import Check, result_of

T = TypeVar("T")


class Lazy(Generic[T]):
    """What `load` returns, which is called once for all who ask. For any number of threads; `name` is the load's own.

    | it is          | who asks for it                                       |
    |----------------|-------------------------------------------------------|
    | not loaded     | begins the load, and waits for it                     |
    | being loaded   | waits for that load                                   |
    | loaded         | gets it                                               |
    | (a load fails) | gets its error, as all who wait; the next tries again |
    """

    def __init__(self, load: Callable[[], T], name: str) -> None:
        self._load = load
        self._name = name
        self._lock = Lock()
        self._loaded: Future[T] | None = None

    def get(self, check: Check = None, limit_s: float = math.inf) -> T:
        """Return it, waiting for its load. Raises what the load or `check` raises, or TimeoutError after `limit_s`."""
        with self._lock:
            loaded = self._loaded
            if loaded is None:
                loaded = self._loaded = Future()
                # A daemon: the end of the process does not wait for a download.
                Thread(target=self._run, args=(loaded,), name=self._name, daemon=True).start()
        return result_of(loaded, check, limit_s)

    def _run(self, loaded: "Future[T]") -> None:
        try:
            result = self._load()
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
            with self._lock:
                self._loaded = None
            loaded.set_exception(exc)
        else:
            loaded.set_result(result)
