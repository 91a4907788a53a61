"""Count what lifecycle and proxy tell, and tell Prometheus.

Owns no clock of a service and decides nothing. prometheus-client's registry is here for what it brings along: memory,
CPU and garbage collection of the process.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from autostart.lifecycle import Service, Snapshot, State, events
from autostart.metrics.catalogue import (
    ASLEEP,
    AUTH_FAILURES,
    BUILD_INFO,
    BYTES,
    CUT,
    METRICS,
    RECONNECTS,
    RELOAD_OK,
    RELOADED_AT,
    RELOADS,
    REQUEST_DURATION,
    REQUEST_WAIT,
    REQUESTS,
    RUNNING,
    RUNTIME_ERRORS,
    START_DURATION,
    START_FAILURES,
    STARTS,
    STOP_FAILURES,
    STOPS,
    WEBSOCKETS,
    StartResult,
)
from autostart.metrics.exposition import Series, head, label, write
from autostart.proxy.events import RequestEvent, WebSocketOpened
from autostart.version import version


class _ServiceSeries(Series):
    """Adds up the time spent awake and asleep, too.

    `state` and `changed_at` are the state that time is being added up for, None until it is known.
    """

    __slots__ = ("changed_at", "state")

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = None
        self.changed_at = 0.0

    def enter(self, state: State, now: float) -> None:
        """Add the time since the last call to the state that the service was in, and go on with `state`."""
        elapsed_s = max(0.0, now - self.changed_at)
        if self.state is State.STOPPED:
            self.add(ASLEEP, (), elapsed_s)
        elif self.state in {State.STARTING, State.READY, State.STOPPING}:
            self.add(RUNNING, (), elapsed_s)
        self.state, self.changed_at = state, now


class Metrics:
    """All that Prometheus is told. Every method belongs to the event loop's thread.

    `services` returns the services of the configuration in use; the series of others are dropped. `reconnects`
    tells how often the runtime's event stream has been opened again so far.
    """

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        *,
        reconnects: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._services = services
        self._reconnects = reconnects
        self._clock = clock
        self._wall = wall
        self._series: dict[str, _ServiceSeries] = {}
        self._no_service = Series()
        self._program = Series()
        self._program.set(BUILD_INFO, 1, (version(), platform.python_version()))
        self._note_good_config()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    # --- what is listened to -------------------------------------------------------------------------

    def on_lifecycle(self, event: events.Event) -> None:
        """Count one event of the lifecycle."""
        series = self._of(event.service)
        match event:
            case events.Transition(old=old, new=new):
                if series.state is None:
                    series.state, series.changed_at = old, self._clock()
                series.enter(new, self._clock())
                if old is State.STARTING and new is State.STOPPING:
                    series.add(STARTS, (StartResult.STOPPED.value,))
            case events.StartSucceeded(adopted=True):
                series.add(STARTS, (StartResult.ADOPTED.value,))
            case events.StartSucceeded(phases=phases):
                series.add(STARTS, (StartResult.SUCCEEDED.value,))
                series.observe(START_DURATION, phases.runtime_s, ("runtime",))
                series.observe(START_DURATION, phases.ready_s, ("ready",))
                series.observe(START_DURATION, phases.total_s, ("total",))
            case events.StartFailed(failure=failure):
                series.add(STARTS, (StartResult.FAILED.value,))
                series.add(START_FAILURES, (failure.cause.value,))
            case events.Stopped(reason=reason, leases=leases):
                series.add(STOPS, (reason.value,))
                series.add(CUT, (), leases)
            case events.StopFailed():
                series.add(STOP_FAILURES)
                series.add(RUNTIME_ERRORS, ("stop",))
            case events.RuntimeTrouble(operation=operation, failure=failure) if failure is not None:
                series.add(RUNTIME_ERRORS, (operation,))
            case _:  # StartBegan, StopBegan, Used and Held are in the snapshots
                pass

    def on_request(self, event: RequestEvent) -> None:
        """Count a request that ended, or a WebSocket that was opened; takes some 2 µs."""
        if isinstance(event, WebSocketOpened):
            self._of(event.service).add(WEBSOCKETS)
            return
        series = self._no_service if event.service is None else self._of(event.service)
        series.add(REQUESTS, (str(event.status), event.code))
        if event.failed_auth:
            series.add(AUTH_FAILURES)
        if event.service is None:
            return
        if event.bytes_in:
            series.add(BYTES, ("in",), event.bytes_in)
        if event.bytes_out:
            series.add(BYTES, ("out",), event.bytes_out)
        if event.websocket:
            if series.values.get(WEBSOCKETS):  # a reload may have dropped the series in between
                series.add(WEBSOCKETS, (), -1)
        else:
            series.observe(REQUEST_DURATION, event.duration_s)
        if event.waited_s:
            series.observe(REQUEST_WAIT, event.waited_s)

    def on_reload(self, *, ok: bool) -> None:
        """Count a reload of the configuration; the first reading of it is no reload."""
        self._program.add(RELOADS, ("ok" if ok else "failed",))
        if ok:
            self._note_good_config()
        else:
            self._program.set(RELOAD_OK, 0)

    def _note_good_config(self) -> None:
        self._program.set(RELOAD_OK, 1)
        self._program.set(RELOADED_AT, self._wall())

    def _of(self, service: str) -> _ServiceSeries:
        series = self._series.get(service)
        if series is None:
            series = self._series[service] = _ServiceSeries()
        return series

    # --- what is told --------------------------------------------------------------------------------

    def render(self) -> bytes:
        """Return everything in Prometheus' text format 0.0.4."""
        return "".join(self._lines()).encode() + generate_latest(self._registry)

    def _lines(self) -> Iterator[str]:
        shown = self._look_at_services()
        self._program.set(RECONNECTS, self._reconnects())
        for metric in METRICS:
            yield head(metric)
            if not metric.per_service:
                yield from write(metric, "", self._program, None)
                continue
            for prefix, series, snapshot in shown:
                yield from write(metric, prefix, series, snapshot)
            if self._no_service.values.get(metric):
                yield from write(metric, label("service", ""), self._no_service, None)

    def _look_at_services(self) -> list[tuple[str, _ServiceSeries, Snapshot]]:
        """Return what is there of each service, time added up until now; forget services that have gone."""
        now, wall_s = self._clock(), self._wall()
        shown = []
        kept: dict[str, _ServiceSeries] = {}
        for service in self._services():
            snapshot = service.snapshot()
            series = kept[service.host] = self._of(service.host)
            if series.state is None:  # seen for the first time, and the same since it was made
                series.state, series.changed_at = snapshot.state, now - max(0.0, wall_s - snapshot.since_s)
            series.enter(snapshot.state, now)
            shown.append((label("service", service.host), series, snapshot))
        self._series = kept
        return shown
