"""`explain`: who woke it and when, why it is still up, what it waits for, and when it will stop."""

import asyncio
import functools
import re

import pytest
import single_service
from fakes import Clock, FakeRuntime, service_config
from waiting import until

from autostart import errors
from autostart.admin.facts import explain, service_facts
from autostart.lifecycle import Service, State

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
    import json

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
