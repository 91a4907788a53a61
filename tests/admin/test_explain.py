"""`explain`: who woke it and when, why it is still up, what it waits for, and when it will stop."""

import asyncio
import functools
import json
import re

import pytest
import single_service
from fakes import Clock, FakeRuntime, busy_answer, service_config
from waiting import until

from autostart import errors
from autostart.admin.facts import explain, service_facts
from autostart.lifecycle import Service, State
from autostart.runtime.base import Change

HOST = "whisper.test"


class Bench:
    def __init__(self, **options) -> None:
        self.clock = Clock()
        self.wall = lambda: self.clock.now + 1.7e9
        self.runtime = FakeRuntime()
        config = service_config(**options)
        self.service = Service(
            HOST, config, self.runtime, emit=lambda event: None, clock=self.clock, wall=self.wall
        )

    def told(self) -> str:
        return "\n".join(explain(self.service.snapshot(), self.service.config, self.wall()))

    def facts(self):
        return service_facts(self.service.snapshot(), self.service.config)


with_bench = functools.partial(single_service.with_bench, kind=Bench)


def test_idle_service_tells_who_woke_it_and_when_it_will_stop():
    async def test(bench):
        async with bench.service.lease("alice from 10.0.0.7"):
            pass
        bench.clock.move(300)
        told = bench.told()
        assert re.search(r"It was woken by alice from 10\.0\.0\.7 at .* \(5m ago\)\.", told)
        assert re.search(r"It was last used at .* \(5m ago\)\.", told)
        assert re.search(
            r"It will be stopped at \d\d:\d\d:\d\d, in 10m, if nobody comes \(idleTimeout is 15m\)\.", told
        )
        assert "until the runtime had started it" in told

    with_bench(test)


def test_service_in_use_names_its_leases_and_no_time_of_stopping():
    async def test(bench):
        async with bench.service.lease("alice"), bench.service.lease("bob"):
            bench.clock.move(3600)
            told = bench.told()
            assert "It stays up because it is in use:" in told
            assert re.search(r"  - alice is open since .* \(1h ago\)", told)
            assert re.search(r"  - bob is open since", told)
            assert "It will be stopped 15m after the last of these ends (idleTimeout)." in told
            assert bench.facts()["idle_stop_at_s"] is None

    with_bench(test)


def test_hold_of_a_sleeping_service_is_told():
    async def test(bench):
        bench.service.hold(3600)
        assert (
            "Once started, it is held awake for another 1h (`autostart release` ends that)." in bench.told()
        )

    with_bench(test)


def test_many_leases_are_counted_instead_of_listed():
    async def test(bench):
        async with asyncio.TaskGroup() as group:
            end = asyncio.Event()

            async def use(number):
                async with bench.service.lease(f"client {number}"):
                    await end.wait()

            for number in range(30):
                group.create_task(use(number))
            await until(lambda: bench.service.snapshot().in_flight == 30)
            assert "  - and 20 more" in bench.told()
            end.set()

    with_bench(test)


def test_held_service_tells_for_how_long():
    async def test(bench):
        await bench.service.start("test")
        bench.service.hold(7200)
        bench.clock.move(60)
        told = bench.told()
        assert "It is held awake for another 1h 59m (`autostart release` ends that)." in told
        assert "in 1h 59m, if nobody comes" in told

    with_bench(test)


def test_service_that_never_sleeps_says_so():
    async def test(bench):
        await bench.service.start("test")
        assert 'It is never stopped for being idle (idleTimeout is "never").' in bench.told()
        assert bench.facts()["idle_timeout_s"] is None

    with_bench(test, idle_timeout="never")


async def ask(bench, seconds: float = 15) -> None:
    """Let it be asked whether it is busy, and wait for what it says."""
    before = bench.service.snapshot().own_work
    bench.clock.move(seconds)
    bench.service.stop_if_idle()
    await until(lambda: bench.service.snapshot().own_work is not before)


def test_service_that_is_busy_by_itself_says_so_and_when_it_will_be_stopped():
    async def test(bench):
        await bench.service.start("alice")
        bench.clock.move(15)
        bench.service.stop_if_idle()
        await until(lambda: "cpu" in bench.runtime.calls)
        bench.runtime.answer = busy_answer(True)
        bench.runtime.cpu["main"] += 1.43 * 15
        await ask(bench)
        told = bench.told()
        assert (
            "It stays up because it is busy by itself: /health/busy says that it is busy (busyPath), its CPU is at "
            "143.0 % of a core (busyCpuPercent is 20)."
        ) in told
        assert "in 15m, if nobody comes (idleTimeout is 15m).\nBefore that it is asked" in told
        assert bench.facts()["own_work"]["is_busy"] is True
        json.dumps(bench.facts(), allow_nan=False)

    with_bench(test, busy_path="/health/busy", busy_cpu_percent=20)


def test_service_that_is_not_busy_tells_what_it_said_and_that_it_is_asked_again():
    async def test(bench):
        await bench.service.start("alice")
        asked = "Before that it is asked whether it is busy by itself (busyPath)"
        assert f"{asked}." in bench.told()
        bench.runtime.answer = busy_answer(False)
        await ask(bench)
        assert f"{asked}; so far: /health/busy says that it is not busy (busyPath)." in bench.told()
        async with bench.service.lease("bob"):
            assert "asked whether" not in bench.told()
            assert bench.facts()["own_work"] is None

    with_bench(test, busy_path="/health/busy")


def test_service_that_cannot_be_asked_whether_it_is_busy_tells_why():
    async def test(bench):
        await bench.service.start("alice")
        bench.runtime.answer = b"HTTP/1.1 404 Not Found\r\n\r\n"
        await ask(bench)
        assert (
            "Autostart cannot tell whether it is busy: busyPath /health/busy answered 404 instead of 200, and it stays "
            'up until it can be told.\nWhat may help: it has to answer 200 with {"busy": true} or {"busy": false}.'
        ) in bench.told()
        assert bench.facts()["own_work"]["failure"]["cause"] == "busy_unknown"
        json.dumps(bench.facts(), allow_nan=False)

    with_bench(test, busy_path="/health/busy")


def test_ready_service_that_falls_ill_says_so_until_it_is_well_or_stopped():
    async def test(bench):
        sick = "Its container's own health check says no, since"
        await bench.service.start("alice")
        assert sick not in bench.told()
        bench.runtime.tell(Change.UNHEALTHY)
        fell_ill_s = bench.wall()
        bench.clock.move(300)
        bench.runtime.tell(Change.UNHEALTHY)
        assert re.search(f"{sick} .* \\(5m ago\\); it is served all the same\\.", bench.told())
        assert bench.facts()["unhealthy_since_s"] == fell_ill_s
        bench.runtime.tell(Change.HEALTHY)
        assert sick not in bench.told()
        bench.runtime.tell(Change.UNHEALTHY)
        await bench.service.stop()
        await bench.service.start("alice")
        assert bench.facts()["unhealthy_since_s"] is None

    with_bench(test)


def test_starting_service_tells_what_it_waits_for():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        waiter = asyncio.create_task(bench.service.start("alice"))
        await until(lambda: "did not accept" in bench.service.snapshot().waiting_for)
        told = bench.told()
        assert "It is starting, woken by alice at" in told
        assert "It waits for the service to answer; so far: 127.0.0.1:" in told
        assert "  - alice waits since" in told
        assert "The start is given up in 1m (startTimeout is 1m)." in told
        bench.runtime.listen_gate.set()
        await waiter

    with_bench(test)


def test_adopted_service_is_not_said_to_be_woken_by_anybody():
    async def test(bench):
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        assert "It was found running, and taken over." in bench.told()
        assert "woken by" not in bench.told()
        assert bench.facts()["woken_at_s"] is None

    with_bench(test)


def test_failed_service_tells_cause_hint_output_and_hold_off():
    async def test(bench):
        bench.runtime.start_failure = errors.Exited("Whisper", 3)
        with pytest.raises(errors.StartFailed):
            await bench.service.start("alice")
        told = bench.told()
        assert "it was asked for by alice" in told
        assert "Whisper ended with exit code 3 before it was ready (cause: exited)." in told
        assert "Its last output:\n  | first line\n  | last line" in told
        assert "Starts are held off for another 5s; `autostart start` does not wait for that." in told
        bench.clock.move(10)
        assert "The next request starts it again." in bench.told()

    with_bench(test)


def test_sleeping_service_tells_how_long_waking_takes():
    async def test(bench):
        assert "how long that takes is not known yet" in bench.told()
        await bench.service.start("test")
        await bench.service.stop()
        assert "The next request starts it; the last start took" in bench.told()

    with_bench(test)


def test_stopping_service_names_who_waits_for_it_to_start_again():
    async def test(bench):
        await bench.service.start("test")
        bench.runtime.stop_gate = asyncio.Event()
        stop = asyncio.create_task(bench.service.stop())
        await until(lambda: bench.service.state is State.STOPPING)
        use = asyncio.create_task(bench.service.start("bob"))
        await until(lambda: bench.service.snapshot().waiting == 1)
        assert (
            "These wait, and start it again as soon as it has stopped:\n  - bob waits since" in bench.told()
        )
        bench.runtime.stop_gate.set()
        await asyncio.gather(stop, use)

    with_bench(test)


def test_facts_can_be_written_as_json_in_every_state():
    async def test(bench):
        json.dumps(bench.facts(), allow_nan=False)
        await bench.service.start("test")
        json.dumps(bench.facts(), allow_nan=False)
        await bench.service.stop()
        bench.runtime.start_failure = errors.Exited("Whisper", 3)
        with pytest.raises(errors.StartFailed):
            await bench.service.start("test")
        json.dumps(bench.facts(), allow_nan=False)

    with_bench(test, idle_timeout="never")
