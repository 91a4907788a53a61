"""Real compose projects for tests: a directory, a free port, unique names, and all of it removed afterwards."""

import asyncio
import contextlib
import functools
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import docker
from processes import free_port
from waiting import LIMIT_S, until

from autostart.runtime.base import Change, RuntimeEvent
from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine

BACKEND = "autostart-test/backend"
COMPOSE = {"v2": ("docker", "compose"), "v1": ("docker-compose",)}
WEB = """
services:
  web:
    image: autostart-test/backend
    container_name: {name}-web
    ports: ["127.0.0.1:{port}:8080"]
    restart: "no"
"""
ENDS_WHEN_TOLD = """
    command:
    - /bin/sh
    - -c
    - |
      trap 'exit 0' TERM
      [ -z "$$LOG_LINE" ] || echo "$$LOG_LINE" >&2
      while [ ! -s /end ]; do sleep 0.05; done
      code=$$(cat /end)
      rm /end
      exit "$$code"
"""
"""Part of a service in a compose file that lives until `Stack.end`: one that ends after a while may be gone before
its start has been looked at."""
PAIR = (
    WEB
    + """
    depends_on: [db]
  db:
    image: autostart-test/backend
    restart: "no"
"""
)


def is_installed(words: tuple[str, ...]) -> bool:
    """Say whether this compose command answers."""
    return (
        shutil.which(words[0]) is not None
        and subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0
    )


@functools.cache
def any_compose() -> tuple[str, ...]:
    """Return the words of whichever compose command is there, for tests to which it makes no difference."""
    return next(words for words in COMPOSE.values() if is_installed(words))


@functools.cache
def build_backend() -> None:
    """Build the image of the test backend, where it is not there yet."""
    subprocess.run([Path(__file__).parents[1] / ".ci/images", "backend"], check=True, capture_output=True)


@dataclass
class Stack:
    """One compose project of a test. `{port}` and `{name}` in its file are its own port and name."""

    directory: Path
    client: docker.APIClient
    words: tuple[str, ...] = field(default_factory=any_compose)
    name: str = field(default_factory=lambda: f"as{uuid.uuid4().hex[:10]}")
    port: int = field(default_factory=free_port)
    address: str | None = None

    def write(self, text: str) -> "Stack":
        """Write its compose file; the project's name goes into .env, where both versions of compose find it."""
        filled = dedent(text).replace("{port}", str(self.port)).replace("{name}", self.name)
        (self.directory / "docker-compose.yml").write_text(filled)
        env = self.directory / ".env"
        if not env.exists():
            env.write_text(f"COMPOSE_PROJECT_NAME={self.name}\n")
        return self

    def text(self) -> str:
        return (self.directory / "docker-compose.yml").read_text()

    def compose(self, *arguments: str) -> None:
        """Run compose by hand, as a person would."""
        subprocess.run(
            [*self.words, "-p", self.name, *arguments], cwd=self.directory, check=True, capture_output=True
        )

    def docker(self, *arguments: str) -> None:
        """Run docker by hand."""
        subprocess.run(["docker", *arguments], check=True, capture_output=True)

    def states(self) -> dict[str, str]:
        """What docker says of each of its services: running, paused, exited, …"""
        found = self.client.containers(all=True, filters={"label": f"com.docker.compose.project={self.name}"})
        return {item["Labels"]["com.docker.compose.service"]: item["State"] for item in found}

    def listed(self, service: str) -> dict[str, Any]:
        """The container of `service` as docker lists it."""
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        return self.client.containers(all=True, filters={"label": labels})[0]

    def id_of(self, service: str) -> str:
        return self.listed(service)["Id"]

    def inspect(self, service: str) -> dict[str, Any]:
        return self.client.inspect_container(self.id_of(service))

    def pid_of(self, service: str) -> int:
        return self.inspect(service)["State"]["Pid"]

    def run_in(self, service: str, *command: str) -> str:
        """Run a command in the container of `service`; what it printed."""
        execution = self.client.exec_create(self.id_of(service), list(command))["Id"]
        return self.client.exec_start(execution).decode()

    def end(self, service: str, exit_code: int) -> None:
        """Let a service that `ENDS_WHEN_TOLD` end by itself."""
        self.run_in(service, "sh", "-c", f"echo {exit_code} >/end")

    def unwatched(self, *containers: str, engine: Engine | None = None) -> ComposeRuntime:
        command = ComposeCommand(self.address, [self.words])
        engine = engine or Engine(self.address)
        return ComposeRuntime(engine, command, self.directory, containers, self.port)

    @asynccontextmanager
    async def runtime(self, *containers: str) -> AsyncIterator["Watched"]:
        runtime = self.unwatched(*containers)
        engine = runtime.engine
        watched = Watched(runtime, engine)
        runtime.watch(watched.take)
        try:
            await watched.event(Change.RESYNC)
            yield watched
        finally:
            await runtime.close()
            await engine.close()

    def remove(self) -> None:
        label = {"label": f"com.docker.compose.project={self.name}"}
        for item in self.client.containers(all=True, filters=label):
            self.client.remove_container(item["Id"], force=True, v=True)
        for network in self.client.networks(filters=label):
            self.client.remove_network(network["Id"])


class Watched:
    """A runtime and the events it told, in their order."""

    def __init__(self, runtime: ComposeRuntime, engine: Engine) -> None:
        self.runtime = runtime
        self.engine = engine
        self.events: list[RuntimeEvent] = []
        self._news = asyncio.Event()

    def take(self, event: RuntimeEvent) -> None:
        self.events.append(event)
        self._news.set()

    async def event(self, change: Change, *, after: int = 0) -> RuntimeEvent:
        """Return the first event of that kind, beginning with the one numbered `after`; wait for it."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for event in self.events[after:]:
                    if event.change is change:
                        return event
                self._news.clear()
                await self._news.wait()


class Relay:
    """A socket that leads to the engine's own and can be cut: the engine going away and coming back.

    A request that contains the words `hold` is kept back: `held` says that it came, `released` lets it on.
    What is connected when it falls `silent` stays open, and nothing comes through any more.
    """

    def __init__(self, path: Path, hold: bytes | None = None) -> None:
        self.held = asyncio.Event()
        self.holds = 0
        self.released = asyncio.Event()
        self._hold = hold
        self.path = path
        self.address = f"unix://{path}"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._events: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        await until(lambda: not self._writers)

    def silent(self, *, events_only: bool) -> None:
        self._silent |= self._events if events_only else self._writers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection("/var/run/docker.sock")
        pair = {writer, back}
        self._writers |= pair
        await asyncio.gather(
            self._copy(reader, back, writer), self._copy(there, writer), return_exceptions=True
        )
        for end in pair:
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self._writers -= pair

    async def _copy(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        while data := await source.read(65536):
            if client is not None and b"/events?" in data:
                self._events.add(client)
            if sink in self._silent:
                continue
            if self._hold is not None and self._hold in data:
                self.held.set()
                self.holds += 1
                await self.released.wait()
            sink.write(data)
            await sink.drain()
        sink.write_eof()


async def fetch(host: str, port: int, path: str = "/") -> bytes:
    """GET `path`, asking again until the server listens."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
                answer = await reader.read()
                writer.close()
                if answer:
                    return answer.partition(b"\r\n\r\n")[2]
            await asyncio.sleep(0.005)
