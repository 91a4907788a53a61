"""Every metric of the program: its name, what it means, and the page that documents them.

A new metric is one new entry here; where it is counted from events, one line in `counting` beside it.
"""

from collections.abc import Callable
from enum import StrEnum

from autostart.lifecycle import Snapshot, State
from autostart.lifecycle.events import StopReason
from autostart.metrics.exposition import PREFIX, Kind, Labels, Metric


class StartResult(StrEnum):
    """How a start ended; the values are metric labels."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ADOPTED = "adopted"
    STOPPED = "stopped"


class Direction(StrEnum):
    """Which way bytes went, seen from the service; the values are metric labels."""

    IN = "in"
    OUT = "out"


_NONE: tuple[Labels, ...] = ((),)
_WAKING = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_WORKING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


def _each(values: type[StrEnum]) -> tuple[Labels, ...]:
    return tuple((value.value,) for value in values)


def _counter(
    name: str,
    help_: str,
    labels: Labels = (),
    from_start: tuple[Labels, ...] = _NONE,
    *,
    per_service: bool = True,
) -> Metric:
    return Metric(name, Kind.COUNTER, help_, labels, from_start, per_service=per_service)


def _gauge(name: str, help_: str, look: Callable[[Snapshot], float]) -> Metric:
    return Metric(name, Kind.GAUGE, help_, look=lambda snapshot: (((), look(snapshot)),))


def _idle_stop_at_s(snapshot: Snapshot) -> float:
    return snapshot.idle_stop_at_s or 0.0


STATE = Metric(
    "service_state",
    Kind.GAUGE,
    "1 for the state that the service is in, 0 for the others.",
    ("state",),
    look=lambda snapshot: (((state.value,), float(state is snapshot.state)) for state in State),
)
IN_FLIGHT = _gauge(
    "requests_in_flight", "Requests being forwarded, WebSockets included.", lambda s: s.in_flight
)
WAITING = _gauge("requests_waiting", "Requests that wait until the service is ready.", lambda s: s.waiting)
WEBSOCKETS = Metric("websockets_open", Kind.GAUGE, "WebSockets open.", from_start=_NONE)
LAST_REQUEST = _gauge(
    "last_request_timestamp_seconds",
    "When the last request ended, in seconds since the epoch; 0 where none is known.",
    lambda s: s.last_used_s or 0.0,
)
IDLE_STOP = _gauge(
    "idle_stop_timestamp_seconds",
    "When the service will be stopped if nobody comes, in seconds since the epoch; 0 while it sleeps, is in use or "
    "is never stopped.",
    _idle_stop_at_s,
)
HOLD = _gauge(
    "hold_seconds", "How much longer `autostart hold` keeps the service awake.", lambda s: s.held_for_s
)
BUSY = _gauge(
    "busy",
    "1 while the service is kept up by work of its own (`busyPath`, `busyCpuPercent`), or while that cannot be told.",
    lambda s: float(s.own_work is not None and s.own_work.keeps_up),
)
HELD_OFF = _gauge(
    "start_hold_off_seconds", "How much longer starts are held off after failures.", lambda s: s.held_off_s
)
REQUESTS = _counter(
    "requests_total",
    "Requests that ended, by HTTP status (499: the client left first) and by error code, empty where the service's answer was passed on whole. `service` is "
    "empty for host names that no service has.",
    ("status", "code"),
    (("200", ""),),
)
REQUEST_DURATION = Metric(
    "request_duration_seconds",
    Kind.HISTOGRAM,
    "From the request head to the last byte of the answer, the wait for a start included. Without WebSockets. There from "
    "the first request on.",
    buckets=_WORKING,
)
REQUEST_WAIT = Metric(
    "request_wait_seconds",
    Kind.HISTOGRAM,
    "How long requests waited for a start; those that met a ready service are not counted. There from the first wait on.",
    buckets=_WAKING,
)
BYTES = _counter(
    "request_bytes_total",
    "Bytes of bodies, `in` to the service and `out` of it.",
    ("direction",),
    _each(Direction),
)
AUTH_FAILURES = _counter("auth_failures_total", "Requests with wrong credentials, or without any.")
STARTS = _counter(
    "starts_total",
    "Starts by result. `adopted`: it was found running; `stopped`: somebody stopped it before it was ready.",
    ("result",),
    _each(StartResult),
)
START_FAILURES = _counter(
    "start_failures_total", "Failed starts by cause. There from the first failure on.", ("cause",), ()
)
START_DURATION = Metric(
    "start_duration_seconds",
    Kind.HISTOGRAM,
    "Successful starts by phase: until the `runtime` had started it, from then until it was `ready`, and the `total`. "
    "There from the first start on.",
    ("phase",),
    buckets=_WAKING,
)
STOPS = _counter("stops_total", "Stops by reason.", ("reason",), _each(StopReason))
STOP_FAILURES = _counter("stop_failures_total", "Stops that did not work.")
CUT = _counter(
    "requests_cut_total", "Requests that were open when the service stopped, crashed or was stopped by force."
)
RUNNING = _counter(
    "running_seconds_total", "Time that the service was starting, ready or stopping, since autostart started."
)
ASLEEP = _counter(
    "asleep_seconds_total", "Time that the service was stopped, since autostart started: what sleeping saved."
)
RUNTIME_ERRORS = _counter(
    "runtime_errors_total",
    "Failed operations of the runtime, other than starts (see `autostart_start_failures_total`).",
    ("operation",),
    (("observe",), ("stop",), ("clean_up",), ("busy_check",)),
)
RELOADS = _counter(
    "config_reloads_total",
    "Reloads of the configuration.",
    ("result",),
    (("ok",), ("failed",)),
    per_service=False,
)
RELOAD_OK = Metric(
    "config_last_reload_successful",
    Kind.GAUGE,
    "1 where the last reload, or the start, had a good configuration; 0 where it was refused and the old one stays.",
    per_service=False,
)
RELOADED_AT = Metric(
    "config_last_reload_success_timestamp_seconds",
    Kind.GAUGE,
    "When the configuration in use was read, in seconds since the epoch.",
    per_service=False,
)
RECONNECTS = _counter(
    "event_stream_reconnects_total",
    "How often the runtime's event stream broke and was opened again.",
    per_service=False,
)
BUILD_INFO = Metric(
    "build_info", Kind.GAUGE, "Always 1; tells the versions.", ("version", "python"), per_service=False
)

METRICS = tuple(value for value in dict(globals()).values() if isinstance(value, Metric))


def reference() -> str:
    """Return docs/metrics.md."""
    rows = [
        "# Metrics",
        "",
        "<!-- Made by `python -m autostart.metrics > docs/metrics.md`; do not edit. -->",
        "",
        "`GET /metrics` on the address in `admin.metrics` (default `127.0.0.1:8891`) answers in Prometheus' text",
        "format. `service` is the host name in the configuration, never one from a request. The series of a service",
        "exist from the start, as 0, and go when a reload removes it; where one comes only with its first event, the",
        "table says so. Beside these there are `process_*` (memory, CPU, open files) and `python_gc_*`.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(
            f"`{label}`" for label in (*(["service"] if metric.per_service else []), *metric.labels)
        )
        rows.append(f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels or '–'} | {metric.help} |")
    rows += ["", "Label values:", ""]
    for metric in METRICS:
        if metric is STATE or (metric.from_start and metric.from_start[0] and metric is not REQUESTS):
            values = _each(State) if metric is STATE else metric.from_start
            listed = ", ".join(f"`{value[0]}`" for value in values)
            rows.append(f"- `{metric.labels[0]}` of `{PREFIX}{metric.name}`: {listed}")
    buckets = [metric for metric in METRICS if metric.buckets]
    rows += ["", "Buckets, in seconds:", ""]
    rows += [f"- `{PREFIX}{m.name}`: {', '.join(f'{bound:g}' for bound in m.buckets)}" for m in buckets]
    return "\n".join(rows) + "\n"
