"""The state machine under any order of requests, cancellations, deaths, ticks and failures.

Hypothesis draws the orders; after every step the invariants of DESIGN.md section 2 must hold.
"""

import asyncio
import contextlib
from collections import defaultdict

from fakes import Clock, FakeRuntime, service_config
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

from autostart import errors
from autostart.lifecycle import Service, State, events
from autostart.runtime.base import Change

GATES = ("start_gate", "listen_gate", "stop_gate", "stopped_gate", "seen_gate")
FAILURES = {
    "start_failure": errors.ImageMissing("whisper:1"),
    "stop_failure": errors.StopFailed("it will not die"),
    "look_failure": errors.EngineUnreachable("unix:///nowhere", "no answer"),
}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "request",
                "request",
                "end",
                "cancel",
                "tick",
                "tick",
                "die",
                "die_by_hand",
                "by_hand_up",
                "resync",
                "stop",
                "start",
                "hold",
                "reconfigure",
                "wait_out",
                "turn",
                *(f"break {name}" for name in FAILURES),
                *(f"hang {name}" for name in GATES),
                "mend",
                "go on",
            ]
        ),
        st.integers(0, 3),
    ),
    min_size=12,
    max_size=60,
)


class World:
    """A service, the requests on it, and what was seen to go wrong."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runtime = FakeRuntime()
        self.wrong: list[str] = []
        self.open: dict[asyncio.Task, asyncio.Event] = {}
        self.by_hand: list[asyncio.Task] = []
        self.in_start = 0
        self.told: dict[str, errors.RuntimeFailure] = {}
        """What each request that waited for a start has to hear of its failure."""
        self.using: dict[int, set[str]] = defaultdict(set)
        """The requests that are open on each port that it has listened on, less those that a stop by force gave up."""
        self.service = Service(
            "whisper.test", service_config(idle_timeout=10), self.runtime, emit=self.emit, clock=self.clock
        )
        plain_start, plain_stop = self.runtime.start, self.runtime.stop

        async def watched_start():
            self.in_start += 1
            if self.in_start > 1:
                self.wrong.append("two starts at once")
            try:
                return await plain_start()
            finally:
                self.in_start -= 1

        async def watched_stop(method, grace_s):
            if self.runtime.running and self.using[self.runtime.endpoint.port]:
                self.wrong.append("a stop under an open request")
            await plain_stop(method, grace_s)

        self.runtime.start, self.runtime.stop = watched_start, watched_stop

    def emit(self, event) -> None:
        match event:
            case events.StopBegan(reason=events.StopReason.IDLE):
                if leases := self.service.snapshot().leases:
                    self.wrong.append(f"idle stop over {len(leases)} leases")
            case events.StartFailed(failure=failure):
                waiting = (lease for lease in self.service.snapshot().leases if lease.endpoint is None)
                for lease in waiting:  # the next start may have failed before they hear of this one
                    self.told.setdefault(lease.by, failure)

    async def request(self, done: asyncio.Event) -> str:
        name = f"request {id(done)}"
        try:
            async with self.service.lease(name) as lease:
                self.using[lease.endpoint.port].add(name)
                try:
                    await done.wait()
                finally:
                    self.using[lease.endpoint.port].discard(name)
        except (errors.StartFailed, errors.StartHeldOff) as refused:
            if self.told.get(name, refused.failure) is not refused.failure:
                self.wrong.append("a waiter was told of another failure")
            return type(refused).__name__
        if name in self.told:
            self.wrong.append("a waiter of a failed start was let through")
        return "answered"

    async def step(self, what: str, which: int) -> None:
        open_requests = [task for task in self.open if not task.done()]
        match what.split():
            case ["request"]:
                done = asyncio.Event()
                self.open[asyncio.create_task(self.request(done))] = done
            case ["end"] if open_requests:
                self.open[open_requests[which % len(open_requests)]].set()
            case ["cancel"] if open_requests:
                open_requests[which % len(open_requests)].cancel()
            case ["tick"]:
                self.clock.move(4)
                self.service.stop_if_idle()
            case ["wait_out"]:
                self.clock.move(301)
            case ["die"] if self.runtime.running:
                self.runtime.die(exit_code=which, out_of_memory=which == 3)
            case ["die_by_hand"] if self.runtime.running:
                self.runtime.die(exit_code=0, by_hand=True)
            case ["by_hand_up"]:
                await self.runtime.run()
            case ["resync"]:
                self.runtime.tell(Change.RESYNC)
            case ["stop"]:
                self.by_hand.append(asyncio.create_task(self.stop(force=which == 0)))
            case ["start"]:
                self.by_hand.append(asyncio.create_task(self.start()))
            case ["hold"]:
                self.service.hold(which * 10)
            case ["reconfigure"]:
                self.service.reconfigure(service_config(idle_timeout=which * 10, stop_timeout=10 + which))
            case ["break", failure]:
                setattr(self.runtime, failure, FAILURES[failure])
            case ["hang", gate] if getattr(self.runtime, gate) is None:
                setattr(self.runtime, gate, asyncio.Event())
            case ["mend"]:
                self.mend()
            case ["go", "on"]:
                self.go_on()
        for _ in range(which):
            await asyncio.sleep(0)

    async def stop(self, force: bool) -> None:
        if force:
            self.using.clear()
        with contextlib.suppress(errors.InUse, errors.RuntimeFailure):
            await self.service.stop(force=force)

    async def start(self) -> None:
        with contextlib.suppress(errors.StartFailed, errors.StartHeldOff):
            await self.service.start("admin")

    def mend(self) -> None:
        for failure in FAILURES:
            setattr(self.runtime, failure, None)

    def go_on(self) -> None:
        for name in GATES:
            if (gate := getattr(self.runtime, name)) is not None:
                gate.set()
                setattr(self.runtime, name, None)

    async def settle(self) -> list[str]:
        """Let every request end; fail if one never does."""
        self.mend()
        self.go_on()
        for done in self.open.values():
            done.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*self.by_hand)
            answers = await asyncio.gather(*self.open, return_exceptions=True)
        return [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]

    def comes_to_rest(self) -> bool:
        """Let time pass, and say whether what runs is known to run, however it came up."""
        self.clock.move(400)
        self.service.stop_if_idle()
        return self.service.state in {State.STOPPED, State.FAILED} and not self.runtime.running


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_any_order_of_events_keeps_the_promises(steps):
    async def body() -> None:
        world = World()
        try:
            for what, which in steps:
                await world.step(what, which)
                assert world.wrong == []
            answers = await world.settle()
            assert set(answers) <= {"answered", "StartFailed", "StartHeldOff", "CancelledError"}
            assert world.service.snapshot().leases == ()
            # Containers are the truth: what runs is known to run, and is put to sleep.
            await until(world.comes_to_rest, world.service)
            # There is a way out of whatever state this is.
            done = asyncio.Event()
            done.set()
            async with asyncio.timeout(10):
                assert await world.request(done) == "answered"
            assert world.service.state is State.READY
            assert world.wrong == []
        finally:
            await world.service.close()

    asyncio.run(body())
