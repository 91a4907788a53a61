"""The added time of a cold request: its first byte, less what the start costs without autostart.

    added = first byte - what starting it takes (`docker start`, or executing the command)
                       - what the service itself then takes until it listens (or is ready)

Both are known of each single wake: a recorder stands between the gateway and the engine, and the service tells
of its moments through a fifo, just before it listens (so its listening counts against the gateway). Beside each
wake the same service is started without autostart and asked every millisecond: the noise of the machine hits
both, and the difference of the two medians is a second way to the same figure.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import docker

from bench import client
from bench.engine import BACKEND_IMAGE, Project, Recorder, connect
from bench.marks import Marks
from bench.stand import (
    HOST,
    Failed,
    Gateway,
    Missing,
    Stand,
    backend_command,
    free_port,
    process_service,
    wait_until,
)
from bench.table import Row, median, percentile, skipped

TITLE = "Cold: added time of a cold request"

_OWN_TIME_S = 0.2
_P50_MS, _P99_MS, _HEALTH_MS = 10.0, 50.0, 150.0
_PAUSED, _PAUSED_MS = "container, paused", 100.0
_READY_PATH = "/health/ready"

# `sh` is the container's first process: it must take the signal, and does so only while it `wait`s.
_BEGIN = "trap 'exit 0' TERM; rm -f /www/health/ready /run/healthy; mkdir -p /www/health /run; "
_LATER = f"sleep {_OWN_TIME_S} & wait $!; "
_LISTEN = "httpd -f -p 8080 -h /www & "
_TELL = "echo ready >/marks/fifo; "


@dataclass(frozen=True)
class Kind:
    """A way to know that a service is ready. `script` is what its container runs."""

    name: str
    script: str
    path: str
    readiness: dict[str, Any]
    health_check: bool
    p50_ms: float
    p99_ms: float


KINDS = (
    Kind(
        "container, readiness path",
        f"{_BEGIN}{_LISTEN}{_LATER}{_TELL}echo >/www/health/ready; wait",
        _READY_PATH,
        {"path": _READY_PATH},
        False,
        _P50_MS,
        _P99_MS,
    ),
    Kind("container, plain port", f"{_BEGIN}{_LATER}{_TELL}{_LISTEN}wait", "/", {}, False, _P50_MS, _P99_MS),
    # Here nothing that is done after the start hides behind the service's own time.
    Kind("container, listening at once", f"{_BEGIN}{_TELL}{_LISTEN}wait", "/", {}, False, _P50_MS, _P99_MS),
    Kind(
        "container, health check only",
        f"{_BEGIN}{_LISTEN}{_LATER}{_TELL}: >/run/healthy; wait",
        "/",
        {},
        True,
        _HEALTH_MS,
        _HEALTH_MS,
    ),
)


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake. `before_s` is the part until the start was asked for, `after_s` that from ready to first byte."""

    took_s: float
    before_s: float
    start_s: float
    own_s: float
    after_s: float

    @property
    def added_s(self) -> float:
        """What autostart added."""
        return self.before_s + self.after_s


def measure(wakes: int = 40) -> list[Row]:
    """Return the rows; each kind is woken `wakes` times, and as often started without autostart."""
    rows = measure_process(wakes)
    try:
        engine = connect(BACKEND_IMAGE)
    except Missing as exc:
        return [*rows, *(skipped(name, str(exc)) for name in (*(kind.name for kind in KINDS), _PAUSED))]
    with contextlib.closing(engine):
        for kind in KINDS:
            rows += measure_container(engine, kind, wakes)
        rows += measure_paused(engine, wakes)
    return rows


# --- a process -------------------------------------------------------------------------------------------


def measure_process(wakes: int) -> list[Row]:
    """Return the rows of a service that is a process."""
    with Stand() as stand:
        marks = stand.enter(Marks(stand.directory / "fifo").reading())
        port, other_port = free_port(), free_port()

        def command(port: int) -> list[str]:
            # The moment at which it is executed, too, is told by what is executed.
            told = f'echo executed >{marks.path}; exec "$@"'
            listens = backend_command(port, "--mark", str(marks.path))
            return ["/bin/sh", "-c", told, "sh", *listens]

        gateway = stand.gateway({HOST: process_service(port, command(port))})

        def wake() -> Wake:
            marks.clear()
            asked = _ask(gateway)
            executed_s, ready_s = marks.wait("executed"), marks.wait("listening")
            return _wake(asked, executed_s, executed_s, ready_s)

        def start_directly() -> float:
            begun = time.monotonic()
            with subprocess.Popen(
                command(other_port), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            ) as process:
                try:
                    return client.first_answer(other_port, "/", "127.0.0.1") - begun
                finally:
                    process.terminate()

        return _rows(
            "process, plain port", *_alternate(wakes, gateway, wake, start_directly), _P50_MS, _P99_MS
        )


# --- a container -----------------------------------------------------------------------------------------


def measure_container(engine: docker.APIClient, kind: Kind, wakes: int) -> list[Row]:
    """Return the rows of a service that is a container."""
    with Stand() as stand:
        (stand.directory / "marks").mkdir()
        (stand.directory / "quiet").mkdir()
        marks = stand.enter(Marks(stand.directory / "marks" / "fifo").reading())
        service: dict[str, Any] = {
            "image": BACKEND_IMAGE,
            "command": ["/bin/sh", "-c", kind.script.replace("$", "$$")],
        }
        if kind.health_check:
            service["healthcheck"] = {"test": ["CMD", "/bin/health"], "interval": "5s", "timeout": "3s"}
        through, direct = (
            stand.enter(
                Project(
                    engine,
                    stand.new_directory(),
                    service | {"volumes": [f"{stand.directory / told}:/marks"]},
                    8080,
                ).existing()
            )
            for told in ("marks", "quiet")
        )
        recorder = stand.enter(Recorder(stand.directory / "engine.sock").listening())
        # The other project is created by the gateway as well, and then left alone.
        services = {
            HOST: through.config(readiness=kind.readiness),
            "direct.localhost": direct.config(readiness=kind.readiness),
        }
        gateway = stand.gateway(services, env={"DOCKER_HOST": recorder.address})
        _create(gateway, direct)

        def wake() -> Wake:
            marks.clear()
            asked = _ask(gateway)
            begun_s, returned_s = recorder.last_start()
            return _wake(asked, begun_s, returned_s, marks.wait("ready"))

        def start_directly() -> float:
            begun = time.monotonic()
            engine.start(direct.name)
            try:
                if kind.health_check:
                    wait_until(lambda: _is_healthy(engine, direct.name), "health")
                return client.first_answer(8080, kind.path, direct.address()) - begun
            finally:
                engine.stop(direct.name, timeout=5)

        return _rows(kind.name, *_alternate(wakes, gateway, wake, start_directly), kind.p50_ms, kind.p99_ms)


def measure_paused(engine: docker.APIClient, wakes: int) -> list[Row]:
    """Return the rows of a container that is frozen, not stopped: all of its waking, the engine's part included."""
    with Stand() as stand:
        project = Project(engine, stand.new_directory(), {"image": BACKEND_IMAGE}, 8080)
        config = stand.enter(project.existing()).config(stopMethod="pause")
        recorder = stand.enter(Recorder(stand.directory / "engine.sock").listening())
        gateway = stand.gateway({HOST: config}, env={"DOCKER_HOST": recorder.address})
        gateway.start()
        took_ms, own_ms = [], []
        for _ in range(wakes):
            gateway.stop()
            asked = _ask(gateway)
            begun_s, returned_s = recorder.last_start()
            if begun_s < asked.sent_s:
                raise Failed("what was paused was not woken")
            took_ms.append(asked.took_s * 1000)
            own_ms.append((returned_s - begun_s) * 1000)
    note = f"of it the engine's own unpause {median(own_ms):.1f}"
    return [
        Row(f"{_PAUSED}: first byte, p50", median(took_ms), "ms", _PAUSED_MS, note),
        Row(f"{_PAUSED}: first byte, p99", percentile(took_ms, 0.99), "ms", _PAUSED_MS),
    ]


def _create(gateway: Gateway, project: Project) -> None:
    """Let the gateway create the project's container, and stop it."""
    gateway.start(service="direct.localhost")
    project.client.stop(project.name, timeout=5)
    project.wait_until_stopped()


def _is_healthy(engine: docker.APIClient, name: str) -> bool:
    """Run the health check as often as can be, as the best that somebody without autostart could do."""
    execution = engine.exec_create(name, ["/bin/health"])["Id"]
    engine.exec_start(execution)
    return bool(engine.exec_inspect(execution)["ExitCode"] == 0)


# --- both ------------------------------------------------------------------------------------------------


def _ask(gateway: Gateway) -> client.Asked:
    asked = client.get(gateway.port)
    if asked.status != 200:
        raise Failed(f"the cold request was answered with {asked.status}")
    return asked


def _wake(asked: client.Asked, begun_s: float, returned_s: float, ready_s: float) -> Wake:
    ready_s = max(ready_s, returned_s)
    return Wake(
        took_s=asked.took_s,
        before_s=begun_s - asked.sent_s,
        start_s=returned_s - begun_s,
        own_s=ready_s - returned_s,
        after_s=asked.first_byte_s - ready_s,
    )


def _alternate(
    wakes: int, gateway: Gateway, wake: Callable[[], Wake], start_directly: Callable[[], float]
) -> tuple[list[Wake], list[float]]:
    """Wake and start directly in turn; the first of each creates and loads what is missing, and is not counted."""
    through, direct = [], []
    for _ in range(wakes + 1):
        through.append(wake())
        gateway.stop()
        direct.append(start_directly())
    return through[1:], direct[1:]


def _rows(name: str, through: list[Wake], direct: list[float], p50_ms: float, p99_ms: float) -> list[Row]:
    def ms(values: Iterable[float], share: float = 0.5) -> float:
        return percentile(values, share) * 1000

    added = [wake.added_s for wake in through]
    parts = (
        f"until the start {ms(w.before_s for w in through):.1f}, the start itself {ms(w.start_s for w in through):.1f}, "
        f"the service's own {ms(w.own_s for w in through):.1f}, from ready to first byte {ms(w.after_s for w in through):.1f}"
    )
    worst = max(through, key=lambda wake: wake.added_s)
    worst_parts = (
        f"the worst: {worst.before_s * 1000:.1f} before the start, {worst.after_s * 1000:.1f} after ready"
    )
    difference = (median(wake.took_s for wake in through) - median(direct)) * 1000
    return [
        Row(f"{name}: added, p50", ms(added), "ms", p50_ms, parts),
        Row(f"{name}: added, p99", ms(added, 0.99), "ms", p99_ms, worst_parts),
        Row(
            f"{name}: first byte, p50",
            ms(wake.took_s for wake in through),
            "ms",
            note=f"directly {ms(direct):.1f}, difference {difference:+.1f}",
        ),
    ]
