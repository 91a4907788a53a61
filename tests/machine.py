"""A machine in memory, for the property tests: what really runs there, who uses it, and all that can go wrong.

It judges what reaches it (`wrong`), whatever the lifecycle believes: a stop under an open request, two starts or
a start and a stop at once, two that run in one place.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from autostart import errors
from autostart.runtime.base import Change, Endpoint, Observation, RunState, RuntimeEvent, StopMethod

POINTS = ("start", "started", "listen", "stop", "stopped", "look", "looked", "log", "cpu")
"""Where it can be held up: before and after the work of each call, and before a run listens."""
FAILURES: dict[str, Exception] = {
    "start": errors.ImageMissing("whisper:1"),
    "started": KeyError("a mistake of ours"),
    "stop": errors.StopFailed("it will not die"),
    "looked": errors.EngineUnreachable("unix:///nowhere", "no answer"),
    "log": errors.EngineUnreachable("unix:///nowhere", "no log"),
    "cpu": errors.EngineUnreachable("unix:///nowhere", "no figures"),
}


class Machine:
    """All that runs, by port. `is_over`: autostart ends, and cuts who is still there."""

    def __init__(self) -> None:
        self.is_over = False
        self.wrong: list[str] = []
        self.up: dict[int, Thing] = {}

    async def dial(self, port: int) -> None:
        """Return where somebody listens on `port`, and raise OSError where nobody does."""
        thing = self.up.get(port)
        if thing is None or not thing.listens:
            raise ConnectionRefusedError(111, "Connection refused")
        if thing.is_paused:
            await asyncio.get_running_loop().create_future()


class Thing:
    """One container or process: it runs or not, whoever asks. A call is held up at the points in `held`, takes
    the seconds in `slow` there, and fails as `failing` says.
    """

    def __init__(self, machine: Machine, port: int, *, goes_on: bool = False) -> None:
        self.machine = machine
        self.port = port
        self.goes_on = goes_on
        """A start goes on where its caller has left."""
        self.held: dict[str, asyncio.Event] = {}
        self.slow: dict[str, float] = {}
        self.failing: dict[str, Exception] = {}
        self.is_deaf = False
        """The event stream is broken: nobody is told."""
        self.is_paused = False
        self.listens = False
        self.cpu_s = 0.0
        """The CPU seconds that it has used."""
        self.remains = False
        """Something that belongs to it runs, though itself does not."""
        self.users: set[str] = set()
        """The requests that were let through to what runs now, and may not be cut."""
        self.doing: list[str] = []
        self.done_s = 0.0
        """When the last call ended."""
        self.starts = 0
        self.started_at_s = 0.0
        self.runtimes: list[MachineRuntime] = []
        """Those that are open, in the order in which they were made."""
        self.came_up_under: MachineRuntime | None = None
        self.is_by_hand = False
        self._starting: asyncio.Task[Endpoint] | None = None
        self._opening: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        return self.machine.up.get(self.port) is self

    @property
    def serves(self) -> bool:
        return self.is_up and self.listens and not self.is_paused

    @property
    def is_wanted_here(self) -> bool:
        """Say whether the runtime that it came up under has it still; a container runs on without."""
        return self.came_up_under is not None and self.came_up_under in self.runtimes

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    def change(self, change: Change, **facts) -> None:
        if not self.is_deaf:
            for runtime in list(self.runtimes):
                runtime.tell(RuntimeEvent(change, **facts))

    async def point(self, name: str) -> None:
        if name in self.held:
            await self.held[name].wait()
        if name in self.slow:
            await asyncio.sleep(self.slow[name])
        if name in self.failing:
            raise self.failing[name]

    def go_on(self) -> None:
        """Hold nothing up from now on."""
        for gate in self.held.values():
            gate.set()
        self.held.clear()
        self.slow.clear()

    @asynccontextmanager
    async def call(self, what: str) -> AsyncIterator[None]:
        if "start" in (*self.doing, what) and self.doing:  # two stops at once harm nobody
            self.machine.wrong.append(f"{what} during {self.doing}")
        self.doing.append(what)
        try:
            yield
        finally:
            self.doing.remove(what)
            self.done_s = asyncio.get_running_loop().time()

    # --- what happens to it ---------------------------------------------------------------------------

    def come_up(self, *, by_hand: bool = False) -> None:
        """Run, or thaw. Raises PortTaken."""
        self.is_by_hand = by_hand
        if self.is_up and not self.is_paused:
            return
        if not self.is_up:
            if other := self.machine.up.get(self.port):
                if other.is_wanted_here and not (by_hand or other.is_by_hand):
                    self.machine.wrong.append(f"two on port {self.port}")
                raise errors.PortTaken(self.port)
            self.machine.up[self.port] = self
            self.came_up_under = self.runtimes[-1] if self.runtimes else None
            self.users = set()
            self.started_at_s = asyncio.get_running_loop().time() + 1e9
            self._opening = asyncio.create_task(self._open(), name="the machine opens")
        self.is_paused = self.remains = False
        self.change(Change.STARTED)

    async def _open(self) -> None:
        await self.point("listen")
        self.listens = True

    def die(self, **facts) -> None:
        """End, by itself or by somebody's hand, as `facts` say."""
        del self.machine.up[self.port]
        self._opening.cancel()
        self.listens = self.is_paused = False
        self.users = set()
        self.change(Change.DIED, **facts)

    def move(self, port: int) -> None:
        """Be created again with another port."""
        self.accuse("a new creation")
        if self.is_up:
            self.die(exit_code=0, by_hand=True)
        self.port = port

    def freeze(self) -> None:
        self.is_paused = True
        self.users = set()
        self.change(Change.PAUSED)

    def accuse(self, what: str) -> None:
        """Take note of whoever is cut by `what`."""
        if self.is_up and self.users and not self.machine.is_over:
            self.machine.wrong.append(f"{what} under {sorted(self.users)}")

    # --- what a runtime does with it ------------------------------------------------------------------

    async def start(self) -> Endpoint:
        async with self.call("start"):
            self.starts += 1
            if not self.goes_on:
                return await self._start()
            if self._starting is None or self._starting.done():
                self._starting = asyncio.create_task(self._start(), name="the machine starts")
                self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
            return await asyncio.shield(self._starting)

    async def _start(self) -> Endpoint:
        try:
            await self.point("start")
            self.come_up()
            await self.point("started")
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # nobody lets go at once
            raise
        return self.endpoint

    def give_up_start(self) -> None:
        if self._starting is not None:
            self._starting.cancel()

    async def stop(self, method: StopMethod) -> None:
        async with self.call("stop"):
            self.accuse("a stop")
            if self._starting is not None and not self._starting.done():
                await asyncio.wait({self._starting})
            await self.point("stop")
            self.accuse("the end of a stop")
            self.remains = False
            if self.is_up:
                if method is StopMethod.PAUSE:
                    self.freeze()
                else:
                    self.die(exit_code=0, by_hand=True)
            await self.point("stopped")

    def look(self) -> Observation:
        if not self.is_up:
            return Observation(RunState.STOPPED, exit_code=0, has_remains=self.remains)
        state = RunState.PAUSED if self.is_paused else RunState.RUNNING
        return Observation(state, self.endpoint, self.started_at_s)


class MachineRuntime:
    """A runtime of one thing, which it starts on `port` (None: on its own).

    `ends_with_it`: the thing is a process, and ends when this is closed.
    """

    def __init__(self, thing: Thing, *, port: int | None = None, ends_with_it: bool = False) -> None:
        self.thing = thing
        self.port = port
        self.tell: Callable[[RuntimeEvent], None] = lambda event: None
        self.closed = False
        self.ended_s = float("inf")
        self._ends_with_it = ends_with_it

    def watch(self, listener) -> None:
        self.tell = listener
        self.thing.runtimes.append(self)

    def collides(self, other: "MachineRuntime") -> bool:
        """Say whether the two cannot run beside each other; all containers here are of one project."""
        same_project = not (self._ends_with_it or other._ends_with_it)
        return other is not self and (same_project or self.port == other.port)

    def _must_be_open(self, what: str) -> None:
        if self.closed:
            self.thing.machine.wrong.append(f"{what} of a runtime that was closed")

    async def start(self) -> Endpoint:
        self._must_be_open("a start")
        if self.port not in (None, self.thing.port):
            self.thing.move(self.port)
        return await self.thing.start()

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        self._must_be_open("a stop")
        await self.thing.stop(method)

    async def observe(self) -> Observation:
        self._must_be_open("a look")
        await self.thing.point("look")
        seen = self.thing.look()
        await self.thing.point("looked")
        return seen

    async def check_health(self) -> None:
        return None

    async def cpu_seconds(self) -> dict[str, float]:
        self._must_be_open("a measurement")
        await self.thing.point("cpu")
        return {"it": self.thing.cpu_s}

    async def log_tail(self, lines: int) -> list[str]:
        await self.thing.point("log")
        return ["first line", "last line"][-lines:]

    async def close(self) -> None:
        """Let go of it, and end what is a process; takes a moment, but never hangs, as the protocol demands."""
        self.closed = True
        if self in self.thing.runtimes and self._ends_with_it:
            self.thing.accuse("an end")
            self.thing.give_up_start()
            await asyncio.sleep(self.thing.slow.get("close", 0))
            if self.thing.is_up:
                self.thing.die(exit_code=0, by_hand=True)
        if self in self.thing.runtimes:
            self.thing.runtimes.remove(self)
            self.ended_s = asyncio.get_running_loop().time()
        if "close" in self.thing.failing:
            raise self.thing.failing["close"]


async def go_through(world, steps) -> None:
    """Let a world take these steps, and hold what must be true after each and after the pause behind it."""
    for what, which_one, pause_s in steps:
        world.step(what, which_one)
        world.check()
        if pause_s is None:  # the next one comes in the same turn of the loop
            continue
        await asyncio.sleep(pause_s)
        for _ in range(which_one % 4):
            await asyncio.sleep(0)
        world.check()
