"""The state machine under any order of requests, cancellations, deaths, ticks and failures.

Hypothesis draws the orders; after every step the invariants of DESIGN.md section 2 must hold.
"""

import asyncio
import contextlib

from fakes import Clock, FakeRuntime, service_config, until
from hypothesis import given, settings
from hypothesis import strategies as st

from autostart import errors
from autostart.lifecycle import Service, State, events
from autostart.runtime.base import Change

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "request",
                "end",
                "cancel",
                "tick",
                "die",
                "by_hand_up",
                "resync",
                "stop",
                "break",
                "mend",
                "turn",
            ]
        ),
        st.integers(0, 3),
    ),
    max_size=60,
)


class World:
    """A service, the requests on it, and what was seen to go wrong."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runtime = FakeRuntime()
        self.cut: list[str] = []
        self.open: dict[asyncio.Task, asyncio.Event] = {}
        self.stops: list[asyncio.Task] = []
        self.in_start = 0
        self.service = Service(
            "whisper.test", service_config(idle_timeout=10), self.runtime, emit=self.emit, clock=self.clock
        )
        plain_start = self.runtime.start

        async def counted_start():
            self.in_start += 1
            assert self.in_start == 1, "two starts at once"
            try:
                return await plain_start()
            finally:
                self.in_start -= 1

        self.runtime.start = counted_start

    def emit(self, event) -> None:
        if isinstance(event, events.StopBegan) and event.reason is events.StopReason.IDLE:
            leases = self.service.snapshot().leases
            if leases:
                self.cut.append(f"idle stop over {len(leases)} leases")

    async def request(self, done: asyncio.Event) -> str:
        try:
            async with self.service.lease("test") as lease:
                if self.service.state is State.READY:
                    assert lease.endpoint is not None
                await done.wait()
        except (errors.StartFailed, errors.StartHeldOff) as refused:
            return type(refused).__name__
        return "answered"

    async def step(self, what: str, which: int) -> None:
        open_requests = [task for task in self.open if not task.done()]
        match what:
            case "request":
                done = asyncio.Event()
                self.open[asyncio.create_task(self.request(done))] = done
            case "end" if open_requests:
                self.open[open_requests[which % len(open_requests)]].set()
            case "cancel" if open_requests:
                open_requests[which % len(open_requests)].cancel()
            case "tick":
                self.clock.move(4)
                self.service.stop_if_idle()
            case "die" if self.runtime.running:
                self.runtime.die(exit_code=which)
            case "by_hand_up":
                await self.runtime.run()
            case "resync":
                self.runtime.tell(Change.RESYNC)
            case "stop":
                self.stops.append(asyncio.create_task(self.stop(force=which == 0)))
            case "break":
                self.runtime.start_failure = errors.ImageMissing("whisper:1")
            case "mend":
                self.runtime.start_failure = None
        for _ in range(which):
            await asyncio.sleep(0)

    async def stop(self, force: bool) -> None:
        with contextlib.suppress(errors.InUse):
            await self.service.stop(force=force)

    async def settle(self) -> list[str]:
        """Let every request end; fail if one never does."""
        self.runtime.start_failure = None
        for done in self.open.values():
            done.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*self.stops)
            answers = await asyncio.gather(*self.open, return_exceptions=True)
        return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_any_order_of_events_keeps_the_promises(steps):
    async def body() -> None:
        world = World()
        try:
            for what, which in steps:
                await world.step(what, which)
                assert world.cut == []
            answers = await world.settle()
            assert set(answers) <= {"answered", "StartFailed", "StartHeldOff", "CancelledError"}
            assert world.service.snapshot().leases == ()
            # Containers are the truth: what runs is known to run, however it came up.
            await until(lambda: world.runtime.running == (world.service.state is State.READY))
            # There is a way out of whatever state this is. A start that was doomed already may still fail
            # the request that joins it; after the hold-off the next is answered.
            done = asyncio.Event()
            done.set()
            async with asyncio.timeout(10):
                world.clock.move(1000)
                if await world.request(done) != "answered":
                    world.clock.move(1000)
                    assert await world.request(done) == "answered"
            assert world.service.state is State.READY
            world.clock.move(1000)
            assert world.service.stop_if_idle() is True
        finally:
            await world.service.close()

    asyncio.run(body())
