"""From the engine's events to a runtime's: what a project's containers do, as changes of one thing.

| Docker's event         | what it becomes                                                              |
|------------------------|------------------------------------------------------------------------------|
| start, unpause         | STARTED, once everything that has to run does; RESYNC before that, unless we |
|                        | start it ourselves: by now it may be all, in an edited compose file          |
| kill (ending signal)   | remembered: the death that follows was asked for by somebody                 |
| oom                    | remembered: the death that follows was for want of memory                    |
| die                    | DIED                                                                         |
| pause                  | PAUSED                                                                       |
| health_status          | UNHEALTHY, and HEALTHY once none is unhealthy any more; nothing of a paused  |
|                        | container, whose checks cannot run                                           |
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Collection

from autostart.errors import RuntimeFailure
from autostart.runtime.base import Change, Listener, RuntimeEvent
from autostart.runtime.compose.events import EngineEvent

_ENDING_SIGNALS = frozenset({2, 3, 6, 9, 15, *range(34, 65)})
"""INT, QUIT, ABRT, KILL, TERM, and the real-time signals that some images name as their stop signal."""
_KILLED = 137

AskOutOfMemory = Callable[[str], Awaitable[bool]]


class _Mark(enum.Flag):
    """What is known of a container."""

    UP = enum.auto()
    PAUSED = enum.auto()
    UNHEALTHY = enum.auto()
    ENDED_BY_HAND = enum.auto()
    OUT_OF_MEMORY = enum.auto()


_NOTHING = _Mark(0)


class ContainerWatch:
    """Turns the events of the containers that have to run into RuntimeEvents, in their order.

    `needed` returns how many must run for the thing to run, as last seen; `is_starting` says whether it is we who
    start them. An exit code 137 that nobody asked for and no oom
    event explains is looked up with `ask_out_of_memory` (with cgroup v2 the oom event may come late);
    events behind it wait for the answer.
    """

    def __init__(
        self,
        listener: Listener,
        needed: Callable[[], int],
        is_starting: Callable[[], bool],
        ask_out_of_memory: AskOutOfMemory,
    ) -> None:
        self._listener = listener
        self._needed = needed
        self._is_starting = is_starting
        self._ask_out_of_memory = ask_out_of_memory
        self._marks: dict[str, _Mark] = {}  # by container; five sets took 1 kB, a thousand times
        self._backlog: list[EngineEvent] = []  # not a deque: 0.6 kB, a thousand times
        self._lookup: asyncio.Task[None] | None = None

    def set_running(self, up: Collection[str], paused: Collection[str]) -> None:
        """Take over what was just seen in a listing: ids of the needed containers that run, that are paused."""
        for container in tuple(self._marks):
            self._unmark(container, _Mark.UP | _Mark.PAUSED)
            if container not in up and container not in paused:
                self._unmark(container, _Mark.UNHEALTHY)
        for container in up:
            self._mark(container, _Mark.UP)
        for container in paused:
            self._mark(container, _Mark.PAUSED)

    def on_event(self, event: EngineEvent) -> None:
        """Take the next event of a container that has to run."""
        if self._lookup is not None:
            self._backlog.append(event)
            return
        is_explained = self._marks_of(event.container_id) & (_Mark.ENDED_BY_HAND | _Mark.OUT_OF_MEMORY)
        if event.action == "die" and event.exit_code == _KILLED and not is_explained:
            self._lookup = asyncio.get_running_loop().create_task(self._look_up(event))
        else:
            self._take(event)

    def resync(self) -> None:
        """Say that events may have been lost."""
        self._listener(RuntimeEvent(Change.RESYNC))

    def close(self) -> None:
        """Tell nothing any more."""
        self._listener = lambda _: None
        if self._lookup is not None:
            self._lookup.cancel()

    async def _look_up(self, event: EngineEvent) -> None:
        try:
            if await self._ask_out_of_memory(event.container_id):
                self._mark(event.container_id, _Mark.OUT_OF_MEMORY)
        except RuntimeFailure:
            pass  # then it is not known, and the exit code has to do
        finally:
            self._lookup = None
        self._take(event)
        while self._backlog and self._lookup is None:
            self.on_event(self._backlog.pop(0))

    def _take(self, event: EngineEvent) -> None:
        container = event.container_id
        match event.action:
            case "kill":
                if event.signal in _ENDING_SIGNALS:
                    self._mark(container, _Mark.ENDED_BY_HAND)
            case "oom":
                self._mark(container, _Mark.OUT_OF_MEMORY)
            case "start" | "unpause":
                # A stop thaws what is frozen, so that it hears the signal that it was sent before.
                ended = (
                    self._marks_of(container) & _Mark.ENDED_BY_HAND if event.action == "unpause" else _NOTHING
                )
                self._marks[container] = _Mark.UP | ended
                if self._count(_Mark.UP) >= self._needed():
                    self._listener(RuntimeEvent(Change.STARTED))
                elif not self._is_starting():
                    self.resync()
            case "pause":
                self._unmark(container, _Mark.UP)
                self._mark(container, _Mark.PAUSED)
                self._listener(RuntimeEvent(Change.PAUSED))
            case "die":
                self._die(event)
            case "health_status" if not self._marks_of(container) & _Mark.PAUSED:
                self._take_health(container, event.health)

    def _take_health(self, container: str, health: str) -> None:
        if health == "unhealthy":
            self._mark(container, _Mark.UNHEALTHY)
            self._listener(RuntimeEvent(Change.UNHEALTHY))
        elif health == "healthy":
            self._unmark(container, _Mark.UNHEALTHY)
            if not self._count(_Mark.UNHEALTHY):
                self._listener(RuntimeEvent(Change.HEALTHY))

    def _die(self, event: EngineEvent) -> None:
        marks = self._marks.pop(event.container_id, _NOTHING)
        self._listener(
            RuntimeEvent(
                Change.DIED,
                event.exit_code,
                out_of_memory=_Mark.OUT_OF_MEMORY in marks,
                by_hand=_Mark.ENDED_BY_HAND in marks,
            )
        )

    def _marks_of(self, container: str) -> _Mark:
        return self._marks.get(container, _NOTHING)

    def _mark(self, container: str, mark: _Mark) -> None:
        self._marks[container] = self._marks_of(container) | mark

    def _unmark(self, container: str, mark: _Mark) -> None:
        if left := self._marks.pop(container, _NOTHING) & ~mark:
            self._marks[container] = left

    def _count(self, mark: _Mark) -> int:
        return sum(mark in marks for marks in self._marks.values())
