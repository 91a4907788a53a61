"""How one configuration follows another while services run, start, stop and are in use."""

import asyncio

import pytest
from fakes import FakeRuntime, service_config
from waiting import until

from autostart import errors
from autostart.lifecycle import State
from autostart.lifecycle.fleet import Fleet
from autostart.lifecycle.state_file import StateFile

HOST = "whisper.test"


class Yard:
    """A fleet on fake runtimes; `runtimes` holds every one that was made, in order."""

    def __init__(self) -> None:
        self.runtimes: list[FakeRuntime] = []
        self.changes = 0
        state = StateFile(None)
        self.fleet = Fleet(self.make_runtime, emit=state.on_event, state=state, on_change=self.changed)

    def make_runtime(self, host, config) -> FakeRuntime:
        self.runtimes.append(FakeRuntime())
        return self.runtimes[-1]

    def changed(self) -> None:
        self.changes += 1

    @property
    def service(self):
        return self.fleet.services[HOST]

    async def follow(self, **services) -> None:
        self.fleet.follow({name.replace("_", "."): config for name, config in services.items()})
        await self.fleet.adopted(5)

    def use(self, host: str = HOST) -> "Use":
        return Use(self.fleet.services[host])


class Use:
    """A request that is open until `end`."""

    def __init__(self, service) -> None:
        self.endpoint = None
        self._ended = asyncio.Event()
        self._task = asyncio.create_task(self._use(service))

    async def _use(self, service) -> None:
        async with service.lease("curl") as lease:
            self.endpoint = lease.endpoint
            await self._ended.wait()

    async def opened(self) -> "Use":
        await until(lambda: self.endpoint is not None or self._task.done())
        return self

    async def end(self) -> None:
        self._ended.set()
        await self._task


def with_yard(test) -> None:
    async def body() -> None:
        yard = Yard()
        try:
            async with asyncio.timeout(20):
                await test(yard)
        finally:
            await yard.fleet.close()

    asyncio.run(body())


def another(**options):
    """The configuration of a service that needs another runtime than `service_config()` does."""
    return service_config(**options).model_copy(update={"containers": ("other",)})


def test_what_did_not_change_is_not_touched():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        service = yard.service
        await yard.follow(whisper_test=service_config(idle_timeout=5), new_test=service_config())
        assert yard.service is service
        assert service.config.idle_timeout == 5
        assert yard.runtimes[0].calls == ["observe", "start"]
        await request.end()
        await yard.follow(whisper_test=service_config(), new_test=service_config())
        assert yard.service is service
        assert len(yard.runtimes) == 2

    with_yard(test)


def test_idle_service_that_needs_another_runtime_makes_way_at_once():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        await (await yard.use().opened()).end()
        await yard.follow(whisper_test=another())
        assert yard.runtimes[0].closed
        await (await yard.use().opened()).end()
        assert yard.runtimes[1].starts == 1

    with_yard(test)


def test_busy_service_gets_its_new_runtime_when_its_requests_have_ended():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        long = await yard.use().opened()
        await yard.follow(whisper_test=another(idle_timeout=0))
        assert yard.service.stop_if_idle() is False
        assert yard.service.config.idle_timeout == 0
        short = await yard.use().opened()
        assert short.endpoint == long.endpoint
        await short.end()
        assert not yard.runtimes[0].closed
        changes = yard.changes
        await long.end()
        await until(lambda: yard.runtimes[0].closed)
        assert yard.changes == changes + 1
        assert yard.service.config == another(idle_timeout=0)
        await (await yard.use().opened()).end()
        assert (yard.runtimes[0].starts, yard.runtimes[1].starts) == (1, 1)

    with_yard(test)


def test_busy_service_tells_that_a_new_runtime_waits():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        await yard.follow(whisper_test=another())
        assert yard.service.snapshot().is_outdated is True
        await yard.follow(whisper_test=service_config(idle_timeout=5))
        assert yard.service.snapshot().is_outdated is False
        await yard.follow(whisper_test=another())
        await request.end()
        await until(lambda: len(yard.runtimes) == 2)
        assert yard.service.snapshot().is_outdated is False

    with_yard(test)


def test_hold_and_last_use_go_over_to_the_new_runtime():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        await (await yard.use().opened()).end()
        yard.service.hold(3600)
        used_s = yard.service.snapshot().last_used_s
        await yard.follow(whisper_test=another())
        assert 3590 < yard.service.snapshot().held_for_s <= 3600
        assert yard.service.snapshot().last_used_s == used_s

    with_yard(test)


def test_service_waits_for_the_port_of_one_that_is_to_leave_it_when_it_is_free():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        old = await yard.use().opened()
        moved = service_config().model_copy(update={"proxy_port": 2})
        yard.fleet.follow({HOST: moved, "new.test": service_config()})
        new = yard.use("new.test")
        await until(lambda: yard.fleet.services["new.test"].state is State.STARTING)
        assert yard.runtimes[1].calls == []
        await old.end()
        await new.opened()
        assert yard.runtimes[0].closed
        await new.end()

    with_yard(test)


def test_request_that_waits_for_a_start_gets_it_in_spite_of_a_reload():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        yard.runtimes[0].start_gate = asyncio.Event()
        request = yard.use()
        await until(lambda: yard.service.state is State.STARTING)
        await yard.follow(whisper_test=another())
        yard.runtimes[0].start_gate.set()
        assert (await request.opened()).endpoint == yard.runtimes[0].endpoint
        await request.end()
        await until(lambda: len(yard.runtimes) == 2)

    with_yard(test)


def test_change_that_is_taken_back_while_the_service_is_busy_changes_nothing():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        await yard.follow(whisper_test=another())
        await yard.follow(whisper_test=service_config())
        await request.end()
        await asyncio.sleep(0.01)
        assert len(yard.runtimes) == 1
        assert yard.service.state is State.READY

    with_yard(test)


def test_service_that_is_gone_is_closed_when_its_last_request_has_ended():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        await yard.follow()
        assert yard.fleet.services == {}
        assert not yard.runtimes[0].closed
        await request.end()
        await until(lambda: yard.runtimes[0].closed)

    with_yard(test)


def test_busy_service_that_is_gone_and_comes_again_is_the_same():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request, service = await yard.use().opened(), yard.service
        await yard.follow()
        await yard.follow(whisper_test=service_config())
        assert yard.service is service
        await request.end()
        await asyncio.sleep(0.01)
        assert len(yard.runtimes) == 1
        assert not yard.runtimes[0].closed

    with_yard(test)


def test_renamed_service_starts_only_after_the_requests_under_its_old_name():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        old = await yard.use().opened()
        yard.fleet.follow({"speech.test": service_config()})
        new = yard.use("speech.test")
        await until(lambda: yard.fleet.services["speech.test"].state is State.STARTING)
        assert yard.runtimes[1].calls == []
        await old.end()
        await new.opened()
        assert yard.runtimes[0].closed
        assert yard.runtimes[1].starts == 1
        await new.end()

    with_yard(test)


def test_wait_for_the_old_name_ends_with_the_start_timeout_and_stops_nothing():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        old = await yard.use().opened()
        yard.fleet.follow({"speech.test": service_config(start_timeout=0.05)})
        new = yard.use("speech.test")
        await until(lambda: yard.fleet.services["speech.test"].state is State.FAILED)
        with pytest.raises(errors.StartFailed) as failed:
            await new.end()
        assert failed.value.failure.cause is errors.FailureCause.TIMEOUT
        assert yard.runtimes[1].calls == []
        await old.end()

    with_yard(test)


def test_reload_while_a_service_stops_lets_it_stop_before_the_new_one_looks():
    async def test(yard):
        await yard.follow(whisper_test=service_config(idle_timeout=0))
        await (await yard.use().opened()).end()
        yard.runtimes[0].stop_gate = asyncio.Event()
        assert yard.service.stop_if_idle() is True
        yard.fleet.follow({HOST: another()})
        await asyncio.sleep(0.01)
        assert yard.runtimes[1].calls == []
        yard.runtimes[0].stop_gate.set()
        await yard.fleet.adopted(5)
        assert not yard.runtimes[0].running
        assert yard.service.state is State.STOPPED

    with_yard(test)


def test_drain_waits_for_services_that_left_the_configuration_too():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        await yard.follow()
        drain = asyncio.create_task(yard.fleet.drained())
        await asyncio.sleep(0.01)
        assert not drain.done()
        await request.end()
        await drain

    with_yard(test)


def test_reload_while_draining_leaves_the_drain_whole():
    async def test(yard):
        await yard.follow(whisper_test=service_config(), other_test=another())
        request = await yard.use().opened()
        drain = asyncio.create_task(yard.fleet.drained())
        await asyncio.sleep(0.01)
        yard.fleet.follow({"new.test": service_config()})
        await request.end()
        await drain

    with_yard(test)


def test_end_closes_services_that_left_and_are_still_in_use():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        request = await yard.use().opened()
        await yard.follow()
        await yard.fleet.close()
        assert yard.runtimes[0].closed
        await request.end()

    with_yard(test)


def test_runtime_that_cannot_be_closed_keeps_no_other_from_it(caplog):
    async def test(yard):
        await yard.follow(whisper_test=service_config(), other_test=another())

        async def survive() -> None:
            raise errors.StopFailed("process group 7 still runs")

        yard.runtimes[0].close = survive
        await yard.fleet.close()
        assert yard.runtimes[1].closed
        assert "whisper.test could not be closed: process group 7 still runs" in caplog.text

    with_yard(test)


def test_look_that_hangs_is_waited_for_only_so_long_and_requests_pass():
    async def test(yard):
        yard.fleet.follow({HOST: service_config()})
        yard.runtimes[0].seen_gate = asyncio.Event()
        assert await yard.fleet.adopted(0.01) is False
        await (await yard.use().opened()).end()
        yard.runtimes[0].seen_gate.set()
        assert await yard.fleet.adopted(5) is True
        assert yard.service.state is State.READY
        assert yard.runtimes[0].starts == 1

    with_yard(test)


def test_service_that_waits_for_its_port_and_is_to_leave_it_does_not_wait_for_itself():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        old = await yard.use().opened()
        yard.fleet.follow({"new.test": service_config()})
        new = yard.use("new.test")
        await until(lambda: yard.fleet.services["new.test"].state is State.STARTING)
        moved = service_config().model_copy(update={"proxy_port": 2})
        yard.fleet.follow({"new.test": moved})
        await old.end()
        await new.opened()
        assert new.endpoint == yard.runtimes[1].endpoint
        await new.end()
        await until(lambda: len(yard.runtimes) == 3)

    with_yard(test)


def test_service_that_waits_for_a_port_waits_on_while_its_owner_is_called_back():
    async def test(yard):
        await yard.follow(whisper_test=service_config())
        owner = await yard.use().opened()
        yard.fleet.follow({"new.test": service_config(start_timeout=0.3)})
        new = yard.use("new.test")
        await until(lambda: yard.fleet.services["new.test"].state is State.STARTING)
        moved = service_config().model_copy(update={"proxy_port": 2})
        yard.fleet.follow({HOST: service_config(), "new.test": moved})
        await new.opened()
        with pytest.raises(errors.StartFailed):
            await new.end()
        assert yard.runtimes[1].calls == []
        await owner.end()

    with_yard(test)
