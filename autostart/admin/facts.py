"""A service as JSON, and why it is as it is in sentences. Pure: from a snapshot to words.

Times are wall-clock seconds since the epoch in JSON, local time and ages in sentences.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle import Lease, OwnWork, Snapshot, State
from autostart.lifecycle.events import Phases
from autostart.words import age

Json = dict[str, Any]

_ADOPTED = "adopted"
"""What the lifecycle gives as the waker of something that it found running."""
_LEASES_TOLD = 10


def service_facts(snapshot: Snapshot, config: ServiceConfig) -> Json:
    """Return what `GET /v1/services/{host}` tells."""
    phases = snapshot.last_phases
    return {
        "service": snapshot.service,
        "name": snapshot.name,
        "aliases": list(config.aliases),
        "state": snapshot.state.value,
        "since_s": snapshot.since_s,
        "in_flight": snapshot.in_flight,
        "waiting": snapshot.waiting,
        "leases": [_lease_facts(lease) for lease in snapshot.leases],
        "last_used_s": snapshot.last_used_s,
        "idle_stop_at_s": snapshot.idle_stop_at_s,
        "idle_timeout_s": None if config.idle_timeout == float("inf") else config.idle_timeout,
        "held_for_s": snapshot.held_for_s,
        "own_work": _own_work_facts(snapshot.own_work) if snapshot.own_work else None,
        "started_by": snapshot.started_by or None,
        "woken_at_s": _woken_at_s(snapshot),
        "last_start": phases
        and {"runtime_s": phases.runtime_s, "ready_s": phases.ready_s, "total_s": phases.total_s},
        "expected_start_s": snapshot.expected_start_s,
        "failure": failure_facts(snapshot.failure) if snapshot.failure else None,
        "failure_at_s": snapshot.failure_at_s,
        "held_off_s": snapshot.held_off_s,
        "waiting_for": snapshot.waiting_for or None,
        "unhealthy_since_s": snapshot.unhealthy_since_s,
        "is_outdated": snapshot.is_outdated,
        "endpoint": snapshot.endpoint and {"host": snapshot.endpoint.host, "port": snapshot.endpoint.port},
    }


def failure_facts(failure: RuntimeFailure) -> Json:
    """Return a failure with everything that is known of it; for the local API only."""
    return {
        "cause": failure.cause.value,
        "message": str(failure),
        "hint": failure.hint or None,
        "log_tail": list(failure.log_tail),
    }


def explain(snapshot: Snapshot, config: ServiceConfig, now_s: float) -> list[str]:
    """Say who woke it and when, why it is still up, what it waits for, and when it will stop."""
    tell = {
        State.STOPPED: _explain_stopped,
        State.STARTING: _explain_starting,
        State.READY: _explain_ready,
        State.STOPPING: _explain_stopping,
        State.FAILED: _explain_failed,
    }[snapshot.state]
    told = list(tell(snapshot, config, now_s))
    if snapshot.is_outdated:
        told.append("A reload has changed what it runs on; the new takes its place once no request is open.")
    return told


def _lease_facts(lease: Lease) -> Json:
    return {"by": lease.by, "since_s": lease.since_s, "counts": lease.counts, "waits": lease.endpoint is None}


def _own_work_facts(work: OwnWork) -> Json:
    failure = failure_facts(work.failure) if work.failure else None
    return {"is_busy": work.is_busy, "words": work.words, "failure": failure}


def _woken_at_s(snapshot: Snapshot) -> float | None:
    """When the start of what runs now began; None where nothing runs or it was found running."""
    if snapshot.state is State.STARTING:
        return snapshot.since_s
    if snapshot.state is State.READY and snapshot.last_phases and snapshot.started_by != _ADOPTED:
        return snapshot.since_s - snapshot.last_phases.total_s
    return None


# --- sentences -----------------------------------------------------------------------------------------


def _explain_stopped(snapshot: Snapshot, _config: ServiceConfig, now_s: float) -> Iterator[str]:
    yield f"It sleeps, since {_at(snapshot.since_s, now_s)}."
    yield _last_use(snapshot, now_s)
    if snapshot.last_phases:
        yield f"The next request starts it; the last start took {_phases(snapshot.last_phases)}."
    else:
        yield "The next request starts it; how long that takes is not known yet."
    if snapshot.held_for_s > 0:
        yield f"Once started, it is held awake for another {age(snapshot.held_for_s)} (`autostart release` ends that)."
    yield from _failure(snapshot, now_s)


def _explain_starting(snapshot: Snapshot, config: ServiceConfig, now_s: float) -> Iterator[str]:
    if snapshot.started_by == _ADOPTED:
        yield f"It was found running at {_at(snapshot.since_s, now_s)}, and is not known to answer yet."
    else:
        yield f"It is starting, woken by {snapshot.started_by} at {_at(snapshot.since_s, now_s)}."
    if snapshot.waiting_for:
        yield f"It waits for the service to answer; so far: {snapshot.waiting_for}."
    yield from _leases(snapshot.leases, now_s)
    if snapshot.last_phases:
        yield f"The last start took {_phases(snapshot.last_phases)}."
    left_s = snapshot.since_s + config.start_timeout - now_s
    yield f"The start is given up in {age(max(0.0, left_s))} (startTimeout is {age(config.start_timeout)})."
    yield from _failure(snapshot, now_s)


def _explain_ready(snapshot: Snapshot, config: ServiceConfig, now_s: float) -> Iterator[str]:
    yield f"It is ready, since {_at(snapshot.since_s, now_s)}."
    woken_at_s = _woken_at_s(snapshot)
    if woken_at_s is None:
        yield "It was found running, and taken over."
    else:
        yield f"It was woken by {snapshot.started_by} at {_at(woken_at_s, now_s)}."
    if snapshot.last_phases and woken_at_s is not None:
        yield f"The start took {_phases(snapshot.last_phases)}."
    if snapshot.unhealthy_since_s is not None:
        at = _at(snapshot.unhealthy_since_s, now_s)
        yield f"Its container's own health check says no, since {at}; it is served all the same."
    yield _last_use(snapshot, now_s)
    in_use = [lease for lease in snapshot.leases if lease.holds]
    sockets = [lease for lease in snapshot.leases if not lease.holds]
    if in_use:
        yield "It stays up because it is in use:"
        yield from _leases(in_use, now_s)
    if sockets:
        yield "WebSockets are open; only messages that pass on them count as use:"
        yield from _leases(sockets, now_s)
    if snapshot.held_for_s > 0:
        yield f"It is held awake for another {age(snapshot.held_for_s)} (`autostart release` ends that)."
    yield from _own_work(snapshot.own_work)
    if config.idle_timeout == float("inf"):
        yield 'It is never stopped for being idle (idleTimeout is "never").'
    elif in_use:
        yield f"It will be stopped {age(config.idle_timeout)} after the last of these ends (idleTimeout)."
    elif snapshot.idle_stop_at_s is not None:
        left_s = max(0.0, snapshot.idle_stop_at_s - now_s)
        at = time.strftime("%H:%M:%S", time.localtime(snapshot.idle_stop_at_s))
        yield f"It will be stopped at {at}, in {age(left_s)}, if nobody comes (idleTimeout is {age(config.idle_timeout)})."
        if options := _questions(config):
            work = snapshot.own_work
            heard = f"; so far: {work.words}" if work is not None and not work.keeps_up else ""
            yield f"Before that it is asked whether it is busy by itself ({options}){heard}."


def _explain_stopping(snapshot: Snapshot, config: ServiceConfig, now_s: float) -> Iterator[str]:
    yield f"It is being stopped, since {_at(snapshot.since_s, now_s)}; it has {age(config.stop_timeout)} to end by itself."
    yield _last_use(snapshot, now_s)
    waiting = [lease for lease in snapshot.leases if lease.endpoint is None]
    if waiting:
        yield "These wait, and start it again as soon as it has stopped:"
        yield from _leases(waiting, now_s)


def _explain_failed(snapshot: Snapshot, _config: ServiceConfig, now_s: float) -> Iterator[str]:
    yield f"The last start failed, at {_at(snapshot.since_s, now_s)}; it was asked for by {snapshot.started_by}."
    yield from _failure(snapshot, now_s)
    if snapshot.held_off_s > 0:
        yield f"Starts are held off for another {age(snapshot.held_off_s)}; `autostart start` does not wait for that."
    else:
        yield "The next request starts it again."


def _leases(leases: Iterable[Lease], now_s: float) -> Iterator[str]:
    told = list(leases)
    for lease in told[:_LEASES_TOLD]:
        what = "waits" if lease.endpoint is None else "is open"
        yield f"  - {lease.by} {what} since {_at(lease.since_s, now_s)}"
    if len(told) > _LEASES_TOLD:
        yield f"  - and {len(told) - _LEASES_TOLD} more"


def _questions(config: ServiceConfig) -> str:
    """Return the options that say how it is asked whether it is busy; empty where there are none."""
    asked = {"busyPath": config.busy_path, "busyCpuPercent": config.busy_cpu_percent}
    return ", ".join(option for option, value in asked.items() if value is not None)


def _own_work(work: OwnWork | None) -> Iterator[str]:
    if work is None:
        return
    if work.is_busy:
        yield f"It stays up because it is busy by itself: {work.words}."
    if work.failure is not None:
        kept = "" if work.is_busy else ", and it stays up until it can be told"
        yield f"Autostart cannot tell whether it is busy: {work.failure}{kept}."
        if work.failure.hint:
            yield f"What may help: {work.failure.hint}."


def _last_use(snapshot: Snapshot, now_s: float) -> str:
    if snapshot.last_used_s is None:
        return "No use of it is known."
    return f"It was last used at {_at(snapshot.last_used_s, now_s)}."


def _failure(snapshot: Snapshot, now_s: float) -> Iterator[str]:
    failure = snapshot.failure
    if failure is None:
        return
    at = f" at {_at(snapshot.failure_at_s, now_s)}" if snapshot.failure_at_s else ""
    yield f"Last failure{at}: {failure} (cause: {failure.cause.value})."
    if failure.hint:
        yield f"What may help: {failure.hint}."
    if failure.log_tail:
        yield "Its last output:"
        yield from (f"  | {line}" for line in failure.log_tail)


def _phases(phases: Phases) -> str:
    runtime, ready = f"{phases.runtime_s:.2f} s", f"{phases.ready_s:.2f} s"
    return (
        f"{phases.total_s:.2f} s ({runtime} until the runtime had started it, {ready} more until it answered)"
    )


def _at(at_s: float, now_s: float) -> str:
    """Return a time of day, with the date where it is not today, and how long ago it was."""
    here, today = time.localtime(at_s), time.localtime(now_s)
    same_day = here[:3] == today[:3]
    return f"{time.strftime('%H:%M:%S' if same_day else '%Y-%m-%d %H:%M:%S', here)} ({age(max(0.0, now_s - at_s))} ago)"
