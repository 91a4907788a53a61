"""Places for models in memory: who gets one, who waits, and what makes room.

Owns the loading and unloading, and knows neither requests nor directories. Everything is decided under one lock, in
`_granted`; loading and unloading happen outside of it, one at a time, in the thread that asked.

A thread that wants a model takes its place in one queue, and only the first one in it is served:

| the model it wants is | a place in memory         | it                                                       |
|-----------------------|---------------------------|----------------------------------------------------------|
| loaded                | -                         | gets it                                                  |
| being loaded          | -                         | leaves the queue and waits for that load, as all others do |
| not loaded            | free                      | loads it                                                 |
| not loaded            | taken by an idle model    | unloads the one idle longest, and loads it               |
| not loaded            | all taken by used models  | waits, and whoever comes later waits behind it           |

So a model that is asked for all the time starves no other: its next users queue behind the one that waits.
What a model's files held before they were replaced goes as soon as the new ones are loaded and nobody uses it.
"""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from speech_common.models.checkpoint import Checkpoint
from speech_common.models.faults import ModelError, PassingFault
from speech_common.models.served import Served
from speech_common.waiting import CHECK_EVERY_S, Check, result_of

_log = logging.getLogger("speech.models")

M = TypeVar("M", bound=Served)
OnLoad = Callable[[Checkpoint, float, ModelError | None], None]


class _Slot(Generic[M]):
    """A place in memory, and the model in it. `users` counts those who wait for its load too."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.loaded: Future[M] = Future()
        self.users = 1
        self.used_at = 0


class Slots(Generic[M]):
    """At most `count` models in memory. Every method may be called from any thread."""

    def __init__(
        self,
        count: int,
        load: Callable[[Checkpoint], M],
        unload: Callable[[M], None],
        on_load: OnLoad,
    ) -> None:
        self._count = count
        self._load = load
        self._unload = unload
        self._on_load = on_load
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._slots: dict[Checkpoint, _Slot[M]] = {}
        self._is_loading = False
        self._clock = itertools.count(1)

    def held(self) -> list[Checkpoint]:
        """Return what is in memory, without what is still being loaded."""
        with self._changed:
            return [slot.checkpoint for slot in self._slots.values() if slot.loaded.done()]

    def has_room(self) -> bool:
        """Tell whether one more model could be loaded now, be it in the place of an idle one."""
        with self._changed:
            return len(self._slots) < self._count or any(not slot.users for slot in self._slots.values())

    @contextmanager
    def lease(self, checkpoint: Checkpoint, check: Check = None) -> Iterator[M]:
        """Use a model, which nobody unloads until the context ends. Blocks until it is loaded; raises ModelError."""
        slot, unloaded, is_ours = self._queued(checkpoint, check)
        try:
            if is_ours:
                self._fill(slot, unloaded)
            yield result_of(slot.loaded, check)
        finally:
            with self._changed:
                slot.users -= 1
                slot.used_at = next(self._clock)
                self._changed.notify_all()
            self._drop_replaced(checkpoint.name)

    def _drop_replaced(self, name: str) -> None:
        """Unload what nobody uses and will ask for again: models whose files have been replaced, and loaded since."""
        with self._changed:
            namesakes = [slot for slot in self._slots.values() if slot.checkpoint.name == name]
            replaced = [slot for slot in namesakes[:-1] if not slot.users]
            if self._is_loading or not namesakes or not namesakes[-1].loaded.done():
                return
            for slot in replaced:
                del self._slots[slot.checkpoint]
            self._is_loading = bool(replaced)
        if replaced:
            try:
                for slot in replaced:
                    self._empty(slot)
            finally:
                with self._changed:
                    self._is_loading = False
                    self._changed.notify_all()

    def _queued(self, checkpoint: Checkpoint, check: Check) -> tuple[_Slot[M], _Slot[M] | None, bool]:
        """Wait for this thread's turn, and return what `_granted` decides."""
        place = object()
        with self._changed:
            self._queue.append(place)
            try:
                while self._queue[0] is not place or (granted := self._granted(checkpoint)) is None:
                    self._changed.wait(CHECK_EVERY_S if check else None)
                    if check:
                        check()
            finally:
                self._queue.remove(place)
                self._changed.notify_all()
            return granted

    def _granted(self, checkpoint: Checkpoint) -> tuple[_Slot[M], _Slot[M] | None, bool] | None:
        """Decide what the first of the queue gets: a slot, one to unload before it is filled, and whether he fills it.

        None: nothing yet. Called under the lock.
        """
        slot = self._slots.get(checkpoint)
        if slot is not None:
            slot.users += 1
            return slot, None, False
        if self._is_loading:
            return None
        oldest = None
        if len(self._slots) >= self._count:
            idle = [slot for slot in self._slots.values() if not slot.users]
            if not idle:
                return None
            # What this model's files held before they were replaced goes first: nobody asks for that again.
            oldest = min(idle, key=lambda slot: (slot.checkpoint.name != checkpoint.name, slot.used_at))
            del self._slots[oldest.checkpoint]
        slot = self._slots[checkpoint] = _Slot(checkpoint)
        self._is_loading = True
        return slot, oldest, True

    def _fill(self, slot: _Slot[M], unloaded: _Slot[M] | None) -> None:
        """Unload one model, load another. How it ends is the slot's future; a slot that stays empty is given up."""
        checkpoint, began = slot.checkpoint, time.monotonic()
        failure: ModelError | None = None
        try:
            if unloaded is not None:
                self._empty(unloaded)
            model = self._load(checkpoint)
        except ModelError as exc:
            _log.error("event=model_failed model=%s cause=%r", checkpoint.name, str(exc))
            failure = exc
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
            _log.exception("event=model_failed model=%s", checkpoint.name)
            failure = PassingFault(f"unexpected {type(exc).__name__}; see the log")
        with self._changed:
            self._is_loading = False
            if failure is not None:
                del self._slots[checkpoint]
                slot.loaded.set_exception(failure)
            else:
                slot.loaded.set_result(model)
            self._changed.notify_all()
        self._on_load(checkpoint, time.monotonic() - began, failure)

    def _empty(self, slot: _Slot[M]) -> None:
        self._unload(slot.loaded.result())
        slot.loaded = Future()
        _log.info("event=model_unloaded model=%s", slot.checkpoint.name)
