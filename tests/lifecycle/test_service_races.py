"""What may come between two steps of the state machine, and mistakes that must leave nobody waiting."""

import asyncio
import contextlib

import pytest
from fakes import service_config
from single_service import with_bench
from waiting import until

from autostart import errors
from autostart.lifecycle import State, events
from autostart.runtime.base import Change


async def turns(count: int = 20) -> None:
    """Let everything that is ready to run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_was_started_by_hand_and_is_slow_is_not_stopped_by_its_adoption():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.FAILED)
        await turns()
        assert "stop" not in bench.runtime.calls
        bench.runtime.listen_gate.set()
        bench.clock.move(5)
        bench.service.reconfigure(service_config())
        await bench.use()
        assert "stop" not in bench.runtime.calls

    with_bench(test, start_timeout=0.05)


def test_start_by_hand_during_a_stop_is_adopted_after_it():
    async def test(bench):
        await bench.use()
        bench.runtime.stopped_gate = asyncio.Event()
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        await until(lambda: not bench.runtime.running)
        await bench.runtime.run()
        await turns()
        bench.runtime.stopped_gate.set()
        await until(lambda: bench.service.state is State.READY)
        assert bench.runtime.starts == 1

    with_bench(test)


def test_start_by_hand_during_the_clean_up_of_a_failed_start_is_adopted_after_it():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        bench.runtime.stopped_gate = asyncio.Event()
        with pytest.raises(errors.StartFailed):
            await bench.use()
        await until(lambda: "stop" in bench.runtime.calls and not bench.runtime.running)
        bench.runtime.listen_gate = None
        bench.service.reconfigure(service_config())
        await bench.runtime.run()
        await turns()
        bench.runtime.stopped_gate.set()
        await until(lambda: bench.service.state is State.READY)
        assert bench.runtime.starts == 1

    with_bench(test, start_timeout=0.2)


def test_death_during_the_look_after_a_stop_that_failed_is_noticed():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        bench.runtime.seen_gate = asyncio.Event()
        stopping = asyncio.create_task(bench.service.stop())
        await until(lambda: "observe" in bench.runtime.calls)
        bench.runtime.die(exit_code=0, by_hand=True)
        bench.runtime.seen_gate.set()
        await stopping
        assert bench.service.state is State.STOPPED
        await bench.use()
        assert bench.runtime.starts == 2

    with_bench(test)


@pytest.mark.parametrize("change", [Change.STARTED, Change.RESYNC])
def test_news_during_a_look_is_looked_at_too(change):
    async def test(bench):
        tell, bench.runtime.tell = bench.runtime.tell, lambda *_, **__: None
        bench.runtime.seen_gate = asyncio.Event()
        looking = asyncio.create_task(bench.service.adopt())
        await until(lambda: "observe" in bench.runtime.calls)
        await bench.runtime.run()
        tell(change)
        bench.runtime.seen_gate.set()
        await looking
        await until(lambda: bench.service.state is State.READY)
        bench.runtime.tell = tell

    with_bench(test)


def test_service_that_is_ended_before_its_waiters_move_is_started_again_for_them():
    async def test(bench):
        def die_once(event) -> None:
            if isinstance(event, events.StartSucceeded) and bench.runtime.starts == 1:
                asyncio.get_running_loop().call_soon(lambda: bench.runtime.die(by_hand=True))

        bench.on_event = die_once
        async with bench.service.lease("curl") as lease:
            assert lease.endpoint == bench.runtime.endpoint
        assert bench.runtime.starts == 2

    with_bench(test)


def test_service_that_crashes_before_its_waiters_move_tells_all_of_them_why():
    async def test(bench):
        def crash(event) -> None:
            if isinstance(event, events.StartSucceeded):
                asyncio.get_running_loop().call_soon(lambda: bench.runtime.die(exit_code=3))

        bench.on_event = crash
        answers = await asyncio.gather(*(bench.use() for _ in range(5)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {errors.StartHeldOff}
        assert {answer.failure.exit_code for answer in answers} == {3}
        assert bench.runtime.starts == 1

    with_bench(test)


@pytest.mark.parametrize("later", range(8))
def test_death_in_any_turn_around_becoming_ready_is_noticed(later):
    async def test(bench):
        async def die() -> None:
            await turns(later)
            bench.runtime.die(exit_code=1)

        async def check_health() -> None:
            dying.append(asyncio.create_task(die()))

        dying: list[asyncio.Task] = []
        bench.runtime.check_health = check_health
        bench.service.wake("curl")
        await until(lambda: dying and dying[0].done())
        await until(lambda: bench.service.state in {State.STOPPED, State.FAILED})

    with_bench(test)


def test_restart_by_hand_while_it_is_adopted_is_adopted_too():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.STARTING)
        bench.runtime.die(exit_code=0, by_hand=True)
        bench.runtime.listen_gate = None
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        assert bench.runtime.starts == 0

    with_bench(test)


def test_stop_by_hand_of_what_is_adopted_is_no_failure_and_its_waiters_start_it():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.STARTING)
        waiter = asyncio.create_task(bench.use())
        await turns()
        bench.runtime.die(exit_code=0, by_hand=True)
        bench.runtime.listen_gate = None
        await waiter
        assert bench.runtime.starts == 1
        assert bench.told(events.StartFailed) == []
        assert [stop.reason for stop in bench.told(events.Stopped)] == [events.StopReason.EXTERNAL]

    with_bench(test)


def test_mistake_of_ours_in_reading_the_log_leaves_nobody_waiting():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        bench.runtime.log = None  # cannot be sliced
        with pytest.raises(errors.StartFailed) as failed:
            await bench.use()
        assert failed.value.failure.cause is errors.FailureCause.IMAGE_MISSING

    with_bench(test)


def test_mistake_of_ours_in_looking_leaves_nobody_waiting_for_a_stop():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        bench.runtime.look_failure = ZeroDivisionError("a bug")
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        await bench.use()
        assert bench.told(events.StopFailed)[0].still_running is None

    with_bench(test)


def test_stop_by_hand_of_which_nobody_can_tell_the_outcome_is_told_as_failed():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        bench.runtime.look_failure = errors.EngineUnreachable("unix:///nowhere", "no answer")
        with pytest.raises(errors.StopFailed):
            await bench.service.stop()

    with_bench(test)


def test_death_during_a_look_is_not_adopted():
    async def test(bench):
        bench.runtime.seen_gate = asyncio.Event()
        await bench.runtime.run()
        await until(lambda: "observe" in bench.runtime.calls)
        bench.runtime.die(exit_code=1)
        bench.runtime.seen_gate.set()
        await turns()
        assert bench.service.state is State.STOPPED

    with_bench(test)


def test_death_that_was_missed_during_a_start_is_seen_by_the_next_look():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: "did not accept" in bench.service.snapshot().waiting_for)
        tell, bench.runtime.tell = bench.runtime.tell, lambda *_, **__: None
        bench.runtime.die(exit_code=3)
        bench.runtime.tell = tell
        bench.runtime.tell(Change.RESYNC)
        with pytest.raises(errors.StartFailed) as failed:
            await request
        assert failed.value.failure.cause is errors.FailureCause.EXITED

    with_bench(test, start_timeout=3600)


def test_look_from_before_the_runtime_has_started_it_is_no_death():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        bench.runtime.seen_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.runtime.starts == 1)
        bench.runtime.tell(Change.RESYNC)
        await until(lambda: "observe" in bench.runtime.calls)
        bench.runtime.listen_gate = asyncio.Event()
        bench.runtime.start_gate.set()
        await until(lambda: "did not accept" in bench.service.snapshot().waiting_for)
        bench.runtime.seen_gate.set()
        await turns()
        bench.runtime.listen_gate.set()
        await request

    with_bench(test)


def test_service_that_was_closed_takes_no_stop():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        bench.service.wake("curl")
        await bench.service.close()
        with pytest.raises(errors.ShuttingDown):
            await bench.service.stop()

    with_bench(test)


def test_service_that_was_closed_lets_nobody_in():
    async def test(bench):
        await bench.use()
        await bench.service.close()
        with pytest.raises(errors.ShuttingDown):
            await bench.use()

    with_bench(test)


def test_retirement_waits_for_whoever_comes_while_the_last_one_goes():
    async def test(bench):
        await bench.use()
        first, second = asyncio.Event(), asyncio.Event()

        async def hold(until_set: asyncio.Event) -> None:
            async with bench.service.lease("curl"):
                await until_set.wait()

        one = asyncio.create_task(hold(first))
        await until(lambda: bench.service.snapshot().in_flight == 1)
        retirement = asyncio.create_task(bench.service.retire())
        await turns()
        first.set()
        while bench.service.snapshot().leases:
            await asyncio.sleep(0)
        two = asyncio.create_task(hold(second))
        async with bench.service.lease("curl"):  # in the same turn: before the retirement can move
            await one
            await turns()
            assert not bench.runtime.closed
        second.set()
        await asyncio.gather(two, retirement)
        assert bench.runtime.closed

    with_bench(test)


def test_drain_waits_for_whoever_comes_in_the_turn_in_which_the_last_one_goes():
    async def test(bench):
        first = contextlib.AsyncExitStack()
        await first.enter_async_context(bench.service.lease("first"))
        drain = asyncio.create_task(bench.service.drained())
        await turns()
        await first.aclose()
        async with bench.service.lease("second"):
            await turns()
            assert not drain.done()
        await drain

    with_bench(test)


def test_retirement_lets_the_clean_up_of_a_failed_start_end():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        bench.runtime.stop_gate = asyncio.Event()
        with pytest.raises(errors.StartFailed):
            await bench.use()
        retirement = asyncio.create_task(bench.service.retire())
        await turns()
        assert not bench.runtime.closed
        bench.runtime.stop_gate.set()
        await retirement
        assert not bench.runtime.running
        assert bench.runtime.closed

    with_bench(test, start_timeout=0.2)


def test_retirement_lets_a_stop_that_is_under_way_end():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_gate = asyncio.Event()
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        retirement = asyncio.create_task(bench.service.retire())
        await turns()
        assert not bench.runtime.closed
        bench.runtime.stop_gate.set()
        await retirement
        assert bench.service.state is State.STOPPED

    with_bench(test)
