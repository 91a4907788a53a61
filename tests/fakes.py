"""Fakes for the seam of I/O, shared by the tests: a runtime that runs a listener in this process, and clocks."""

import asyncio
import json
import socket
from contextlib import suppress

from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.runtime.base import (
    Change,
    Endpoint,
    HealthResult,
    Observation,
    RunState,
    RuntimeEvent,
    StopMethod,
)


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class FakeRuntime:
    """Runs a real TCP listener of this process; each step can be held up (`start_gate`) or made to fail.

    `calls` records what was asked, `running` what is true. Every connection is closed at once, or, where there is an
    `answer` (`busy_answer`), once `answer_gate` lets it through. `stopped_gate` holds up the return of a stop that
    has done its work, `seen_gate` that of a look that has seen, `cpu_gate` that of a reading of `cpu`.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.running = False
        self._socket: socket.socket | None = None
        self._opening: asyncio.Task | None = None
        self.start_gate: asyncio.Event | None = None
        self.listen_gate: asyncio.Event | None = None
        self.stop_gate: asyncio.Event | None = None
        self.stopped_gate: asyncio.Event | None = None
        self.seen_gate: asyncio.Event | None = None
        self.start_failure: RuntimeFailure | None = None
        self.stop_failure: RuntimeFailure | None = None
        self.look_failure: RuntimeFailure | None = None
        self.health: list[HealthResult] | None = None
        self.started_at_s: float | None = None
        self.answer: bytes | None = None
        self.answer_gate: asyncio.Event | None = None
        self._answering: set[asyncio.Task] = set()
        self.cpu = {"main": 1.0}
        self.cpu_gate: asyncio.Event | None = None
        self.cpu_failure: Exception | None = None
        self.log = ["first line", "last line"]
        self.closed = False
        self._tell = lambda event: None

    @property
    def starts(self) -> int:
        return self.calls.count("start")

    def watch(self, listener) -> None:
        self._tell = listener

    def tell(self, change: Change, **facts) -> None:
        self._tell(RuntimeEvent(change, **facts))

    async def observe(self) -> Observation:
        self.calls.append("observe")
        seen = Observation(RunState.STOPPED)
        if self.running:
            seen = Observation(RunState.RUNNING, self.endpoint, self.started_at_s)
        if self.seen_gate is not None:
            await self.seen_gate.wait()
        if self.look_failure is not None:
            raise self.look_failure
        return seen

    @property
    def endpoint(self) -> Endpoint:
        assert self._socket is not None, "the port is known once it runs"
        return Endpoint("127.0.0.1", self._socket.getsockname()[1])

    async def start(self) -> Endpoint:
        self.calls.append("start")
        if self.start_gate is not None:
            await self.start_gate.wait()
        if self.start_failure is not None:
            raise self.start_failure
        return await self.run()

    async def run(self) -> Endpoint:
        """Come up, as `start` or a person's hand makes it."""
        if not self.running:
            self.running = True
            self._socket = socket.socket()
            self._socket.bind(("127.0.0.1", 0))  # with a `listen_gate`, nobody is let in yet
            if self.listen_gate is None:
                self._socket.listen(2048)
            self._opening = asyncio.create_task(self._open(self.listen_gate))
            self.tell(Change.STARTED)
        return self.endpoint

    async def _open(self, gate: asyncio.Event | None) -> None:
        if gate is not None:
            await gate.wait()
            self._socket.listen(2048)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._hang_up)

    def _hang_up(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._socket.accept()
            if self.answer is None:
                connection.close()
                return
            task = asyncio.create_task(self._answer(connection, self.answer))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, connection: socket.socket, answer: bytes) -> None:
        connection.setblocking(False)
        with connection, suppress(OSError):
            asked = await asyncio.get_running_loop().sock_recv(connection, 4096)
            self.calls.append(asked.split(b"\r\n")[0].decode())
            if asked and self.answer_gate is not None:
                await self.answer_gate.wait()
            await asyncio.get_running_loop().sock_sendall(connection, answer)

    def die(self, **facts) -> None:
        """End by itself or by somebody's hand, as `facts` say."""
        self.running = False
        self._opening.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self.tell(Change.DIED, **facts)

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        self.calls.append("stop")
        if self.stop_gate is not None:
            await self.stop_gate.wait()
        if self.stop_failure is not None:
            raise self.stop_failure
        if self.running:
            self.die(exit_code=0, by_hand=True)
        if self.stopped_gate is not None:
            await self.stopped_gate.wait()

    async def check_health(self) -> HealthResult | None:
        if self.health is None:
            return None
        return self.health.pop(0) if len(self.health) > 1 else self.health[0]

    async def cpu_seconds(self) -> dict[str, float]:
        self.calls.append("cpu")
        used = dict(self.cpu)
        if self.cpu_gate is not None:
            await self.cpu_gate.wait()
        if self.cpu_failure is not None:
            raise self.cpu_failure
        return used

    async def log_tail(self, lines: int) -> list[str]:
        return self.log[-lines:]

    async def close(self) -> None:
        self.closed = True
        with suppress(RuntimeError):
            if self.running:
                self.die(exit_code=0, by_hand=True)


def busy_answer(busy: object) -> bytes:
    """What a service answers that is asked at its busyPath."""
    body = json.dumps({"busy": busy}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def service_config(**options) -> ServiceConfig:
    """A service with the process runtime, which nobody starts."""
    return ServiceConfig(proxy_port=1, runtime={"kind": "process", "command": ["unused"]}, **options)
