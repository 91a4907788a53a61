"""What every runtime does alike. A new runtime joins by one more entry in CASES."""

import asyncio
import json
import time
from pathlib import Path
from typing import Protocol

import docker
import pytest
from processes import free_port
from stacks import BACKEND, Stack
from waiting import LIMIT_S

from autostart.runtime.base import Change, RunState, Runtime, RuntimeEvent, StopMethod
from autostart.runtime.compose import ComposeRuntime
from autostart.runtime.process import ProcessRuntime

GRACE_S = 5.0

SERVICE = """
trap 'exit 0' TERM
echo 'the first line'
echo 'a line on stderr' >&2
echo 'the last line'
while [ ! -s "$1/exit" ]; do [ -e "$1/work" ] || sleep 0.05; done
exit "$(cat "$1/exit")"
"""
"""A shell script (dash, busybox) that ends by itself, with the exit code in `exit`, once that is there, and keeps a
CPU busy while there is a file `work`."""


class Case(Protocol):
    """One kind of runtime, running SERVICE in whatever way it can."""

    def __init__(self, directory: Path) -> None:
        """Prepare what `make` needs; `directory` is empty, and what SERVICE gets as $1."""

    def make(self) -> Runtime:
        """Return a runtime for the same service; it may be called more than once."""
        ...

    def end(self) -> None:
        """Remove what the test left behind."""


class ProcessCase:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()

    def make(self) -> ProcessRuntime:
        return ProcessRuntime(
            ["/bin/sh", "-c", SERVICE, "service", str(self.directory)], self.directory, {}, self.port
        )

    def end(self) -> None:
        """Nothing outlives its runtime."""


class ComposeCase:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = Stack(directory, docker.APIClient(version="auto", **docker.utils.kwargs_from_env()))
        service = json.dumps(["/bin/sh", "-c", SERVICE.replace("$", "$$"), "service", str(directory)])
        self.stack.write(
            f"""
            services:
              it:
                image: {BACKEND}
                entrypoint: {service}
                volumes: ["{directory}:{directory}"]
                ports: ["127.0.0.1:{self.stack.port}:8080"]
            """
        )

    def make(self) -> ComposeRuntime:
        return self.stack.unwatched()

    def end(self) -> None:
        self.stack.remove()
        self.stack.client.close()


CASES = [
    pytest.param(ProcessCase, id="process"),
    pytest.param(ComposeCase, id="compose", marks=pytest.mark.docker),
]


class Told(list[RuntimeEvent]):
    """The events that a runtime told, in order; but for those that only say that others may have been lost."""

    def append(self, event: RuntimeEvent) -> None:
        if event.change is not Change.RESYNC:
            super().append(event)

    def changes(self) -> list[Change]:
        return [event.change for event in self]


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """One runtime of each kind, and nothing of it afterwards."""
    case = request.param(tmp_path)
    yield case
    case.end()


@pytest.fixture
def contract(case, run):
    """Run a test's coroutine function with a runtime and its events; close the runtime."""

    def contract(test):
        async def whole():
            runtime, told = case.make(), Told()
            runtime.watch(told.append)
            try:
                await test(runtime, told)
            finally:
                await runtime.stop(StopMethod.STOP, GRACE_S)
                await runtime.close()
                if isinstance(runtime, ComposeRuntime):
                    await runtime.engine.close()

        run(whole())

    return contract


def test_what_was_never_started_is_seen_stopped(contract):
    async def test(runtime, told):
        seen = await runtime.observe()
        assert (RunState.STOPPED, None) == (seen.state, seen.endpoint)
        assert [] == told

    contract(test)


def test_a_start_makes_it_run_and_says_where(contract):
    async def test(runtime, told):
        before_s = time.time()
        endpoint = await runtime.start()
        seen = await runtime.observe()
        assert (RunState.RUNNING, endpoint, None) == (seen.state, seen.endpoint, seen.exit_code)
        assert seen.started_at_s is not None
        assert before_s - 1 <= seen.started_at_s <= time.time() + 1

    contract(test)


def test_a_start_is_told(contract, eventually):
    async def test(runtime, told):
        await runtime.start()
        await eventually(lambda: [Change.STARTED] == told.changes(), told)

    contract(test)


def test_a_start_of_what_runs_changes_nothing(contract, eventually):
    async def test(runtime, told):
        first = await runtime.start()
        started_at_s = (await runtime.observe()).started_at_s
        assert first == await runtime.start()
        assert started_at_s == (await runtime.observe()).started_at_s
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await eventually(lambda: [Change.STARTED, Change.DIED] == told.changes(), told)

    contract(test)


def test_many_starts_at_once_are_one(contract, eventually):
    async def test(runtime, told):
        endpoints = await asyncio.gather(*(runtime.start() for _ in range(20)))
        assert 1 == len(set(endpoints))
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await eventually(lambda: [Change.STARTED, Change.DIED] == told.changes(), told)

    contract(test)


def test_a_stop_ends_it_and_is_told(contract, eventually):
    async def test(runtime, told):
        await runtime.start()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert RunState.STOPPED == (await runtime.observe()).state
        await eventually(lambda: [Change.STARTED, Change.DIED] == told.changes(), told)

    contract(test)


def test_a_stop_of_what_does_not_run_changes_nothing(contract):
    async def test(runtime, told):
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await runtime.start()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert RunState.STOPPED == (await runtime.observe()).state

    contract(test)


def test_many_stops_at_once_all_succeed(contract):
    async def test(runtime, told):
        await runtime.start()
        await asyncio.gather(*(runtime.stop(StopMethod.STOP, GRACE_S) for _ in range(5)))
        assert RunState.STOPPED == (await runtime.observe()).state

    contract(test)


def test_an_end_by_itself_is_told_with_its_exit_code(contract, case, eventually):
    async def test(runtime, told):
        await runtime.start()
        (case.directory / "exit").write_text("3")
        await eventually(lambda: Change.DIED in told.changes(), told)
        assert RuntimeEvent(Change.DIED, exit_code=3) == told[-1]
        seen = await runtime.observe()
        assert (RunState.STOPPED, 3) == (seen.state, seen.exit_code)

    contract(test)


def test_what_died_can_be_started_again(contract, case, eventually):
    async def test(runtime, told):
        await runtime.start()
        (case.directory / "exit").write_text("3")
        await eventually(lambda: Change.DIED in told.changes(), told)
        (case.directory / "exit").unlink()
        await runtime.start()
        seen = await runtime.observe()
        assert (RunState.RUNNING, None) == (seen.state, seen.exit_code)
        await eventually(lambda: [Change.STARTED, Change.DIED, Change.STARTED] == told.changes(), told)

    contract(test)


def test_what_was_stopped_can_be_started_again(contract):
    async def test(runtime, told):
        first = await runtime.start()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert first == await runtime.start()
        assert RunState.RUNNING == (await runtime.observe()).state

    contract(test)


def test_the_log_tail_is_the_last_lines_oldest_first(contract):
    async def test(runtime, told):
        await runtime.start()
        printed = {"the first line", "a line on stderr", "the last line"}  # Docker may swap the two streams
        while not printed <= set(tail := await runtime.log_tail(50)):
            await asyncio.sleep(0.01)
        assert tail.index("the first line") < tail.index("the last line")
        assert tail[-1:] == await runtime.log_tail(1)
        assert [] == await runtime.log_tail(0)

    contract(test)


def test_the_log_tail_outlives_the_thing(contract, case, eventually):
    async def test(runtime, told):
        await runtime.start()
        (case.directory / "exit").write_text("1")
        await eventually(lambda: Change.DIED in told.changes(), told)
        assert "the last line" in await runtime.log_tail(50)

    contract(test)


def test_the_log_tail_of_what_never_ran_is_empty(contract):
    async def test(runtime, told):
        assert [] == await runtime.log_tail(50)

    contract(test)


def test_cpu_seconds_grow_while_it_works_and_hardly_while_it_does_not(contract, case, eventually):
    async def test(runtime, told):
        async def used_s() -> float:
            before = await runtime.cpu_seconds()
            for _ in range(4):
                await asyncio.sleep(0.05)
            after = await runtime.cpu_seconds()
            assert after.keys() & before.keys()
            return sum(after[part] - before[part] for part in after.keys() & before.keys())

        await runtime.start()
        at_rest_s = await used_s()
        (case.directory / "work").touch()
        worked_s = 0.0
        async with asyncio.timeout(LIMIT_S):
            while worked_s < 5 * at_rest_s + 0.5:
                worked_s += await used_s()

    contract(test)


def test_cpu_seconds_of_what_does_not_run_are_none(contract):
    async def test(runtime, told):
        assert {} == await runtime.cpu_seconds()
        await runtime.start()
        assert {} != await runtime.cpu_seconds()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert {} == await runtime.cpu_seconds()

    contract(test)


def test_its_health_can_be_asked(contract):
    async def test(runtime, told):
        await runtime.start()
        result = await runtime.check_health()
        assert result is None or result.healthy in (True, False)

    contract(test)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 20])
def test_a_cancelled_start_leaves_it_running_and_known_or_stopped(contract, steps):
    async def test(runtime, told):
        start = asyncio.create_task(runtime.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait({start})
        endpoint = await runtime.start()  # joins what goes on, or begins afresh
        assert endpoint == (await runtime.observe()).endpoint
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert RunState.STOPPED == (await runtime.observe()).state
        assert told.changes().count(Change.STARTED) == told.changes().count(Change.DIED)

    contract(test)


def test_a_cancelled_starter_does_not_cancel_the_others(contract):
    async def test(runtime, told):
        leaves, stays = asyncio.create_task(runtime.start()), asyncio.create_task(runtime.start())
        await asyncio.sleep(0)
        leaves.cancel()
        endpoint = await stays
        assert endpoint == (await runtime.observe()).endpoint

    contract(test)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_a_cancelled_stop_can_be_asked_for_again(contract, steps):
    async def test(runtime, told):
        await runtime.start()
        stop = asyncio.create_task(runtime.stop(StopMethod.STOP, GRACE_S))
        for _ in range(steps):
            await asyncio.sleep(0)
        stop.cancel()
        await asyncio.wait({stop})
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert RunState.STOPPED == (await runtime.observe()).state
        await runtime.start()
        assert RunState.RUNNING == (await runtime.observe()).state

    contract(test)


def test_a_stop_during_a_start_ends_what_was_started(contract):
    async def test(runtime, told):
        start = asyncio.create_task(runtime.start())
        await asyncio.sleep(0)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await asyncio.wait({start})
        assert RunState.STOPPED == (await runtime.observe()).state

    contract(test)


def test_a_listener_that_raises_does_no_harm(contract):
    async def test(runtime, told):
        def raises(event):
            told.append(event)
            raise ValueError("a mistake of the listener's")

        runtime.watch(raises)
        await runtime.start()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert RunState.STOPPED == (await runtime.observe()).state

    contract(test)


def test_a_close_can_be_repeated(contract):
    async def test(runtime, told):
        await runtime.start()
        await runtime.stop(StopMethod.STOP, GRACE_S)
        await runtime.close()
        await runtime.close()

    contract(test)
