"""A running admin server over real services on fake runtimes, and ways to ask it, for the admin and cli tests."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes import FakeRuntime, service_config

from autostart.admin.client import ask
from autostart.admin.server import AdminServer
from autostart.config.models import Admin
from autostart.lifecycle import Service
from autostart.metrics import Metrics


@dataclass
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


class Stand:
    """The services with their runtimes by host name, and the admin server in front of them."""

    def __init__(self, directory: Path, hosts: dict[str, dict]) -> None:
        self.socket = directory / "admin.sock"
        self.runtimes: dict[str, FakeRuntime] = {}
        self.services: dict[str, Service] = {}
        self.metrics = Metrics(self.services.values)
        self.reload = self._reload
        self.reloads = 0
        for host, options in hosts.items():
            self.runtimes[host] = FakeRuntime()
            config = service_config(**options)
            self.services[host] = Service(host, config, self.runtimes[host], emit=self.metrics.on_lifecycle)
        self.admin = AdminServer(
            services=self.services,
            aliases=lambda: {alias: host for host, s in self.services.items() for alias in s.config.aliases},
            metrics=self.metrics.render,
            reload=lambda: self.reload(),  # noqa: PLW0108 - tests put another one in its place
        )

    async def _reload(self) -> None:
        self.reloads += 1

    async def ask(self, method: str, path: str, body=None):
        return await asyncio.to_thread(ask, self.socket, method, path, body)

    async def run(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
        """Run the command line as a person would: another process, nothing but the socket in common."""
        return await run_command(
            *arguments, stdin=stdin, env={"AUTOSTART_CONFIG": str(self.config_file)} | (env or {})
        )

    @property
    def config_file(self) -> Path:
        path = self.socket.with_name("config.json")
        path.write_text(json.dumps({"services": {}, "admin": {"socket": str(self.socket)}}))
        return path


async def run_command(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Answer:
    base = {key: value for key, value in os.environ.items() if not key.startswith("AUTOSTART_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "autostart",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=base | (env or {}),
    )
    out, err = await process.communicate(stdin.encode())
    return Answer(process.returncode, out.decode(), err.decode())


@asynccontextmanager
async def standing(directory: Path, hosts: dict[str, dict], metrics: str | None = None):
    """A stand that serves for the body of the `async with`."""
    stand = Stand(directory, hosts)
    try:
        await stand.admin.open(Admin(socket=stand.socket, metrics=metrics))
        yield stand
    finally:
        await stand.admin.close()
        for runtime in stand.runtimes.values():
            for gate in (runtime.start_gate, runtime.stop_gate, runtime.listen_gate):
                if gate is not None:
                    gate.set()
        for service in stand.services.values():
            await service.close()


def with_stand(directory: Path, hosts: dict[str, dict], test, **options):
    """Run the coroutine function `test(stand)` in front of a running admin server."""

    async def body() -> None:
        async with asyncio.timeout(60), standing(directory, hosts, **options) as stand:
            await test(stand)

    asyncio.run(body())
