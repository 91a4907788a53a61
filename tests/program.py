"""The whole program for tests: `autostart serve` in a process of its own, with services that are processes."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
from processes import free_port
from waiting import LIMIT_S, block_until

BACKEND = Path(__file__).parent / "backend.py"
HOST = "whisper.test"
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""
WITH_US = ("setpriv", "--pdeathsig", "TERM")
"""Before a command: it ends when the tests do, also where those are killed."""


class Gateway:
    """A running `autostart serve`, its configuration and its callers.

    A request for `slow` is answered once `let_go` was called, which makes the file `gate`.
    """

    def __init__(self, directory: Path, **options) -> None:
        self.directory = directory
        self.port, self.metrics_port = free_port(), free_port()
        self.path = directory / "config.json"
        self.log = directory / "log"
        self.gate = directory / "gate"
        self.slow = f"/slow?until={self.gate}"
        self.options = {
            "services": {HOST: self.service()},
            "listen": [f"127.0.0.1:{self.port}"],
            "admin": {"socket": str(directory / "admin.sock"), "metrics": f"127.0.0.1:{self.metrics_port}"},
            "stateFile": str(directory / "state.json"),
            **options,
        }
        self.write()

    def service(self, **options) -> dict:
        port = free_port()
        command = [sys.executable, str(BACKEND), str(port)]
        return {"proxyPort": port, "runtime": {"kind": "process", "command": command}, **options}

    def write(self) -> None:
        self.path.write_text(json.dumps(self.options))

    def start(self, listener: socket.socket | None = None) -> None:
        """Start it and wait until it serves; `listener` is handed over as systemd does."""
        command = [sys.executable, "-m", "autostart", "serve", "--config", str(self.path)]
        descriptors = ()
        if listener is not None:
            command = [sys.executable, "-c", AS_SYSTEMD, str(listener.fileno()), *command]
            descriptors = (listener.fileno(),)
        begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*WITH_US, *command], stdout=log, stderr=log, pass_fds=descriptors
            )
        self.until(lambda: b"ready:" in self.log.read_bytes()[begun:] or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def until(self, condition) -> None:
        block_until(condition, self.log.read_text)

    def let_go(self) -> None:
        self.gate.touch()

    def get(self, path: str = "/pid", host: str = HOST, **options) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, headers={"Host": host} | options.pop("headers", {}), timeout=LIMIT_S, **options)

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=LIMIT_S).text

    def cli(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "autostart", *arguments, "--config", str(self.path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)

    def state(self, host: str = HOST) -> str:
        return json.loads(self.cli("status", host, "--json").stdout)["state"]

    def is_in_use(self, host: str = HOST) -> bool:
        return json.loads(self.cli("status", host, "--json").stdout)["in_flight"] > 0

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


@contextmanager
def running(gateway: Gateway):
    gateway.start()
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.end()
