"""Reloads in any order, while requests come and go and what runs hangs, fails and dies.

Hypothesis draws the orders; promise 9 is checked at every reload, at every call that reaches the machine, and at
the end. Time is virtual.
"""

import asyncio
from collections import Counter
from contextlib import suppress

import virtual_time
from hypothesis import event, given, settings
from hypothesis import strategies as st
from machine import FAILURES, POINTS, Machine, MachineRuntime, Thing, go_through

from autostart import errors
from autostart.config import Service as ServiceConfig
from autostart.lifecycle import Service, State, events
from autostart.lifecycle.fleet import Fleet
from autostart.lifecycle.state_file import StateFile
from autostart.runtime.base import Change

HOSTS = ("asr.test", "tts.test", "llm.test")
WAYS_OF_THE_WORLD = [
    *["request", "request", "request", "end", "end", "cancel", "tick", "tick"],
    *["reload", "reload", "reload", "back", "back", "hold"],
    *["die", "stop by hand", "up by hand", "resync", "stop"],
]
FAULTS = [
    *(f"fail {point}" for point in (*FAILURES, "close")),
    *(f"hang {point}" for point in POINTS),
    *(f"slow {point}" for point in (*POINTS, "close")),
]
KINDS = [*WAYS_OF_THE_WORLD, *WAYS_OF_THE_WORLD, *FAULTS, *["mend", "go on"] * 2]
PAUSES = [None, None, 0, 0, 0, 0.003, 0.1, 0.45, 4, 11]
CONFIGURATIONS = 3 * 6**3
NEW_RUNTIME = ("runtime", "compose_dir", "containers", "proxy_port")
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, CONFIGURATIONS - 1), st.sampled_from(PAUSES)),
    min_size=12,
    max_size=60,
)


def configuration(which: int) -> dict[str, ServiceConfig]:
    """Return one of the `CONFIGURATIONS`: each service absent or of one of five kinds, on one of three ports."""
    which, turned = divmod(which, 3)
    services = {}
    for place, host in enumerate(HOSTS):
        which, kind = divmod(which, 6)
        command = {"kind": "process", "command": ["y" if kind == 3 else "x"]}
        project = {"compose_dir": "/opt/speech", "containers": (host,), "busy_cpu_percent": 5}
        options = {
            1: {"runtime": command, "stop_timeout": 3},
            2: {"runtime": command, "idle_timeout": 30, "aliases": (f"www.{host}",)},
            3: {"runtime": command},
            4: project | {"wait_timeout": 0.4},
            5: project | {"stop_method": "pause"},
        }
        if kind:
            common = {"proxy_port": 1 + (place + turned) % 3, "start_timeout": 0.5, "idle_timeout": 10}
            services[host] = ServiceConfig(**(common | options[kind]))
    return services


class World:
    """A fleet on a machine, the requests to it, and what was seen to go wrong."""

    def __init__(self, machine: Machine, which: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.machine = machine
        self.goes_on = bool(which & 1)
        self.seen: Counter[str] = Counter()
        self.containers: dict[tuple[str, ...], Thing] = {}
        self.things: list[Thing] = []
        self.runtimes: list[MachineRuntime] = []
        self.host_of: dict[MachineRuntime, str] = {}
        self.asked: dict[asyncio.Task, asyncio.Event] = {}
        self.people: list[asyncio.Task] = []
        self.wanted: dict[str, ServiceConfig] = {}
        self.wanted_before: dict[str, ServiceConfig] = {}
        self.left: set[Service] = set()
        self.adopted: set[str] = set()
        self.changes = 0
        state = StateFile(None)

        def emit(event: events.Event) -> None:
            state.on_event(event)
            self.seen[type(event).__name__] += 1
            match event:
                case events.StartBegan(service=host, adopted=adopted):
                    (self.adopted.add if adopted else self.adopted.discard)(host)
                case events.StartFailed(failure=errors.TimedOut(operation="waiting for what ran before")):
                    self.seen["waited for its place in vain"] += 1
                    self.check_in_the_way(event.service)

        self.fleet = Fleet(
            self.make_runtime,
            emit=emit,
            state=state,
            on_change=self.changed,
            clock=self.loop.time,
            wall=lambda: self.loop.time() + 1e9,
        )

    def make_runtime(self, host: str, config: ServiceConfig) -> MachineRuntime:
        if config.compose_dir is None:
            thing = Thing(self.machine, config.proxy_port, goes_on=self.goes_on)
        else:
            thing = self.containers.get(config.containers)
            if thing is None:
                thing = self.containers[config.containers] = Thing(self.machine, config.proxy_port)
        if thing not in self.things:
            self.things.append(thing)
        runtime = MachineRuntime(thing, port=config.proxy_port, ends_with_it=config.compose_dir is None)
        self.runtimes.append(runtime)
        self.host_of[runtime] = host
        return runtime

    def changed(self) -> None:
        self.changes += 1

    def check_in_the_way(self, host: str) -> None:
        """Hold that whoever waited for its place in vain has not waited for nobody."""
        ours = [runtime for runtime in self.runtimes if self.host_of[runtime] == host and not runtime.closed]
        recently_s = self.loop.time() - 0.01
        others = [runtime for runtime in self.runtimes if runtime.ended_s > recently_s]
        is_called = any(runtime.thing.doing or runtime.thing.done_s > recently_s for runtime in ours)
        if not is_called and not any(one.collides(other) for one in ours for other in others):
            self.machine.wrong.append(f"{host} waited for nobody")

    def thing_of(self, service: Service) -> Thing:
        return service._runtime.thing

    # --- reloads and requests -------------------------------------------------------------------------

    def reload(self, wanted: dict[str, ServiceConfig]) -> None:
        before, configs = dict(self.fleet.services), {}
        for host, service in before.items():
            configs[host] = service.config
        was_in_use = {host for host, service in before.items() if service.is_in_use}
        leaving = [service for service in self.left if service.is_in_use]
        changes = self.changes
        self.wanted_before, self.wanted = self.wanted, wanted
        self.fleet.follow(wanted)
        assert list(self.fleet.services) == list(wanted)
        assert self.changes > changes
        for host, service in before.items():
            if host in wanted and (host in was_in_use or not needs_another(configs[host], wanted[host])):
                assert self.fleet.services[host] is service
                self.seen["kept in use"] += host in was_in_use
        for service in leaving:
            if service.host in wanted and service.host not in before:
                assert self.fleet.services[service.host] is service
                self.seen["called back"] += 1
        self.left.update(set(before.values()) - set(self.fleet.services.values()))
        for host, service in self.fleet.services.items():
            told = service.config.model_copy(update={o: getattr(wanted[host], o) for o in NEW_RUNTIME})
            assert told == wanted[host]

    async def request(self, service: Service, ended: asyncio.Event, name: str) -> str:
        begun_s, limit_s = self.loop.time(), service.config.wait_timeout
        try:
            async with service.lease(name) as lease:
                thing = self.thing_of(service)
                if "stop" in thing.doing or not thing.serves or lease.endpoint != thing.endpoint:
                    self.machine.wrong.append(f"{name} let through to what does not serve")
                users = thing.users
                users.add(name)
                try:
                    await ended.wait()
                finally:
                    users.discard(name)
        except errors.ServiceUnavailable as refused:
            if isinstance(refused, errors.ShuttingDown) and not self.machine.is_over:
                self.machine.wrong.append(f"{name} was told of an end")
            if limit_s is not None and self.loop.time() - begun_s > limit_s + 0.01:
                self.machine.wrong.append(f"{name} waited {self.loop.time() - begun_s:g} s")
            return type(refused).__name__
        return "answered"

    # --- the steps ------------------------------------------------------------------------------------

    def step(self, what: str, which: int) -> None:
        open_now = [task for task in self.asked if not task.done()]
        services = list(self.fleet.services.values())
        service = services[which % len(services)] if services else None
        thing = self.things[which % len(self.things)] if self.things else None
        match what.split():
            case ["reload"]:
                self.reload(configuration(which))
            case ["back"]:
                self.reload(self.wanted_before)
            case ["request"] if service:
                ended = asyncio.Event()
                asking = self.request(service, ended, f"request {len(self.asked)} to {service.host}")
                self.asked[asyncio.create_task(asking)] = ended
            case ["end"] if open_now:
                self.asked[open_now[which % len(open_now)]].set()
            case ["cancel"] if open_now:
                open_now[which % len(open_now)].cancel()
            case ["tick"]:
                for each in services:
                    each.stop_if_idle()
            case ["stop"] if service:
                self.people.append(asyncio.create_task(self.stop(service)))
            case ["hold"] if service:
                service.hold(which % 30)
            case ["die"] if thing and thing.is_up:
                thing.die(exit_code=which % 3)
            case ["stop", "by", "hand"] if thing and thing.is_up:
                thing.die(exit_code=0, by_hand=True)
            case ["up", "by", "hand"] if thing in self.containers.values() and not thing.is_up:
                with suppress(errors.PortTaken):
                    thing.come_up(by_hand=True)
            case ["resync"] if thing:
                thing.change(Change.RESYNC)
            case ["fail", point] if thing:
                thing.failing[point] = FAILURES.get(point, FAILURES["stop"])
            case ["hang", point] if thing:
                thing.held.setdefault(point, asyncio.Event())
            case ["slow", point] if thing:
                thing.slow[point] = (0.01, 0.3, 2, 9)[which % 4]
            case ["mend"] if thing:
                thing.failing.clear()
            case ["go", "on"] if thing:
                thing.go_on()

    async def stop(self, service: Service) -> None:
        with suppress(errors.ServiceUnavailable, errors.RuntimeFailure):
            await service.stop()

    def check(self) -> None:
        assert self.machine.wrong == [], self.machine.wrong

    # --- the end --------------------------------------------------------------------------------------

    async def everybody_is_answered(self) -> None:
        for ended in self.asked.values():
            ended.set()
        async with asyncio.timeout(2000):
            await asyncio.gather(*self.people)
            answers = await asyncio.gather(*self.asked, return_exceptions=True)
        named = [answer if isinstance(answer, str) else type(answer).__name__ for answer in answers]
        self.seen.update(named)
        allowed = {"answered", "CancelledError", "StartFailed", "StartHeldOff", "StartTimeout"}
        assert set(named) <= allowed | ({"ShuttingDown"} if self.machine.is_over else set())

    async def comes_to_rest(self) -> None:
        """Once nothing hangs or fails, the fleet is what was wanted last, and all that it manages goes to sleep."""
        await asyncio.sleep(200)  # what hangs has reached its limit; what was outdated has made way
        assert {host: service.config for host, service in self.fleet.services.items()} == self.wanted
        own = {id(service._runtime) for service in self.fleet.services.values()}
        assert all(runtime.closed != (id(runtime) in own) for runtime in self.runtimes)
        for thing in self.things:
            thing.failing.clear()
            thing.go_on()
        await asyncio.sleep(10)
        for host in self.adopted & self.wanted.keys():  # what never listened in time is left alone until then
            self.thing_of(self.fleet.services[host]).change(Change.RESYNC)
        for _ in range(8):
            await asyncio.sleep(200)
            for service in self.fleet.services.values():
                service.stop_if_idle()
        await asyncio.sleep(1)
        for service in self.fleet.services.values():
            assert service.state in {State.STOPPED, State.FAILED}, service
            assert not self.thing_of(service).serves, service

    async def close(self) -> None:
        """End everything, in a bounded time, and leave nothing behind."""
        self.machine.is_over = True
        async with asyncio.timeout(300):
            await self.fleet.close()
        await self.everybody_is_answered()
        ours = asyncio.all_tasks() - {asyncio.current_task()}
        left = {task for task in ours if not task.get_name().startswith("the machine")}
        assert left == set(), left
        assert all(runtime.closed for runtime in self.runtimes)


def needs_another(old: ServiceConfig, new: ServiceConfig) -> bool:
    return any(getattr(old, option) != getattr(new, option) for option in NEW_RUNTIME)


def live(steps, which: int, end: str) -> Counter[str]:
    """Let a fleet live through these steps; return how often what was seen."""
    machine = Machine()
    seen: Counter[str] = Counter()

    async def body() -> None:
        world = World(machine, which)
        try:
            world.reload(configuration(which * 47))
            await go_through(world, steps)
            if end == "rest":
                await world.everybody_is_answered()
                await world.comes_to_rest()
            await world.close()
            world.check()
        finally:
            seen.update(world.seen)

    virtual_time.run(body(), machine.dial)
    return seen


@settings(max_examples=800)
@given(STEPS, st.integers(0, 7), st.sampled_from(["rest", "rest", "close"]))
def test_any_order_of_reloads_cuts_nobody_and_ends_in_what_was_wanted(steps, which, end):
    for what in live(steps, which, end):
        event(what)
