"""The state machine: what each state does with requests, ticks, ends of work and deaths."""

import asyncio

import pytest
from fakes import service_config
from single_service import with_bench
from waiting import until

from autostart import errors
from autostart.errors import FailureCause
from autostart.lifecycle import State, events
from autostart.lifecycle.events import StopReason
from autostart.runtime.base import Change


def test_first_request_starts_the_service_and_passes_when_it_is_ready():
    async def test(bench):
        async with bench.service.lease("curl") as lease:
            assert lease.endpoint == bench.runtime.endpoint
            assert bench.service.state is State.READY
        assert bench.told(events.StartSucceeded)[0].by == "curl"

    with_bench(test)


def test_a_thousand_requests_make_one_start():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        requests = [asyncio.create_task(bench.use()) for _ in range(1000)]
        await until(lambda: bench.service.snapshot().waiting == 1000)
        bench.runtime.start_gate.set()
        await asyncio.gather(*requests)
        assert bench.runtime.starts == 1

    with_bench(test)


def test_nothing_passes_before_the_service_listens():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: "did not accept" in bench.service.snapshot().waiting_for)
        assert not request.done()
        assert bench.service.state is State.STARTING
        bench.runtime.listen_gate.set()
        await request
        assert bench.service.state is State.READY

    with_bench(test)


def test_cancelled_waiter_leaves_the_start_running():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        leaver = asyncio.create_task(bench.use())
        stayer = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 2)
        leaver.cancel()
        await asyncio.wait({leaver})
        assert bench.service.snapshot().waiting == 1
        assert bench.told(events.Used) == []
        bench.runtime.start_gate.set()
        await stayer
        assert bench.runtime.starts == 1

    with_bench(test)


def test_start_goes_on_when_its_only_waiter_leaves_and_then_idles_out():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        leaver = asyncio.create_task(bench.use())
        await until(lambda: bench.service.state is State.STARTING)
        leaver.cancel()
        await asyncio.wait({leaver})
        bench.clock.move(1000)
        bench.runtime.start_gate.set()
        await until(lambda: bench.service.state is State.READY)
        assert bench.service.stop_if_idle() is False
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_idle_clock_starts_when_the_last_lease_ends():
    async def test(bench):
        async with bench.service.lease("long"):
            bench.clock.move(10_000)
            await bench.use()
            assert bench.service.stop_if_idle() is False
        bench.clock.move(899)
        assert bench.service.stop_if_idle() is False
        bench.clock.move(1)
        assert bench.service.stop_if_idle() is True
        await until(lambda: bench.service.state is State.STOPPED)
        assert [event.reason for event in bench.told(events.Stopped)] == [StopReason.IDLE]

    with_bench(test)


def test_quiet_lease_holds_off_the_stop_but_does_not_count_as_use():
    async def test(bench):
        await bench.use()
        bench.clock.move(900)
        async with bench.service.lease("monitor", counts=False):
            assert bench.service.stop_if_idle() is False
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_idle_timeout_never_keeps_the_service_up():
    async def test(bench):
        await bench.use()
        bench.clock.move(1e9)
        assert bench.service.stop_if_idle() is False
        assert bench.service.snapshot().idle_stop_at_s is None

    with_bench(test, idle_timeout="never")


def test_hold_keeps_the_service_up_until_it_ends():
    async def test(bench):
        await bench.use()
        bench.service.hold(7200)
        bench.clock.move(7199)
        assert bench.service.stop_if_idle() is False
        bench.clock.move(1)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_hold_is_told_with_its_end_and_goes_on_after_a_restart():
    async def test(bench):
        now_s = bench.clock.now + 1e9
        bench.service.hold(7200)
        bench.service.hold(0)
        assert [event.until_s for event in bench.told(events.Held)] == [now_s + 7200, None]
        await bench.runtime.run()
        await bench.service.adopt(held_until_s=now_s + 3600)
        await until(lambda: bench.service.state is State.READY)
        assert bench.service.snapshot().held_for_s == 3600
        bench.clock.move(3599)
        assert bench.service.stop_if_idle() is False
        bench.clock.move(1)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_hold_that_ended_while_autostart_was_down_holds_nothing():
    async def test(bench):
        await bench.service.adopt(held_until_s=bench.clock.now + 1e9 - 1)
        assert bench.service.snapshot().held_for_s == 0

    with_bench(test)


def test_request_during_a_stop_waits_for_it_and_starts_again():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_gate = asyncio.Event()
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 1)
        assert bench.runtime.starts == 1
        bench.runtime.stop_gate.set()
        await request
        assert bench.runtime.calls == ["start", "stop", "start"]

    with_bench(test)


def test_failed_start_answers_every_waiter_with_its_cause_and_log():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        requests = [asyncio.create_task(bench.use()) for _ in range(50)]
        await until(lambda: bench.service.snapshot().waiting == 50)
        bench.runtime.start_gate.set()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert {type(answer) for answer in answers} == {errors.StartFailed}
        assert {answer.failure.cause for answer in answers} == {FailureCause.IMAGE_MISSING}
        assert answers[0].failure.log_tail == ("first line", "last line")
        assert bench.runtime.starts == 1

    with_bench(test)


def test_starts_are_held_off_after_failures_doubling_to_five_minutes():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        waits = []
        for _ in range(8):
            with pytest.raises(errors.StartFailed) as failed:
                await bench.use()
            waits.append(failed.value.retry_after_s)
            with pytest.raises(errors.StartHeldOff) as held_off:
                await bench.use()
            assert held_off.value.failure.cause is FailureCause.IMAGE_MISSING
            bench.clock.move(failed.value.retry_after_s)
        assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
        assert bench.runtime.starts == 8

    with_bench(test)


def test_success_ends_the_hold_off_and_forgets_the_failures():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        with pytest.raises(errors.StartFailed):
            await bench.use()
        bench.runtime.start_failure = None
        bench.clock.move(5)
        await bench.use()
        assert bench.service.snapshot().failure is None

    with_bench(test)


def test_start_by_hand_lifts_the_hold_off():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        with pytest.raises(errors.StartFailed):
            await bench.use()
        bench.runtime.start_failure = None
        await bench.service.start("admin")
        assert bench.service.state is State.READY

    with_bench(test)


def test_death_during_the_start_fails_it_at_once_with_exit_code():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(
            lambda: bench.service.snapshot().waiting_for != "it was never asked" and bench.runtime.running
        )
        bench.runtime.die(exit_code=3)
        with pytest.raises(errors.StartFailed) as failed:
            await request
        assert isinstance(failed.value.failure, errors.Exited)
        assert failed.value.failure.exit_code == 3

    with_bench(test, start_timeout=3600)


def test_out_of_memory_during_the_start_is_told_as_such():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.runtime.running)
        bench.runtime.die(exit_code=137, out_of_memory=True)
        with pytest.raises(errors.StartFailed) as failed:
            await request
        assert failed.value.failure.cause is FailureCause.OUT_OF_MEMORY

    with_bench(test)


def test_death_of_an_old_container_is_forgotten_when_a_new_one_starts():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.runtime.starts == 1)
        bench.runtime.tell(Change.DIED, exit_code=0)
        bench.runtime.start_gate.set()
        await request
        assert bench.service.state is State.READY

    with_bench(test)


def test_start_that_never_becomes_ready_says_what_the_last_probe_heard():
    async def test(bench):
        bench.runtime.listen_gate = asyncio.Event()
        with pytest.raises(errors.StartFailed) as failed:
            await bench.use()
        assert failed.value.failure.cause is FailureCause.TIMEOUT
        assert "did not accept a connection" in str(failed.value)
        await until(lambda: not bench.runtime.running)

    with_bench(test, start_timeout=1)


def test_start_that_hangs_in_the_runtime_ends_at_its_limit():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        with pytest.raises(errors.StartFailed) as failed:
            await bench.use()
        assert failed.value.failure.cause is FailureCause.TIMEOUT

    with_bench(test, start_timeout=0.05)


def test_impatient_request_is_told_and_the_start_goes_on():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        with pytest.raises(errors.StartTimeout):
            await bench.use()
        assert bench.service.state is State.STARTING
        bench.runtime.start_gate.set()
        await until(lambda: bench.service.state is State.READY)
        await bench.use()
        assert bench.runtime.starts == 1

    with_bench(test, wait_timeout=0.05)


def test_mistake_of_ours_in_a_runtime_leaves_nobody_waiting():
    async def test(bench):
        bench.runtime.start_failure = ZeroDivisionError("a bug")
        with pytest.raises(errors.StartFailed) as failed:
            await bench.use()
        assert failed.value.failure.cause is FailureCause.INTERNAL

    with_bench(test)


def test_death_when_ready_is_noticed_and_the_next_request_starts_again():
    async def test(bench):
        await bench.use()
        bench.clock.move(60)
        bench.runtime.die(exit_code=1)
        assert bench.service.state is State.STOPPED
        await bench.use()
        assert bench.runtime.starts == 2
        assert [event.reason for event in bench.told(events.Stopped)] == [StopReason.CRASHED]

    with_bench(test)


def test_stop_by_somebodys_hand_is_respected_and_told_as_external():
    async def test(bench):
        await bench.use()
        bench.runtime.die(exit_code=0, by_hand=True)
        assert bench.service.state is State.STOPPED
        assert [event.reason for event in bench.told(events.Stopped)] == [StopReason.EXTERNAL]
        assert bench.runtime.starts == 1

    with_bench(test)


def test_what_is_started_by_hand_is_adopted():
    async def test(bench):
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        await bench.use()
        assert bench.runtime.starts == 0
        assert bench.told(events.StartSucceeded)[0].adopted is True

    with_bench(test)


def test_restart_of_autostart_adopts_with_the_idle_clock_that_was_kept():
    async def test(bench):
        await bench.runtime.run()
        now_s = bench.clock.now + 1e9
        bench.runtime.started_at_s = now_s - 5000
        await bench.service.adopt(last_used_s=now_s - 600)
        await until(lambda: bench.service.state is State.READY)
        bench.clock.move(299)
        assert bench.service.stop_if_idle() is False
        bench.clock.move(1)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_adopted_service_without_a_kept_clock_gets_its_whole_idle_time():
    async def test(bench):
        await bench.runtime.run()
        bench.runtime.started_at_s = 0.0
        await bench.service.adopt()
        await until(lambda: bench.service.state is State.READY)
        bench.clock.move(899)
        assert bench.service.stop_if_idle() is False

    with_bench(test)


def test_lost_events_are_made_up_for_by_looking_again():
    async def test(bench):
        await bench.use()
        bench.runtime._tell, told = lambda event: None, bench.runtime._tell
        bench.runtime.die(exit_code=0)
        assert bench.service.state is State.READY
        bench.runtime._tell = told
        bench.runtime.tell(Change.RESYNC)
        await until(lambda: bench.service.state is State.STOPPED)

    with_bench(test)


def test_request_that_only_waits_for_a_stop_is_not_told_as_cut():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_gate = asyncio.Event()
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 1)
        bench.runtime.stop_gate.set()
        await request
        assert [event.leases for event in bench.told(events.Stopped)] == [0]

    with_bench(test)


def test_request_that_is_open_when_the_service_dies_is_told_as_cut():
    async def test(bench):
        async with bench.service.lease("curl"):
            bench.runtime.die(exit_code=1)
        assert [event.leases for event in bench.told(events.Stopped)] == [1]

    with_bench(test)


def test_stop_that_fails_leaves_the_service_usable_and_is_tried_again_later():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        await until(lambda: bench.service.state is State.READY)
        assert bench.told(events.StopFailed)[0].still_running is True
        assert bench.service.stop_if_idle() is False
        bench.runtime.stop_failure = None
        bench.clock.move(5)
        assert bench.service.stop_if_idle() is True
        await until(lambda: bench.service.state is State.STOPPED)

    with_bench(test)


def test_request_that_waited_for_a_stop_passes_when_the_stop_fails():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_gate = asyncio.Event()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        bench.clock.move(900)
        assert bench.service.stop_if_idle() is True
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 1)
        bench.runtime.stop_gate.set()
        await request
        assert bench.runtime.starts == 1

    with_bench(test)


def test_stop_by_hand_is_refused_while_requests_are_open_unless_forced():
    async def test(bench):
        async with bench.service.lease("curl"):
            with pytest.raises(errors.InUse) as refused:
                await bench.service.stop()
            assert refused.value.leases == 1
            assert bench.service.state is State.READY
            await bench.service.stop(force=True)
            assert bench.service.state is State.STOPPED

    with_bench(test)


def test_stop_by_hand_ends_a_start_and_tells_its_waiters():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 1)
        await bench.service.stop(force=True)
        with pytest.raises(errors.StartFailed) as failed:
            await request
        assert failed.value.failure.cause is FailureCause.STOPPED_BY_HAND
        assert bench.service.state is State.STOPPED

    with_bench(test)


def test_close_tells_those_who_wait_that_autostart_shuts_down():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        request = asyncio.create_task(bench.use())
        await until(lambda: bench.service.snapshot().waiting == 1)
        await bench.service.close()
        with pytest.raises(errors.ShuttingDown):
            await request
        assert bench.runtime.closed

    with_bench(test)


def test_changed_limits_are_taken_over_without_touching_what_runs():
    async def test(bench):
        async with bench.service.lease("curl"):
            bench.service.reconfigure(service_config(idle_timeout=5))
        bench.clock.move(5)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_health_check_is_asked_until_it_is_good():
    from autostart.runtime.base import HealthResult

    async def test(bench):
        bench.runtime.health = [HealthResult(False, "model not loaded")] * 3 + [HealthResult(True)]
        await bench.use()
        assert len(bench.runtime.health) == 1

    with_bench(test)
