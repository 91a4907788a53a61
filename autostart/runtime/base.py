"""The Runtime protocol: what the lifecycle asks of whatever runs a service.

Owned by the core and small on purpose. A runtime stands for *one* startable thing (a compose project, a
process); it knows nothing of services, requests or idle times. It raises only
`autostart.errors.RuntimeFailure`, and translates whatever its library raises where it is called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class RunState(StrEnum):
    """What is true of the thing right now."""

    STOPPED = "stopped"
    """Not running, or not even created."""
    RUNNING = "running"
    PAUSED = "paused"
    """Frozen in memory; `start` thaws it."""


class StopMethod(StrEnum):
    """How an idle service is put to sleep."""

    STOP = "stop"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service listens: an IP address or host name, and a TCP port.

    `accepts_early` is true where something in between (docker-proxy on a published port) accepts
    connections before the service itself listens, so that a TCP connect proves nothing.
    """

    host: str
    port: int
    accepts_early: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What a runtime found when it looked. `started_at_s` is wall-clock seconds since the epoch.

    `has_remains` says that a part of what does not run as a whole runs all the same.
    """

    state: RunState
    endpoint: Endpoint | None = None
    started_at_s: float | None = None
    exit_code: int | None = None
    has_remains: bool = False


class Change(StrEnum):
    """What a runtime saw happen."""

    STARTED = "started"
    """Runs now (also: was thawed)."""
    DIED = "died"
    """Ended, by itself or by somebody's hand."""
    PAUSED = "paused"
    UNHEALTHY = "unhealthy"
    """The container's own health check turned bad."""
    HEALTHY = "healthy"
    RESYNC = "resync"
    """Events may have been lost: look again with `observe`."""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """One change, as told to the listener.

    `exit_code` is negative for a signal where the runtime can tell. `by_hand` is true when somebody asked
    for it (`docker stop`, `docker kill`) rather than it happening by itself.
    """

    change: Change
    exit_code: int | None = None
    out_of_memory: bool = False
    by_hand: bool = False

    @property
    def is_by_hand(self) -> bool:
        """Say whether somebody has ended or paused it; nothing pauses by itself."""
        return self.by_hand or self.change is Change.PAUSED


Listener = Callable[[RuntimeEvent], None]


@dataclass(frozen=True, slots=True)
class HealthResult:
    """The outcome of one run of the thing's own health check; `output` is what it printed (shortened)."""

    healthy: bool
    output: str = ""


class Runtime(Protocol):
    """One startable thing.

    All coroutines may be cancelled; what was asked of the engine may then still happen, and shows up as an
    event or in the next `observe`. None of them waits longer than the runtime's own limit an operation.
    """

    def watch(self, listener: Listener) -> None:
        """Call `listener` on the event loop for every change from now on. Set once, before `observe`."""
        ...

    async def observe(self) -> Observation:
        """Look at what is true now. Never starts or creates anything.

        Raises RuntimeFailure where it cannot be known.
        """
        ...

    async def start(self) -> Endpoint:
        """Make it run (create, start or thaw) and return where it will listen.

        Idempotent: returns at once for what runs. Returning does not mean that it listens already.
        Raises RuntimeFailure with the cause.
        """
        ...

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        """End it (or freeze it), forcibly after `grace_s` seconds. Idempotent.

        Raises RuntimeFailure when it still runs.
        """
        ...

    async def check_health(self) -> HealthResult | None:
        """Run its own health check once, now; None where it has none.

        Raises RuntimeFailure when the check could not be run.
        """
        ...

    async def cpu_seconds(self) -> Mapping[str, float]:
        """Return the CPU seconds used so far by each part that a `stop` would end, under names of its own choice.

        Empty where nothing runs. A part that was not there the time before, or had used more, began since.
        Raises RuntimeFailure where it cannot be known, also of one part only: nothing counts as 0 by mistake.
        """
        ...

    async def log_tail(self, lines: int) -> list[str]:
        """Return at most `lines` last lines of its output, oldest first; empty where there is none."""
        ...

    async def close(self) -> None:
        """Let go of tasks, threads and connections.

        A compose project goes on running; a process, which cannot outlive its owner, is ended.
        """
        ...
