"""Work in threads of their own, ahead of who waits for it, and have what comes of it in order.

Knows nothing of what is done.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def in_order(calls: Iterable[Callable[[], T]], at_once: int) -> Generator[T, None, None]:
    """Yield what the calls return, in their order, while up to `at_once` of them are under way.

    A call is taken from `calls`, in the caller's thread, when there is room for it. What one raises is raised in its
    turn. However it ends, also by `close()`, none is under way afterwards.
    """
    under_way: deque[Future[T]] = deque()
    try:
        for call in calls:
            under_way.append(_begun(call))
            if len(under_way) == at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        wait(under_way)


def read_ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """Yield the items, up to `count` of which are made before they are asked for, in one thread.

    What making one raises is raised in its turn. However it ends, also by `close()`, none is made any more.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        try:
            made = deque(thread.submit(next, source, _END) for _ in range(count))
            while (item := made.popleft().result()) is not _END:
                made.append(thread.submit(next, source, _END))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def _begun(call: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, it is raised where it is waited for
            future.set_exception(exc)

    # A daemon: the end of the process does not wait for it.
    threading.Thread(target=run, name="decode", daemon=True).start()
    return future
