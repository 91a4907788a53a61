"""Services that hang: processes that never do what is waited for, and an engine that hangs for single projects.

The engine is the real one, but for the projects made here: those have no containers, and what it says of them is
made up. One kind of call to each of them is held back for as long as `Holder.holding` lasts.
"""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.engine import Recorder
from bench.stand import free_port, process_service

_PREFIX = "asbenchhung"
_LABEL = "com.docker.compose."
_CREATED = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
"""Later than the compose file: it was not edited since."""
_NEVER = "0001-01-01T00:00:00Z"


def silent_process() -> dict[str, Any]:
    """Return the configuration of a process that accepts connections and never answers."""
    port = free_port()
    script = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(1e6)"
    return _process(port, script, readiness={"path": "/", "attemptTimeout": "60s"})


def closed_process() -> dict[str, Any]:
    """Return the configuration of a process that never listens."""
    return _process(free_port(), "import time; time.sleep(1e6)")


def deaf_process(until: Path) -> dict[str, Any]:
    """Return the configuration of a process that hears no SIGTERM, until there is a file."""
    port = free_port()
    script = (
        "import os, signal, socket, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"s = socket.create_server(('127.0.0.1', {port})); "
        f"[time.sleep(0.1) for _ in iter(lambda: os.path.exists({str(until)!r}), True)]"
    )
    return _process(port, script, stopTimeout="10m")


def _process(port: int, script: str, **options: Any) -> dict[str, Any]:
    command = [sys.executable, "-I", "-S", "-c", script]
    return process_service(port, command, startTimeout="10m", **options)


class Holder(Recorder):
    """A recorder that answers for projects which do not exist, and holds one kind of call to them back.

    `inside` is a port on which somebody listens: it is where the made-up containers answer. `held` counts the
    calls that are held back now.
    """

    def __init__(self, path: Path, inside: int) -> None:
        super().__init__(path)
        self.held = 0
        self._inside = inside
        self._holds = False
        self._changed = threading.Condition()
        self._made: dict[str, _MadeUp] = {}

    def project(self, directory: Path, operation: str) -> dict[str, Any]:
        """Return the configuration of a made-up project whose `look`, `start`, `stop`, `logs` or `exec` hangs."""
        made = _MadeUp(f"{_PREFIX}{len(self._made)}", free_port(), operation)
        place = directory / made.name
        place.mkdir()
        web = {"image": "none", "container_name": made.name}
        (place / "docker-compose.yml").write_text(json.dumps({"version": "2.4", "services": {"web": web}}))
        self._made[made.name] = made
        return {
            "proxyPort": made.port,
            "composeDir": str(place),
            "containers": [made.name],
            "idleTimeout": "never",
            "startTimeout": "10m",
            "stopTimeout": "50s",
        }

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the calls back for the body of the `with`."""
        self._holds = True
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Let go of what is held back, and hold nothing back any more."""
        with self._changed:
            self._holds = False
            self._changed.notify_all()

    def _answers(self, data: bytes, client: socket.socket) -> bool:
        words = data.split(b" ", 2)
        target = words[1].decode(errors="replace") if len(words) == 3 else ""
        made = next((made for made in self._made.values() if made.is_named_in(target)), None)
        if made is None:
            return data.startswith(b'{"Container":')  # the body of an exec, on its own
        operation = _operation(target)
        with self._changed:
            if operation == made.operation and self._holds:
                self.held += 1
                self._changed.wait_for(lambda: not self._holds)
                self.held -= 1
        with contextlib.suppress(OSError):  # who asked may have gone
            client.sendall(_answer(made, operation, target, self._inside))
        return True


@dataclass
class _MadeUp:
    name: str
    port: int
    operation: str
    runs: bool = False

    def is_named_in(self, target: str) -> bool:
        return f"/{self.name}/" in target or f"%3D{self.name}%22" in target


def _operation(target: str) -> str:
    last = target.partition("?")[0].rpartition("/")[2]
    return "look" if last == "json" else last


def _answer(made: _MadeUp, operation: str, target: str, inside: int) -> bytes:
    match operation:
        case "start" | "stop":
            made.runs = operation == "start" and made.operation != "logs"
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        case "logs":
            return _reply(200, b"")
        case "exec":
            return _reply(409, b'{"message": "it is held back no more"}')
    if "/containers/json" in target:
        return _reply(200, json.dumps([{"Id": made.name, "Labels": {}}]).encode())
    return _reply(200, json.dumps(_container(made, inside)).encode())


def _container(made: _MadeUp, inside: int) -> dict[str, Any]:
    check = {"Test": ["CMD", "true"], "Timeout": 600 * 10**9}
    return {
        "Id": made.name,
        "Name": f"/{made.name}",
        "Created": _CREATED,
        "Config": {
            "Labels": {f"{_LABEL}project": made.name, f"{_LABEL}service": "web"},
            "Healthcheck": check if made.operation == "exec" else {},
        },
        "State": {
            "Status": "running" if made.runs else "exited",
            "Running": made.runs,
            "ExitCode": 3,
            "StartedAt": _CREATED if made.runs else _NEVER,
            "FinishedAt": _NEVER,
        },
        "NetworkSettings": {
            "Ports": {f"{inside}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(made.port)}]},
            "Networks": {"made-up": {"IPAddress": "127.0.0.1", "Gateway": "127.0.0.1"}},
        },
    }


def _reply(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} Made Up\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
