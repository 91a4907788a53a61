"""What may still run although the state says that nothing does: it is looked at, or stopped, again."""

import asyncio

import pytest
from single_service import with_bench
from waiting import until

from autostart import errors
from autostart.lifecycle import State, events
from autostart.lifecycle.service import PROVED_AFTER_S


def troubles(bench, operation: str) -> int:
    return sum(event.operation == operation for event in bench.told(events.RuntimeTrouble))


def test_clean_up_that_fails_is_tried_again_until_nothing_is_left():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        with pytest.raises(errors.StartFailed):
            await bench.use()
        await until(lambda: troubles(bench, "clean_up") == 1)
        bench.clock.move(4.9)
        bench.service.stop_if_idle()
        assert bench.runtime.calls.count("stop") == 1
        bench.clock.move(0.1)
        bench.service.stop_if_idle()
        await until(lambda: troubles(bench, "clean_up") == 2)
        bench.runtime.stop_failure = None
        bench.clock.move(10)
        bench.service.stop_if_idle()
        await until(lambda: not bench.runtime.running)
        bench.clock.move(1e6)
        bench.service.stop_if_idle()
        await asyncio.sleep(0)
        assert bench.runtime.calls.count("stop") == 3

    with_bench(test, start_timeout=0.05, idle_timeout=0)


def test_stop_of_a_start_that_fails_is_tried_again():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        bench.service.wake("curl")
        await until(lambda: bench.runtime.running)
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        with pytest.raises(errors.StopFailed):
            await bench.service.stop()
        assert bench.service.state is State.STOPPED
        bench.runtime.stop_failure = None
        bench.clock.move(900)
        bench.service.stop_if_idle()
        await until(lambda: not bench.runtime.running)

    with_bench(test)


def test_what_runs_beside_a_crashed_container_is_stopped_once_it_is_idle():
    async def test(bench):
        await bench.use()
        bench.clock.move(PROVED_AFTER_S)
        bench.runtime.die(exit_code=1)
        bench.service.stop_if_idle()
        assert "stop" not in bench.runtime.calls
        bench.clock.move(900)
        bench.service.stop_if_idle()
        await until(lambda: bench.runtime.calls == ["start", "stop"])

    with_bench(test)


def test_request_takes_over_what_was_left():
    async def test(bench):
        await bench.use()
        bench.clock.move(PROVED_AFTER_S)
        bench.runtime.die(exit_code=1)
        async with bench.service.lease("curl"):
            bench.clock.move(1e6)
            assert bench.service.stop_if_idle() is False
        assert bench.runtime.calls == ["start", "start"]

    with_bench(test)


def test_stop_by_hand_ends_what_a_failed_adoption_left_alone():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.FAILED)
        await bench.service.stop()
        assert not bench.runtime.running

    with_bench(test, start_timeout=0.05)


def test_stop_by_hand_of_what_is_left_says_that_it_failed():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        with pytest.raises(errors.StartFailed):
            await bench.use()
        with pytest.raises(errors.StopFailed):
            await bench.service.stop()
        bench.runtime.stop_failure = None
        await bench.service.stop()

    with_bench(test)


def test_look_that_failed_is_taken_again():
    async def test(bench):
        bench.runtime.look_failure = errors.EngineUnreachable("unix:///nowhere", "no answer")
        tell, bench.runtime.tell = bench.runtime.tell, lambda *_, **__: None
        await bench.runtime.run()
        bench.runtime.tell = tell
        await bench.service.adopt()
        bench.service.stop_if_idle()
        assert bench.runtime.calls == ["observe"]
        bench.runtime.look_failure = None
        bench.clock.move(5)
        bench.service.stop_if_idle()
        await until(lambda: bench.service.state is State.READY)
        assert bench.runtime.calls == ["observe", "observe"]

    with_bench(test)


def test_look_that_hangs_is_not_taken_twice():
    async def test(bench):
        bench.runtime.look_failure = errors.EngineUnreachable("unix:///nowhere", "no answer")
        await bench.service.adopt()
        bench.runtime.look_failure, bench.runtime.seen_gate = None, asyncio.Event()
        bench.clock.move(5)
        for _ in range(10):
            bench.service.stop_if_idle()
            await asyncio.sleep(0)
        bench.runtime.seen_gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert bench.runtime.calls == ["observe", "observe"]

    with_bench(test)


def test_what_somebody_brings_up_after_a_crash_is_not_left_over():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=1)
        bench.runtime.listen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: len(bench.told(events.StartFailed)) == 1)
        bench.clock.move(1e6)
        bench.service.stop_if_idle()
        await asyncio.sleep(0)
        assert bench.runtime.calls == ["start", "observe"]

    with_bench(test, start_timeout=0.5)
