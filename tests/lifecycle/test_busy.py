"""The busy check: work that no open request tells of is not cut, and what cannot be told is not taken for rest."""

import asyncio
import contextlib
import functools

import pytest
import single_service
from fakes import busy_answer
from waiting import until

from autostart import errors
from autostart.lifecycle import State, events
from autostart.lifecycle.busy import cpu_between
from autostart.runtime.base import Change

IDLE_S = 900.0
PAUSE_S = 15.0
"""How far apart the questions are for such an idle time."""

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def ok(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"", body])


class Bench(single_service.Bench):
    """A service that is asked whether it is busy, by whatever `options` say; it says no until told otherwise."""

    def __init__(self, **options) -> None:
        super().__init__(idle_timeout=IDLE_S, **options)
        self.runtime.answer = busy_answer(False)

    @property
    def asked(self) -> int:
        return len([call for call in self.runtime.calls if call == "cpu" or call.startswith("GET")])

    @property
    def idle_in_s(self) -> float:
        return self.service.snapshot().idle_stop_at_s - self.clock.now - 1e9

    @property
    def work(self):
        return self.service.snapshot().own_work

    def troubles(self) -> list[str]:
        return [str(event.failure) for event in self.told(events.RuntimeTrouble)]

    async def over(self) -> None:
        """Wait until the check under way has ended, whatever follows from it."""
        await until(lambda: self.service._asking is None or self.service._asking.done())

    async def tick(self, seconds: float = PAUSE_S) -> None:
        """Let time pass, tick, and wait for the answer of the check that this began."""
        self.clock.move(seconds)
        assert self.service.stop_if_idle() is False
        await self.over()

    async def begin(self, seconds: float = PAUSE_S) -> None:
        """Let time pass and tick; return when the service has been asked, but has not answered (see its gates)."""
        before = self.asked
        self.clock.move(seconds)
        self.service.stop_if_idle()
        await until(lambda: self.asked > before)

    async def is_stopped(self) -> None:
        await until(lambda: self.service.state is State.STOPPED)


with_bench = functools.partial(single_service.with_bench, kind=Bench)
asked_at_a_path = functools.partial(with_bench, busy_path="/health/busy")
measured = functools.partial(with_bench, busy_cpu_percent=20)


# --- when it is asked, and what follows -----------------------------------------------------------------


def test_service_that_is_not_busy_is_stopped_when_its_idle_time_is_up_and_it_has_said_so():
    async def test(bench):
        await bench.use()
        await bench.tick(IDLE_S)
        await bench.is_stopped()
        assert [event.reason for event in bench.told(events.StopBegan)] == [events.StopReason.IDLE]
        assert "GET /health/busy HTTP/1.0" in bench.runtime.calls

    asked_at_a_path(test)


def test_busy_service_starts_its_idle_clock_when_the_work_ends():
    async def test(bench):
        await bench.use()
        bench.runtime.answer = busy_answer(True)
        for _ in range(200):
            await bench.tick()
        assert bench.idle_in_s == IDLE_S
        bench.runtime.answer = busy_answer(False)
        while bench.idle_in_s > PAUSE_S:
            await bench.tick()
            assert bench.service.state is State.READY
        assert bench.clock.now - 1000 == 200 * PAUSE_S + IDLE_S - PAUSE_S
        await bench.tick()
        await bench.is_stopped()

    asked_at_a_path(test)


def test_clock_of_busy_service_is_kept_for_the_next_autostart_and_is_no_request():
    async def test(bench):
        await bench.use()
        bench.runtime.answer = busy_answer(True)
        used_s = bench.service.snapshot().last_used_s
        await bench.tick()
        assert bench.told(events.Used)[-1].last_used_s == used_s + PAUSE_S
        assert bench.service.snapshot().last_used_s == used_s

    asked_at_a_path(test)


def test_service_is_asked_ten_times_in_an_idle_time_but_not_twice_a_second():
    async def test(bench):
        await bench.use()
        bench.runtime.answer = busy_answer(True)
        for _ in range(int(IDLE_S)):
            await bench.tick(1)
        assert bench.asked == IDLE_S / PAUSE_S
        bench.service.reconfigure(bench.service.config.model_copy(update={"idle_timeout": 2.0}))
        before = bench.asked
        for _ in range(40):
            await bench.tick(0.25)
        assert bench.asked - before == 10

    asked_at_a_path(test)


def test_sleeping_service_and_one_in_use_and_one_that_never_sleeps_are_not_asked():
    async def test(bench):
        await bench.tick(IDLE_S)
        async with bench.service.lease("curl"):
            for _ in range(5):
                await bench.tick(IDLE_S)
        await bench.service.stop()
        await bench.tick(IDLE_S)
        bench.service.reconfigure(bench.service.config.model_copy(update={"idle_timeout": float("inf")}))
        await bench.use()
        await bench.tick(IDLE_S)
        assert bench.asked == 0

    asked_at_a_path(test, busy_cpu_percent=20)


def test_service_without_a_check_is_stopped_in_the_tick_itself():
    async def test(bench):
        await bench.use()
        bench.clock.move(IDLE_S)
        assert bench.service.stop_if_idle() is True
        assert bench.asked == 0

    with_bench(test)


def test_one_question_at_a_time():
    async def test(bench):
        await bench.use()
        bench.runtime.answer_gate = asyncio.Event()
        await bench.begin()
        for _ in range(5):
            bench.clock.move(PAUSE_S)
            bench.service.stop_if_idle()
            await asyncio.sleep(0)
        bench.runtime.answer_gate.set()
        await bench.over()
        assert bench.asked == 1

    asked_at_a_path(test)


def test_hold_keeps_up_what_is_not_busy():
    async def test(bench):
        await bench.use()
        bench.service.hold(2 * IDLE_S)
        await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        await bench.tick(IDLE_S)
        await bench.is_stopped()

    asked_at_a_path(test)


# --- what comes in between ------------------------------------------------------------------------------


def test_request_that_comes_during_the_check_wins():
    async def test(bench):
        await bench.use()
        bench.runtime.answer_gate = asyncio.Event()
        await bench.begin(IDLE_S)
        async with bench.service.lease("curl"):
            bench.runtime.answer_gate.set()
            await bench.over()
            assert bench.service.state is State.READY
        assert bench.idle_in_s == IDLE_S

    asked_at_a_path(test)


def test_answer_from_before_a_request_that_came_and_went_is_no_answer():
    async def test(bench):
        bench.service.reconfigure(bench.service.config.model_copy(update={"idle_timeout": 0.0}))
        await bench.use()
        bench.runtime.answer_gate = asyncio.Event()
        await bench.begin(1)
        await bench.use()  # it may have left a job
        bench.runtime.answer_gate.set()
        await bench.over()
        assert bench.service.state is State.READY
        await bench.tick(1)
        await bench.is_stopped()

    asked_at_a_path(test)


def test_message_on_a_socket_during_the_check_wins():
    async def test(bench):
        async with bench.service.lease("browser") as lease:
            bench.service.used(lease)
            bench.service.reconfigure(bench.service.config.model_copy(update={"idle_timeout": 0.0}))
            bench.runtime.answer_gate = asyncio.Event()
            await bench.begin(1)
            bench.service.used(lease)
            bench.runtime.answer_gate.set()
            await bench.over()
            assert bench.service.state is State.READY

    asked_at_a_path(test)


def test_monitor_that_comes_again_and_again_does_not_keep_the_cpu_from_being_measured():
    async def test(bench):
        await bench.use()
        for _ in range(int(IDLE_S / PAUSE_S)):
            async with bench.service.lease("monitor", counts=False):
                pass
            await bench.tick()
        await bench.is_stopped()

    measured(test)


def test_socket_of_a_monitor_does_not_keep_the_cpu_from_being_measured():
    async def test(bench):
        await bench.use()
        async with bench.service.lease("monitor", counts=False) as lease:
            for _ in range(int(IDLE_S / PAUSE_S)):
                bench.service.used(lease)
                await bench.tick()
            await bench.is_stopped()

    measured(test)


def test_answer_of_an_earlier_run_is_ignored():
    async def test(bench):
        await bench.use()
        bench.runtime.answer_gate = gate = asyncio.Event()
        await bench.begin(IDLE_S)
        bench.runtime.die(exit_code=0, by_hand=True)
        await bench.use()
        bench.clock.move(IDLE_S)
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert bench.service.state is State.READY
        assert bench.work is None

    asked_at_a_path(test)


def test_answer_of_an_earlier_run_is_ignored_even_where_its_question_cannot_be_called_back():
    async def test(bench):
        gate = asyncio.Event()

        async def stubborn() -> dict[str, float]:
            bench.runtime.calls.append("cpu")
            while not gate.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await gate.wait()
            raise errors.EngineUnreachable("unix:///nowhere", "no answer")

        await bench.use()
        plain, bench.runtime.cpu_seconds = bench.runtime.cpu_seconds, stubborn
        await bench.begin()
        late = bench.service._asking
        bench.runtime.die(exit_code=0, by_hand=True)
        bench.runtime.cpu_seconds = plain
        await bench.use()
        gate.set()
        await asyncio.wait({late})
        assert bench.troubles() == []
        await bench.tick()
        await bench.tick()
        assert bench.work is not None

    measured(test)


def test_question_that_hangs_in_an_earlier_run_holds_up_none_of_this_one():
    async def test(bench):
        await bench.use()
        bench.runtime.cpu_gate = asyncio.Event()
        await bench.begin()
        bench.runtime.die(exit_code=0, by_hand=True)
        await bench.use()
        await bench.begin()

    measured(test)


def test_measurement_does_not_reach_over_a_restart():
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.die(exit_code=0, by_hand=True)
        await bench.use()
        bench.runtime.cpu["main"] += 1000
        await bench.tick()
        assert bench.work is None

    measured(test)


def test_stop_by_hand_does_not_ask_and_ends_the_check():
    async def test(bench):
        await bench.use()
        bench.runtime.answer = busy_answer(True)
        bench.runtime.answer_gate = asyncio.Event()
        await bench.begin(IDLE_S)
        await bench.service.stop()
        assert bench.service.state is State.STOPPED
        assert [event.reason for event in bench.told(events.StopBegan)] == [events.StopReason.MANUAL]

    asked_at_a_path(test)


def test_crash_during_the_check_is_told_as_such():
    async def test(bench):
        await bench.use()
        bench.runtime.cpu_gate = asyncio.Event()
        await bench.begin(IDLE_S)
        bench.runtime.die(exit_code=1)
        bench.runtime.cpu_gate.set()
        assert [event.reason for event in bench.told(events.Stopped)] == [events.StopReason.CRASHED]
        assert bench.troubles() == []

    measured(test)


@pytest.mark.parametrize("gate", ["answer_gate", "cpu_gate"])
def test_close_ends_the_check(gate):
    async def test(bench):
        await bench.use()
        setattr(bench.runtime, gate, asyncio.Event())
        await bench.begin(IDLE_S)
        await until(lambda: gate == "answer_gate" or "cpu" in bench.runtime.calls)
        asking = bench.service._asking
        await bench.service.close()
        assert asking.cancelled()
        assert bench.told(events.StopBegan) == []

    asked_at_a_path(test, busy_cpu_percent=20)


def test_stop_that_failed_is_asked_before_again_and_not_every_second():
    async def test(bench):
        await bench.use()
        bench.runtime.stop_failure = errors.StopFailed("it will not die")
        await bench.tick(IDLE_S)
        await until(lambda: bench.told(events.StopFailed))
        before = bench.asked
        await bench.tick(2)
        assert bench.asked == before
        bench.runtime.stop_failure = None
        await bench.tick(3)
        await bench.is_stopped()

    asked_at_a_path(test)


def test_adopted_service_is_asked_before_its_clock_of_before_stops_it():
    async def test(bench):
        bench.runtime.answer = busy_answer(True)
        bench.runtime.started_at_s = 1e9
        await bench.runtime.run()
        await bench.service.adopt(last_used_s=1e9 + 1)
        await until(lambda: bench.service.state is State.READY)
        await bench.tick(1)
        assert bench.service.state is State.READY
        assert bench.idle_in_s == IDLE_S

    asked_at_a_path(test)


# --- the path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (NOT_FOUND, "answered 404 instead of 200"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "answered 204 instead of 200"),
        (ok(b"idle"), "answered something that is no JSON"),
        (ok(b"[" * 4000), "answered something that is no JSON"),
        (ok(b"\xff\xfe\x00"), "answered something that is no JSON"),
        (ok(b"[false]"), 'answered JSON without a true or false under "busy"'),
        (busy_answer("no"), 'answered JSON without a true or false under "busy"'),
        (busy_answer(0), 'answered JSON without a true or false under "busy"'),
        (ok(b'{"busy": false}', b"Content-Length: 99"), "could not be asked"),
        (ok(b'{"busy": false}' + b" " * 5000), "could not be asked"),
        (ok(b"", *[b"X: y"] * 200), "could not be asked"),
        (b"x" * 9000, "could not be asked"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "could not be asked"),
        (b"", "could not be asked"),
    ],
)
def test_answer_that_says_nothing_counts_as_busy_and_is_told_once(answer, told):
    async def test(bench):
        await bench.use()
        bench.runtime.answer = answer
        await bench.tick(IDLE_S)
        for _ in range(5):
            await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        assert bench.idle_in_s == IDLE_S
        (trouble,) = bench.told(events.RuntimeTrouble)
        assert (trouble.operation, trouble.failure.cause) == ("busy_check", errors.FailureCause.BUSY_UNKNOWN)
        assert str(trouble.failure).startswith(f"busyPath /health/busy {told}")
        assert bench.work.failure is not None
        assert not bench.work.is_busy

    asked_at_a_path(test)


@pytest.mark.parametrize(
    "answer",
    [
        ok(b'{"busy": false}'),
        ok(b'{"busy": false, "queued": 0}\n', b"content-length: 29"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + busy_answer(False),
    ],
)
def test_answer_may_come_with_and_without_a_length(answer):
    async def test(bench):
        await bench.use()
        bench.runtime.answer = answer
        await bench.tick(IDLE_S)
        await bench.is_stopped()

    asked_at_a_path(test)


@pytest.mark.parametrize("answer", [busy_answer(True), NOT_FOUND], ids=["busy", "cannot-tell"])
def test_service_without_an_idle_time_is_kept_up_too(answer):
    async def test(bench):
        bench.service.reconfigure(bench.service.config.model_copy(update={"idle_timeout": 0.0}))
        await bench.use()
        bench.runtime.answer = answer
        await bench.tick(1)
        assert bench.work is not None
        assert bench.service.state is State.READY

    asked_at_a_path(test)


def test_service_that_does_not_answer_counts_as_busy_at_a_limit_with_a_name():
    async def test(bench):
        await bench.use()
        bench.runtime.answer_gate = asyncio.Event()
        await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        (trouble,) = bench.told(events.RuntimeTrouble)
        assert str(trouble.failure) == "asking /health/busy (busyPath) took longer than 0.05 s"
        assert "readiness.attemptTimeout" in trouble.failure.hint

    asked_at_a_path(test, readiness={"attempt_timeout": 0.05})


def test_key_in_the_query_of_the_path_is_asked_with_and_not_told():
    async def test(bench):
        await bench.use()
        await bench.tick()
        assert "GET /busy?key=secret HTTP/1.0" in bench.runtime.calls
        bench.runtime.answer = NOT_FOUND
        said = bench.work.words
        await bench.tick()
        assert "secret" not in said + str(bench.work.failure)

    with_bench(test, busy_path="/busy?key=secret")


def test_failure_that_is_mended_is_told_again_when_it_comes_back_but_ever_less_often():
    async def test(bench):
        await bench.use()
        for number in range(400):
            bench.runtime.answer = busy_answer(True) if number % 2 else NOT_FOUND
            await bench.tick()
        assert 2 < len(bench.troubles()) < 30

    asked_at_a_path(test)


def test_another_failure_is_told_too():
    async def test(bench):
        await bench.use()
        for answer in (NOT_FOUND, ok(b"")):
            bench.runtime.answer = answer
            await bench.tick()
            await bench.tick()
        assert bench.troubles() == [
            "busyPath /health/busy answered 404 instead of 200",
            "busyPath /health/busy answered something that is no JSON",
        ]

    asked_at_a_path(test)


# --- the CPU --------------------------------------------------------------------------------------------


def test_cpu_needs_two_looks_before_a_stop():
    async def test(bench):
        await bench.use()
        await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        await bench.tick(1)
        await bench.is_stopped()

    measured(test)


def test_cpu_above_the_share_is_use_and_below_is_not():
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.cpu["main"] += 0.21 * PAUSE_S
        await bench.tick()
        assert bench.work.is_busy
        assert bench.work.words == "its CPU is at 21.0 % of a core (busyCpuPercent is 20)"
        assert bench.idle_in_s == IDLE_S
        bench.runtime.cpu["main"] += 0.19 * PAUSE_S
        await bench.tick()
        assert not bench.work.is_busy
        assert bench.idle_in_s == IDLE_S - PAUSE_S

    measured(test)


def test_cpu_of_a_request_is_no_work_of_the_services_own():
    async def test(bench):
        await bench.use()
        await bench.tick()
        async with bench.service.lease("curl"):
            bench.runtime.cpu["main"] += 100
        await bench.tick()
        assert bench.work is None
        assert bench.idle_in_s == IDLE_S - PAUSE_S

    measured(test)


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        ({"a": 1.0}, {"a": 1.5}, 0.5),
        ({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.25}, 0.75),
        ({"a": 100.0}, {"a": 0.5}, 0.5),  # restarted
        ({"a": 100.0, "b": 1.0}, {"a": 0.5, "b": 4.0}, 3.5),  # ... while another one works
        ({"a": 1.0}, {"a": 1.0, "b": 3.0}, 3.0),  # new
        ({"a": 1.0, "b": 500.0}, {"a": 1.25}, 0.25),  # ended
    ],
)
def test_cpu_is_the_difference_of_each_part(before, after, seconds):
    assert cpu_between(before, after) == seconds


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (errors.EngineUnreachable("unix:///nowhere", "no answer"), "no Docker engine answers"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_cpu_that_cannot_be_read_counts_as_busy_and_is_told_once(failure, told):
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.cpu_failure = failure
        for _ in range(5):
            await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        (trouble,) = bench.troubles()
        assert told in trouble
        bench.runtime.cpu_failure = None
        await bench.tick(IDLE_S)  # what was measured before the failure is too long ago
        assert bench.service.state is State.READY
        await bench.tick(IDLE_S)
        await bench.is_stopped()

    measured(test)


def test_cpu_of_nothing_is_no_rest():
    async def test(bench):
        await bench.use()
        bench.runtime.cpu = {}
        for _ in range(3):
            await bench.tick(IDLE_S)
        assert bench.service.state is State.READY
        assert bench.troubles() == ["nothing runs of which the CPU time could be read (busyCpuPercent)"]

    measured(test)


# --- both, and other options ----------------------------------------------------------------------------

SAYS_YES = "/health/busy says that it is busy (busyPath)"
SAYS_NO = "/health/busy says that it is not busy (busyPath)"
CPU = "its CPU is at %.1f %% of a core (busyCpuPercent is 20)"


@pytest.mark.parametrize(
    ("says", "cpu_s", "is_busy", "told"),
    [
        (False, 0, False, [SAYS_NO, CPU % 0]),
        (True, 0, True, [SAYS_YES]),
        (False, 15, True, [CPU % 100]),
        (True, 15, True, [SAYS_YES, CPU % 100]),
    ],
)
def test_either_that_says_busy_is_busy(says, cpu_s, is_busy, told):
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.answer = busy_answer(says)
        bench.runtime.cpu["main"] += cpu_s
        await bench.tick()
        assert bench.work.is_busy is is_busy
        assert bench.work.words.split(", ") == told

    asked_at_a_path(test, busy_cpu_percent=20)


def test_failure_of_one_is_told_although_the_other_says_busy():
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.answer = NOT_FOUND
        bench.runtime.cpu["main"] += 100
        await bench.tick()
        assert bench.work.is_busy
        assert bench.troubles() == ["busyPath /health/busy answered 404 instead of 200"]

    asked_at_a_path(test, busy_cpu_percent=20)


def test_failure_of_one_keeps_up_what_the_other_says_is_at_rest():
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.runtime.cpu_failure = errors.EngineUnreachable("unix:///nowhere", "no answer")
        for _ in range(3):
            await bench.tick(IDLE_S)
        assert bench.service.state is State.READY

    asked_at_a_path(test, busy_cpu_percent=20)


def test_changed_questions_hold_at_once():
    async def test(bench):
        await bench.use()
        plain = bench.service.config
        bench.service.reconfigure(plain.model_copy(update={"busy_path": "/busy"}))
        bench.runtime.answer = busy_answer(True)
        await bench.tick(IDLE_S)
        assert bench.work.is_busy
        bench.service.reconfigure(plain)
        assert bench.work is None
        bench.clock.move(IDLE_S)
        assert bench.service.stop_if_idle() is True

    with_bench(test)


def test_answer_to_questions_of_before_a_reload_is_ignored():
    async def test(bench):
        await bench.use()
        bench.runtime.answer_gate = gate = asyncio.Event()
        await bench.begin(IDLE_S)
        bench.service.reconfigure(bench.service.config.model_copy(update={"busy_path": "/other"}))
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert bench.service.state is State.READY

    asked_at_a_path(test)


def test_reload_that_changes_nothing_keeps_what_was_measured():
    async def test(bench):
        await bench.use()
        await bench.tick()
        bench.service.reconfigure(bench.service.config.model_copy())
        bench.runtime.tell(Change.HEALTHY)
        await bench.tick()
        assert bench.work is not None

    measured(test)
