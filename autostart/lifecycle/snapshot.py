"""What is told of a service: plain facts for `status`, `explain`, metrics and the waiting page."""

from dataclasses import dataclass

from autostart.errors import RuntimeFailure
from autostart.lifecycle.busy import OwnWork
from autostart.lifecycle.events import Phases, State
from autostart.lifecycle.use import Lease
from autostart.runtime.base import Endpoint


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A service at one moment. All `…_at_s`, `since_s` and `last_used_s` are wall-clock seconds."""

    service: str
    name: str
    state: State
    since_s: float
    leases: tuple[Lease, ...]
    last_used_s: float | None
    idle_stop_at_s: float | None
    """When it will be stopped if nobody comes; None while it is in use, does not run, or never is."""
    held_for_s: float
    own_work: OwnWork | None
    """What the busy check heard last; None where there is none, it was not asked yet, or the service is in use."""
    started_by: str
    last_phases: Phases | None
    expected_start_s: float
    failure: RuntimeFailure | None
    failure_at_s: float | None
    held_off_s: float
    waiting_for: str
    """While starting: what the last readiness probe heard."""
    endpoint: Endpoint | None
    unhealthy_since_s: float | None
    """While ready: since when its container's own health check says no; None where that is not known."""
    is_outdated: bool
    """It is in use, and what a reload has changed about its runtime waits until it is not."""

    @property
    def waiting(self) -> int:
        """How many requests wait for the start."""
        return sum(lease.endpoint is None for lease in self.leases)

    @property
    def in_flight(self) -> int:
        """How many requests are being forwarded."""
        return len(self.leases) - self.waiting
