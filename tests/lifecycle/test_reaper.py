"""The loop that puts idle services to sleep."""

import asyncio

from fakes import Clock, FakeRuntime, service_config
from waiting import until

from autostart.lifecycle import Service, State
from autostart.lifecycle.reaper import reap


def service(clock: Clock, runtime: FakeRuntime | None = None) -> Service:
    runtime = runtime or FakeRuntime()
    return Service("whisper.test", service_config(), runtime, emit=lambda event: None, clock=clock)


def with_reaper(test) -> None:
    """Run `test(services, clock)`, one service to begin with, beside a reaper on every turn of the loop; `services` may change."""

    async def body() -> None:
        clock = Clock()
        services = {0: service(clock)}
        reaper = asyncio.create_task(reap(services.values, tick_s=0))
        every = [*services.values()]
        try:
            async with asyncio.timeout(20):
                await test(services, clock)
            assert not reaper.done()
        finally:
            reaper.cancel()
            await asyncio.gather(reaper, *(one.close() for one in every), return_exceptions=True)

    asyncio.run(body())


async def use(one: Service) -> None:
    async with one.lease("test"):
        pass


def test_idle_service_is_stopped_by_a_tick():
    async def test(services, clock):
        await use(services[0])
        clock.move(900)
        await until(lambda: services[0].state is State.STOPPED)

    with_reaper(test)


def test_service_in_use_outlives_every_tick():
    async def test(services, clock):
        async with services[0].lease("test"):
            clock.move(1e6)
            for _ in range(100):
                await asyncio.sleep(0)
            assert services[0].state is State.READY

    with_reaper(test)


def test_stop_that_hangs_keeps_no_other_service_from_being_stopped():
    async def test(services, clock):
        runtime = FakeRuntime()
        runtime.stop_gate = asyncio.Event()
        other = services.pop(0)
        services[-1] = hanging = service(clock, runtime)  # asked first
        services[0] = other
        await use(hanging)
        await use(services[0])
        clock.move(900)
        await until(lambda: services[0].state is State.STOPPED)
        assert hanging.state is State.STOPPING
        await hanging.close()

    with_reaper(test)


def test_services_of_a_new_configuration_are_reaped_too():
    async def test(services, clock):
        services[1] = new = service(clock)
        await use(new)
        clock.move(900)
        await until(lambda: new.state is State.STOPPED)
        await new.close()

    with_reaper(test)


def test_service_that_left_is_left_alone():
    async def test(services, clock):
        await use(services[0])
        gone = services.pop(0)
        clock.move(900)
        for _ in range(100):
            await asyncio.sleep(0)
        assert gone.state is State.READY

    with_reaper(test)


class BrokenClock(Clock):
    """A clock that is good until it `is_broken`."""

    is_broken = False

    def __call__(self) -> float:
        if self.is_broken:
            raise ArithmeticError("a mistake")
        return super().__call__()


def test_a_mistake_in_one_service_keeps_no_other_one_awake_and_is_told_once(caplog):
    async def test(services, clock):
        broken_clock = BrokenClock()
        services[-1] = broken = service(broken_clock)
        services[1] = other = service(clock)
        for one in services.values():
            await use(one)
        broken_clock.is_broken = True
        clock.move(900)
        await until(lambda: services[0].state is other.state is State.STOPPED)
        assert broken.state is State.READY
        broken_clock.is_broken = False
        broken_clock.move(900)
        await until(lambda: broken.state is State.STOPPED)
        await asyncio.gather(broken.close(), other.close())

    with_reaper(test)
    assert [record.exc_info[0] for record in caplog.records] == [ArithmeticError]
    assert "service=whisper.test" in caplog.text
