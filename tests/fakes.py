"""Fakes for the seam of I/O, shared by the tests: a runtime that runs a listener in this process, and clocks."""

import asyncio
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

    `calls` records what was asked, `running` what is true. Every connection is closed at once. `stopped_gate`
    holds up the return of a stop that has done its work, `seen_gate` that of a look that has seen.
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
            self._socket.accept()[0].close()

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

    async def log_tail(self, lines: int) -> list[str]:
        return self.log[-lines:]

    async def close(self) -> None:
        self.closed = True
        with suppress(RuntimeError):
            if self.running:
                self.die(exit_code=0, by_hand=True)


def service_config(**options) -> ServiceConfig:
    """A service with the process runtime, which nobody starts."""
    return ServiceConfig(proxy_port=1, runtime={"kind": "process", "command": ["unused"]}, **options)
