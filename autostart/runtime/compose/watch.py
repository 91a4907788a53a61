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
from collections.abc import Awaitable, Callable

from autostart.errors import RuntimeFailure
from autostart.runtime.base import Change, Listener, RuntimeEvent
from autostart.runtime.compose.events import EngineEvent

_ENDING_SIGNALS = frozenset({2, 3, 6, 9, 15, *range(34, 65)})
"""INT, QUIT, ABRT, KILL, TERM, and the real-time signals that some images name as their stop signal."""
_KILLED = 137

AskOutOfMemory = Callable[[str], Awaitable[bool]]


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
        self._up: set[str] = set()
        self._paused: set[str] = set()
        self._ended_by_hand: set[str] = set()
        self._out_of_memory: set[str] = set()
        self._unhealthy: set[str] = set()
        self._backlog: list[EngineEvent] = []  # not a deque: 0.6 kB, a thousand times
        self._lookup: asyncio.Task[None] | None = None

    def set_running(self, up: set[str], paused: set[str]) -> None:
        """Take over what was just seen in a listing: ids of the needed containers that run, that are paused."""
        self._up, self._paused = up, paused
        self._unhealthy &= up | paused

    def on_event(self, event: EngineEvent) -> None:
        """Take the next event of a container that has to run."""
        if self._lookup is not None:
            self._backlog.append(event)
            return
        known = self._ended_by_hand | self._out_of_memory
        if event.action == "die" and event.exit_code == _KILLED and event.container_id not in known:
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
                self._out_of_memory.add(event.container_id)
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
                    self._ended_by_hand.add(container)
            case "oom":
                self._out_of_memory.add(container)
            case "start" | "unpause":
                for memory in (self._paused, self._ended_by_hand, self._out_of_memory, self._unhealthy):
                    memory.discard(container)
                self._up.add(container)
                if len(self._up) >= self._needed():
                    self._listener(RuntimeEvent(Change.STARTED))
                elif not self._is_starting():
                    self.resync()
            case "pause":
                self._up.discard(container)
                self._paused.add(container)
                self._listener(RuntimeEvent(Change.PAUSED))
            case "die":
                self._die(event)
            case "health_status" if container not in self._paused:
                self._take_health(container, event.health)

    def _take_health(self, container: str, health: str) -> None:
        if health == "unhealthy":
            self._unhealthy.add(container)
            self._listener(RuntimeEvent(Change.UNHEALTHY))
        elif health == "healthy":
            self._unhealthy.discard(container)
            if not self._unhealthy:
                self._listener(RuntimeEvent(Change.HEALTHY))

    def _die(self, event: EngineEvent) -> None:
        container = event.container_id
        by_hand, out_of_memory = container in self._ended_by_hand, container in self._out_of_memory
        for memory in (self._up, self._paused, self._ended_by_hand, self._out_of_memory, self._unhealthy):
            memory.discard(container)
        self._listener(
            RuntimeEvent(Change.DIED, event.exit_code, out_of_memory=out_of_memory, by_hand=by_hand)
        )
