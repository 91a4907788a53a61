"""What services that hang cost the others: warm requests and wakes, undisturbed and while one or many hang.

All in one gateway and in turn, several rounds of it: what colleagues on the machine do hits all of them. A row is
the ratio of two medians over the rounds.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from bench import client
from bench.engine import BACKEND_IMAGE, Project, connect
from bench.hanging import Holder, closed_process, deaf_process, silent_process
from bench.stand import (
    HOST,
    OTHER_CORE,
    PROXY_CORE,
    Failed,
    Gateway,
    Missing,
    Stand,
    backend_command,
    fast_backend_command,
    free_port,
    pinned,
    process_service,
    wait_until,
)
from bench.table import Row, median, percentile, skipped

TITLE = "Isolation: the others, while services hang"

_COLD = "cold.localhost"
_RATIO = 1.5
"""More than what two measurements of the same thing differ by here."""
_ENGINE_KINDS = {
    "engine, look hangs": "look",
    "engine, start hangs": "start",
    "engine, stop hangs": "stop",
    "engine, log fetch hangs": "logs",
    "engine, health check hangs": "exec",
}


@dataclass(frozen=True)
class Kind:
    """A way to hang. `hang` lets that many services hang for the body of its `with`."""

    name: str
    hang: Callable[[int], contextlib.AbstractContextManager[None]]


@dataclass
class Found:
    """What the others took, in seconds: of each round the median and p99 of warm requests, and all wakes."""

    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)
    wakes_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Size:
    """How many services hang, and what is measured of the others in a round."""

    many: int = 40
    rounds: int = 3
    seconds: float = 0.6
    wakes: int = 3


_FULL = Size()


def measure(size: Size = _FULL) -> list[Row]:
    """Return the rows, for services that are processes and, where an engine runs, for compose projects."""
    rows = measure_processes(size)
    try:
        connect(BACKEND_IMAGE).close()
    except Missing as exc:
        return [*rows, *(skipped(kind, str(exc)) for kind in _ENGINE_KINDS)]
    return [*rows, *measure_projects(size)]


def measure_processes(size: Size) -> list[Row]:
    """Return the rows for services that are processes; what is woken is a process."""
    with Stand() as stand:
        freed = stand.directory / "freed"
        hosts = {
            name: [f"{name}{number}.localhost" for number in range(size.many)]
            for name in ("closed", "silent", "deaf")
        }
        services = {host: closed_process() for host in hosts["closed"]}
        services |= {host: silent_process() for host in hosts["silent"]}
        services |= {host: deaf_process(freed) for host in hosts["deaf"]}
        port = free_port()
        services[_COLD] = process_service(port, pinned(OTHER_CORE, backend_command(port)))
        gateway = _gateway(stand, services)

        @contextlib.contextmanager
        def starting(name: str, count: int) -> Iterator[None]:
            with _calling(gateway.start, hosts[name][:count]):
                wait_until(lambda: _count(gateway, "starting") == count, "services that hang in their start")
                yield
                for host in hosts[name][:count]:
                    gateway.stop(host)

        @contextlib.contextmanager
        def stopping(count: int) -> Iterator[None]:
            freed.unlink(missing_ok=True)
            for host in hosts["deaf"][:count]:
                gateway.start(host)
            with _calling(gateway.stop, hosts["deaf"][:count]):
                wait_until(lambda: _count(gateway, "stopping") == count, "services that hang in their stop")
                yield
                freed.touch()

        kinds = (
            Kind("process, never listens", lambda count: starting("closed", count)),
            Kind("process, accepts and never answers", lambda count: starting("silent", count)),
            Kind("process, hears no SIGTERM", stopping),
        )
        return _rows(gateway, kinds, size)


def measure_projects(size: Size) -> list[Row]:
    """Return the rows for an engine that hangs for single projects; what is woken is a real container."""
    with contextlib.closing(connect(BACKEND_IMAGE)) as engine, Stand() as stand:
        inside = free_port()
        stand.spawn(fast_backend_command(inside), core=OTHER_CORE).wait_for_port(inside)
        holder = Holder(stand.directory / "engine.sock", inside)
        stand.enter(holder.listening())
        directory = stand.new_directory()
        hosts = {
            operation: [f"{operation}{number}.localhost" for number in range(size.many)]
            for operation in _ENGINE_KINDS.values()
        }
        services = {
            host: holder.project(directory, operation) for operation, named in hosts.items() for host in named
        }
        project = Project(engine, stand.new_directory(), {"image": BACKEND_IMAGE}, 8080)
        services[_COLD] = stand.enter(project.existing()).config()
        gateway = _gateway(stand, services, {"DOCKER_HOST": holder.address})

        @contextlib.contextmanager
        def hanging(operation: str, count: int) -> Iterator[None]:
            chosen = hosts[operation][:count]
            call = gateway.start
            if operation == "stop":
                for host in chosen:
                    gateway.start(host)
                call = gateway.stop
            with holder.holding(), _calling(call, chosen):
                wait_until(lambda: holder.held >= count, f"calls that hang in {operation}")
                yield
                holder.release()
                if operation != "stop":
                    for host in chosen:
                        gateway.stop(host)

        kinds = [
            Kind(name, functools.partial(hanging, operation)) for name, operation in _ENGINE_KINDS.items()
        ]
        return _rows(gateway, kinds, size)


def _gateway(
    stand: Stand, services: dict[str, dict[str, object]], env: dict[str, str] | None = None
) -> Gateway:
    port = free_port()
    services = services | {HOST: process_service(port, pinned(OTHER_CORE, fast_backend_command(port)))}
    gateway = stand.gateway(services, core=PROXY_CORE, env=env)
    gateway.start()
    gateway.start(_COLD)
    gateway.stop(_COLD)
    return gateway


def _count(gateway: Gateway, state: str) -> int:
    return int(gateway.metric("autostart_service_state{", f'state="{state}"'))


@contextlib.contextmanager
def _calling(call: Callable[[str], None], hosts: Sequence[str]) -> Iterator[None]:
    """Call with each of `hosts`, all at once; they have to come back when the body of the `with` has ended."""

    def one(host: str) -> None:
        with contextlib.suppress(Failed):  # a start that is ended is told so
            call(host)

    threads = [threading.Thread(target=one, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:  # left behind where something went wrong: the gateway ends, and they with it
        thread.join()


def _rows(gateway: Gateway, kinds: Sequence[Kind], size: Size) -> list[Row]:
    rows = []
    many = size.many
    _load(gateway, Found(), size.seconds, 1)
    for kind in kinds:
        found = {count: Found() for count in (0, 1, many)}
        for _ in range(size.rounds):
            for count, into in found.items():
                with kind.hang(count) if count else contextlib.nullcontext():
                    _load(gateway, into, size.seconds, size.wakes)
        rows += [
            _row(f"{kind.name}: warm, p50", [median(each.p50_s) for each in found.values()], many, None),
            _row(f"{kind.name}: warm, p99", [median(each.p99_s) for each in found.values()], many, _RATIO),
            _row(f"{kind.name}: wakes, p50", [median(each.wakes_s) for each in found.values()], many, None),
            _row(
                f"{kind.name}: wakes, p99",
                [percentile(each.wakes_s, 0.99) for each in found.values()],
                many,
                _RATIO,
            ),
        ]
    return rows


def _row(figure: str, seconds: Sequence[float], many: int, limit: float | None) -> Row:
    alone, one, all_of_them = (value * 1000 for value in seconds)
    note = f"undisturbed {alone:.3g} ms, while 1 hangs {one:.3g} ms, while {many} hang {all_of_them:.3g} ms"
    return Row(figure, all_of_them / alone, "times", limit, note)


def _load(gateway: Gateway, found: Found, seconds: float, wakes: int) -> None:
    took_s = client.ask_for(gateway.port, seconds)
    found.p50_s.append(median(took_s))
    found.p99_s.append(percentile(took_s, 0.99))
    for _ in range(wakes):
        asked = client.get(gateway.port, service=_COLD)
        if asked.status != 200:
            raise Failed(f"a wake was answered with {asked.status}")
        found.wakes_s.append(asked.took_s)
        gateway.stop(_COLD)
