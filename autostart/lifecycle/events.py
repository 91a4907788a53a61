"""What the lifecycle tells the world: metrics, the log and the state file listen, nobody answers back.

Every event is emitted synchronously, in the same step as the decision that it tells of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from autostart.errors import RuntimeFailure
from autostart.runtime.base import Change


class State(StrEnum):
    """The states of a service; the values are metric labels."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class StopReason(StrEnum):
    """Why a service stopped; the values are metric labels."""

    IDLE = "idle"
    MANUAL = "manual"
    CRASHED = "crashed"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Phases:
    """How long a start took, in seconds: until the runtime had started it, then until it was ready."""

    runtime_s: float
    ready_s: float

    @property
    def total_s(self) -> float:
        """Seconds from the decision to start until ready."""
        return self.runtime_s + self.ready_s


@dataclass(frozen=True, slots=True)
class StartBegan:
    """A start was decided. `by` says who woke it; `adopted` that it was found running already."""

    service: str
    by: str
    adopted: bool


@dataclass(frozen=True, slots=True)
class StartSucceeded:
    """The service is ready."""

    service: str
    by: str
    adopted: bool
    phases: Phases
    waiting: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The start failed; the next one is held off for `held_off_s` seconds."""

    service: str
    by: str
    failure: RuntimeFailure
    waiting: int
    held_off_s: float


@dataclass(frozen=True, slots=True)
class StopBegan:
    """A stop was decided."""

    service: str
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Stopped:
    """The service does not run any more. `ran_s` counts from ready; `leases` were cut by it.

    It crashed too soon after its start where `held_off_s`, in seconds, is not 0: so long is the next one held off.
    """

    service: str
    reason: StopReason
    ran_s: float
    leases: int
    exit_code: int | None = None
    out_of_memory: bool = False
    held_off_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StopFailed:
    """A stop did not work; `still_running` is None where nobody can tell."""

    service: str
    reason: StopReason
    failure: RuntimeFailure
    still_running: bool | None


@dataclass(frozen=True, slots=True)
class Used:
    """A lease was given back, or it was found busy by itself; `last_used_s` is wall-clock seconds since the epoch."""

    service: str
    last_used_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody holds it awake until `until_s`, wall-clock seconds since the epoch; None: released."""

    service: str
    until_s: float | None


@dataclass(frozen=True, slots=True)
class RuntimeTrouble:
    """The runtime could not be asked (`operation`), or told something that changes no state (`change`)."""

    service: str
    operation: str
    failure: RuntimeFailure | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """The state changed."""

    service: str
    old: State
    new: State


Event = (
    StartBegan
    | StartSucceeded
    | StartFailed
    | StopBegan
    | Stopped
    | StopFailed
    | Used
    | Held
    | RuntimeTrouble
    | Transition
)
Emit = Callable[[Event], None]
