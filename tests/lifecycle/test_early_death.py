"""A service that crashes soon after it became ready: its start has failed, however ready it was (promise 5)."""

import pytest
from single_service import with_bench
from waiting import until

from autostart import errors
from autostart.lifecycle import State, events
from autostart.lifecycle.events import StopReason
from autostart.lifecycle.service import PROVED_AFTER_S
from autostart.runtime.base import Change


def test_crash_before_the_start_has_proved_itself_holds_the_next_one_off():
    async def test(bench):
        await bench.use()
        bench.clock.move(PROVED_AFTER_S - 1)
        bench.runtime.die(exit_code=3)
        assert bench.service.state is State.FAILED
        with pytest.raises(errors.StartHeldOff) as refused:
            await bench.use()
        assert refused.value.retry_after_s == 5
        assert str(refused.value.failure) == "whisper.test ended with exit code 3 59.0 s after it was ready"
        await until(lambda: refused.value.failure.log_tail)
        assert refused.value.failure.log_tail == ("first line", "last line")
        assert [(event.reason, event.held_off_s) for event in bench.told(events.Stopped)] == [
            (StopReason.CRASHED, 5)
        ]
        bench.clock.move(5)
        await bench.use()
        assert bench.runtime.starts == 2

    with_bench(test)


def test_crash_for_want_of_memory_is_told_as_such():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=137, out_of_memory=True)
        with pytest.raises(errors.StartHeldOff) as refused:
            await bench.use()
        assert refused.value.failure.cause is errors.FailureCause.OUT_OF_MEMORY

    with_bench(test)


def test_crashes_in_a_row_are_held_off_longer_and_longer_however_often_it_was_ready():
    async def test(bench):
        waits = []
        for _ in range(8):
            await bench.use()
            bench.runtime.die(exit_code=1)
            waits.append(bench.service.snapshot().held_off_s)
            bench.clock.move(waits[-1])
        assert waits == [5, 10, 20, 40, 80, 160, 300, 300]

    with_bench(test)


@pytest.mark.parametrize("after_s", [PROVED_AFTER_S, 1e6])
def test_crash_of_a_start_that_has_proved_itself_is_started_again_and_ends_the_row(after_s):
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=1)
        bench.clock.move(5)
        await bench.use()
        bench.clock.move(after_s)
        bench.runtime.die(exit_code=1)
        assert bench.service.state is State.STOPPED
        await bench.use()
        bench.runtime.die(exit_code=1)
        assert bench.service.snapshot().held_off_s == 5

    with_bench(test)


def test_stop_by_hand_soon_after_it_became_ready_is_no_failure():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=137, by_hand=True)
        assert bench.service.state is State.STOPPED
        await bench.use()
        bench.runtime.tell(Change.PAUSED)
        assert bench.service.state is State.STOPPED
        await bench.use()
        await bench.service.stop()
        await bench.use()
        assert {event.reason for event in bench.told(events.Stopped)} == {
            StopReason.EXTERNAL,
            StopReason.MANUAL,
        }
        assert bench.runtime.starts == 4

    with_bench(test)


def test_idle_stop_soon_after_it_became_ready_is_no_failure():
    async def test(bench):
        await bench.use()
        assert bench.service.stop_if_idle() is True
        await until(lambda: bench.service.state is State.STOPPED)
        await bench.use()
        assert bench.runtime.starts == 2

    with_bench(test, idle_timeout=0)


def test_what_ran_long_before_it_was_adopted_has_proved_itself():
    async def test(bench):
        bench.runtime.started_at_s = bench.clock.now + 1e9 - PROVED_AFTER_S
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        bench.runtime.die(exit_code=1)
        assert bench.service.state is State.STOPPED

    with_bench(test)


def test_start_by_hand_does_not_wait_for_the_hold_off_of_a_crash():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=1)
        await bench.service.start("admin")
        assert bench.service.state is State.READY

    with_bench(test)


def test_what_comes_up_again_by_itself_after_a_crash_is_adopted():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=1)
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        await bench.use()
        assert bench.runtime.calls == ["start", "observe"]

    with_bench(test)
