"""The state machine under any order of requests, cancellations, deaths, ticks, hangs and failures.

Hypothesis draws the orders; the invariants of DESIGN.md section 2 are checked at every event and every call that
reaches the machine, and after every step. Time is virtual: limits are reached, and what waits for ever is found.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress

import virtual_time
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine import FAILURES, POINTS, Machine, MachineRuntime, Thing, go_through

from autostart import errors
from autostart.config import Service as ServiceConfig
from autostart.lifecycle import Service, State, events
from autostart.runtime.base import Change

START_TIMEOUT_S = 0.5
WAIT_TIMEOUT_S = 0.4
STOP_TIMEOUT_S = 3
LONGEST_S = {
    State.STARTING: 2 * START_TIMEOUT_S + 1,  # what ran before, the start, the log tail
    State.STOPPING: 1 + STOP_TIMEOUT_S + 5 + 2 * 60,  # the start's end, the stop and its margin, looks
}
"""How long each state that nobody may stay in lasts at most, in seconds."""
BY_FORCE = "by force"
WAYS = {
    State.STOPPED: {State.STARTING},
    State.STARTING: {State.READY, State.FAILED, State.STOPPING},
    State.READY: {State.STOPPING, State.STOPPED, State.FAILED},
    State.STOPPING: {State.STOPPED, State.READY},
    State.FAILED: {State.STARTING},
}
REFUSALS = {
    errors.StartFailed: "StartFailed",
    errors.StartHeldOff: "StartHeldOff",
    errors.StartTimeout: "StartTimeout",
    errors.ShuttingDown: "ShuttingDown",
}


def config(which: int = 0) -> ServiceConfig:
    """One of the configurations that a reload may bring."""
    return ServiceConfig(
        compose_dir="/opt/whisper",
        containers=("whisper",),
        proxy_port=1,
        idle_timeout=(10, 0, 30, 10)[which],
        busy_cpu_percent=(None, None, 5, 5)[which],
        start_timeout=START_TIMEOUT_S,
        wait_timeout=(WAIT_TIMEOUT_S, None, None, WAIT_TIMEOUT_S)[which],
        stop_timeout=STOP_TIMEOUT_S,
        stop_method=("stop", "stop", "pause", "pause")[which],
    )


WAYS_OF_THE_WORLD = [
    *["request", "request", "request", "socket", "message", "end", "end", "cancel", "leave"],
    *["tick", "tick", "tick", "die", "stop by hand", "pause by hand", "up by hand", "up again"],
    *["resync", "work", "sickness", "deafness", "stop", "start", "wake", "wake", "hold", "reconfigure"],
]
FAULTS = [
    *(f"fail {point}" for point in FAILURES),
    *(f"hang {point}" for point in POINTS),
    *(f"slow {point}" for point in POINTS),
]
KINDS = [*WAYS_OF_THE_WORLD, *WAYS_OF_THE_WORLD, *FAULTS, *["mend", "go on"] * 2]
PAUSES = [None, None, 0, 0, 0, 0.003, 0.1, 0.45, 4, 11, 301]
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.sampled_from(PAUSES)), min_size=12, max_size=60
)


class Asked:
    """One request: `name`, the event that ends it, and its lease once it was let through."""

    def __init__(self, name: str, counts: bool) -> None:
        self.name = name
        self.counts = counts
        self.ended = asyncio.Event()
        self.lease = None
        self.task: asyncio.Task | None = None


class World:
    """A service on a machine, the requests on it, and what was seen to go wrong."""

    def __init__(self, machine: Machine, which: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.wrong = machine.wrong
        self.thing = Thing(machine, 1, goes_on=bool(which & 1))
        self.may_be_deaf = which in {3, 6}
        self.seen: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.people: list[asyncio.Task] = []
        self.told: dict[str, errors.RuntimeFailure] = {}
        """What each request that waited for a start has to hear of its failure."""
        self.entered_s = self.used_s = self.held_until_s = self.loop.time()
        self.held_off_until_s = 0.0
        self.is_adopted = False
        self.service = Service(
            "whisper.test",
            config(which // 2),
            MachineRuntime(self.thing),
            emit=self.emit,
            clock=self.loop.time,
            wall=lambda: self.loop.time() + 1e9,
        )

    # --- what must be true at every event -------------------------------------------------------------

    def emit(self, event: events.Event) -> None:
        self.seen[type(event).__name__] += 1
        now_s = self.loop.time()
        leases = self.service.snapshot().leases
        if isinstance(event, events.StartBegan):
            self.is_adopted = event.adopted
        match event:
            case events.Transition(old=old, new=new):
                ended_by_hand = (old, new) == (State.STARTING, State.STOPPED) and self.is_adopted
                if new not in WAYS[old] and not ended_by_hand:
                    self.wrong.append(f"from {old} to {new}")
                if now_s - self.entered_s > LONGEST_S.get(old, float("inf")) + 0.1:
                    self.wrong.append(f"{old} for {now_s - self.entered_s:g} s")
                self.entered_s = now_s
            case events.StartBegan(by=by, adopted=False) if by != "admin" and now_s < self.held_off_until_s:
                self.wrong.append(f"{by} started it {self.held_off_until_s - now_s:g} s too soon")
            case events.StartSucceeded(adopted=adopted):
                self.held_off_until_s = 0.0
                self.used_s = self.used_s if adopted else now_s
            case events.StartFailed(failure=failure, held_off_s=held_off_s):
                self.hold_off(held_off_s)
                for lease in leases:  # the next start may have failed before they hear of this one
                    if lease.endpoint is None:
                        self.told.setdefault(lease.by, failure)
                self.seen["a failed start had waiters"] += bool(leases)
            case events.StopBegan(reason=events.StopReason.IDLE):
                if held := [lease.by for lease in leases if lease.holds]:
                    self.wrong.append(f"idle stop over {held}")
                if now_s < max(self.used_s + self.service.config.idle_timeout, self.held_until_s):
                    self.wrong.append(f"idle stop {now_s - self.used_s:g} s after the last use")
            case events.StopBegan():
                by = asyncio.current_task()
                if leases and (by is None or by.get_name() != BY_FORCE):
                    self.wrong.append(f"stop by hand over {len(leases)} leases")
                self.thing.users.clear()
            case events.Stopped(reason=reason, ran_s=ran_s, leases=cut, held_off_s=held_off_s):
                self.held_off_until_s = 0.0
                if reason is events.StopReason.CRASHED and ran_s < 60:
                    self.hold_off(held_off_s)
                if reason is events.StopReason.IDLE and cut:
                    self.wrong.append(f"an idle stop cut {cut}")

    def hold_off(self, held_off_s: float) -> None:
        if not 4.999 <= held_off_s <= 300.001:
            self.wrong.append(f"held off for {held_off_s:g} s")
        self.held_off_until_s = self.loop.time() + held_off_s - 0.001

    def check(self) -> None:
        """Hold what must be true after every step."""
        assert self.wrong == [], self.wrong
        for asked in self.asked:
            assert asked.task is not None
            assert not asked.task.done() or asked.task.cancelled() or asked.task.exception() is None
        open_now = sum(not asked.task.done() for asked in self.asked)
        people_now = sum(not task.done() for task in self.people)
        assert len(self.service.snapshot().leases) <= open_now + people_now
        waiting = [lease for lease in self.service.snapshot().leases if lease.endpoint is None]
        if waiting:
            self.seen[f"waited while {self.service.state}"] += 1

    # --- requests and people --------------------------------------------------------------------------

    async def request(self, asked: Asked) -> str:
        begun_s, limit_s = self.loop.time(), self.service.config.wait_timeout
        try:
            async with self.service.lease(asked.name, counts=asked.counts) as lease:
                self.answered(begun_s, limit_s)
                self.let_through(asked, lease)
                users = self.thing.users
                try:
                    await asked.ended.wait()
                finally:
                    users.discard(asked.name)
                    if asked.counts and lease.holds:
                        self.used_s = self.loop.time()
        except tuple(REFUSALS) as refused:
            self.answered(begun_s, limit_s)
            failure = getattr(refused, "failure", None)
            if failure is not None and self.told.get(asked.name, failure) is not failure:
                self.wrong.append("a waiter was told of another failure")
            return REFUSALS[type(refused)]
        if asked.name in self.told:
            self.wrong.append("a waiter of a failed start was let through")
        return "answered"

    def answered(self, begun_s: float, limit_s: float | None) -> None:
        if limit_s is not None and self.loop.time() - begun_s > limit_s + 0.01:
            self.wrong.append(f"waited {self.loop.time() - begun_s:g} s")

    def let_through(self, asked: Asked, lease) -> None:
        asked.lease = lease
        if self.thing.serves:
            self.thing.users.add(asked.name)
        elif not self.may_be_deaf:
            self.wrong.append("let through to what does not listen")
        if "stop" in self.thing.doing:
            self.wrong.append(f"let through during {self.thing.doing}")

    def use(self, asked: Asked) -> None:
        """Pass a message on a WebSocket, which from then on is no use by being open."""
        self.service.used(asked.lease)
        self.thing.users.discard(asked.name)
        if asked.counts:
            self.used_s = self.loop.time()

    def person(self, does: Callable[[], Coroutine], name: str = "somebody") -> None:
        async def act() -> None:
            with suppress(errors.ServiceUnavailable, errors.RuntimeFailure):
                await does()

        self.people.append(asyncio.create_task(act(), name=name))

    # --- the steps ------------------------------------------------------------------------------------

    def step(self, what: str, which: int) -> None:
        open_now = [asked for asked in self.asked if not asked.task.done()]
        one = open_now[which % len(open_now)] if open_now else None
        match what.split():
            case ["request" | "socket"]:
                asked = Asked(f"{what} {len(self.asked)}", counts=which != 3)
                asked.task = asyncio.create_task(self.request(asked))
                self.asked.append(asked)
            case ["message"] if one and one.lease:
                self.use(one)
            case ["end"] if one:
                one.ended.set()
            case ["cancel"] if one:
                one.task.cancel()
            case ["leave"] if self.people:
                self.people[which % len(self.people)].cancel()
            case ["tick"]:
                self.service.stop_if_idle()
            case ["die"] if self.thing.is_up:
                self.thing.remains = which == 1 and self.service.state is State.READY
                self.thing.die(exit_code=which, out_of_memory=which == 3)
            case ["stop", "by", "hand"] if self.thing.is_up:
                self.thing.die(exit_code=0, by_hand=True)
            case ["pause", "by", "hand"] if self.thing.is_up:
                self.thing.freeze()
            case ["up", "by", "hand"]:
                self.thing.come_up(by_hand=True)
            case ["up", "again"] if self.thing.is_up:
                self.thing.die(exit_code=0, by_hand=True)
                self.thing.come_up()
            case ["resync"]:
                self.hear()
            case ["work"]:
                self.thing.cpu_s += 10 * which
            case ["sickness"]:
                self.thing.change(Change.UNHEALTHY)
            case ["deafness"] if self.may_be_deaf:
                self.thing.is_deaf = True
            case ["stop"]:
                force = which % 2 == 0
                self.person(lambda: self.service.stop(force=force), name=BY_FORCE if force else "politely")
            case ["start"]:
                self.held_off_until_s = 0.0
                self.person(lambda: self.service.start("admin"))
            case ["wake"]:
                with suppress(errors.StartHeldOff):
                    self.service.wake("page")
            case ["hold"]:
                self.service.hold(which * 10)
                self.held_until_s = self.loop.time() + which * 10
            case ["reconfigure"]:
                self.service.reconfigure(config(which))
            case ["fail", point]:
                self.thing.failing[point] = FAILURES[point]
            case ["hang", point]:
                self.thing.held.setdefault(point, asyncio.Event())
            case ["slow", point]:
                self.thing.slow[point] = (0.01, 0.3, 2, 9)[which]
            case ["mend"]:
                self.thing.failing.clear()
            case ["go", "on"]:
                self.thing.go_on()

    def hear(self) -> None:
        self.thing.is_deaf = False
        self.thing.change(Change.RESYNC)

    # --- the end --------------------------------------------------------------------------------------

    async def everybody_is_answered(self, allowed: set[str]) -> None:
        """Let all requests end, with whatever hangs and fails still doing so."""
        for asked in self.asked:
            asked.ended.set()
        async with asyncio.timeout(2000):
            await asyncio.gather(*self.people, return_exceptions=True)
            answers = await asyncio.gather(*(asked.task for asked in self.asked), return_exceptions=True)
        named = {answer if isinstance(answer, str) else type(answer).__name__ for answer in answers}
        self.seen.update(named)
        assert named <= allowed
        assert self.service.snapshot().leases == ()

    async def comes_to_rest(self) -> None:
        """Once nothing hangs or fails, what runs is known to run, however it came up, and is put to sleep."""
        self.thing.failing.clear()
        self.thing.go_on()
        await asyncio.sleep(
            10
        )  # what was adopted and never listened in time is left alone until it is told of
        if self.may_be_deaf or self.is_adopted:
            self.hear()
        for _ in range(8):  # the first tick may only begin to ask whether it is busy
            await asyncio.sleep(200)
            self.service.stop_if_idle()
        await asyncio.sleep(1)
        assert self.service.state in {State.STOPPED, State.FAILED}, self.service
        assert not self.thing.is_up or self.thing.is_paused, self.service
        assert not self.thing.remains, self.service


def live(steps, which: int, end: str) -> Counter[str]:
    """Let a service live through these steps; return how often what was seen."""
    machine = Machine()
    seen: Counter[str] = Counter()

    async def body() -> None:
        world = World(machine, which)
        answers = {"answered", "StartFailed", "StartHeldOff", "StartTimeout", "CancelledError"}
        adopting = None
        if which & 2:  # a restart of autostart
            world.thing.come_up()
            used_s = world.loop.time() + 1e9 - 8
            adopting = asyncio.create_task(world.service.adopt(used_s, used_s + 20))
            await asyncio.sleep(0)
            world.used_s, world.held_until_s = world.loop.time() - 8, world.loop.time() + 12
        try:
            await go_through(world, steps)
            if end == "close":
                machine.is_over = True
                await world.service.close()
                await world.everybody_is_answered(answers | {"ShuttingDown"})
            else:
                await world.everybody_is_answered(answers)
                await world.comes_to_rest()
                # There is a way out of whatever state this is.
                last = Asked("last", counts=True)
                last.ended.set()
                assert await world.request(last) == "answered"
                assert world.service.state is State.READY
                await world.service.retire()
            if adopting is not None:
                await adopting
            assert world.wrong == [], world.wrong
            ours = {task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}}
            assert not {name for name in ours if "whisper.test" in name}
        finally:
            await world.service.close()
            seen.update(world.seen)

    virtual_time.run(body(), machine.dial)
    return seen


@settings(max_examples=2000)
@given(STEPS, st.integers(0, 7), st.sampled_from(["rest", "rest", "close"]))
def test_any_order_of_events_keeps_the_promises(steps, which, end):
    for what in live(steps, which, end):
        event(what)
