"""One service on a fake runtime, for the tests of the state machine."""

import asyncio
from collections.abc import Callable

from fakes import Clock, FakeRuntime, service_config
from waiting import LIMIT_S

from autostart.lifecycle import Service, events


class Bench:
    """A service on a fake runtime, with every event that it emitted; `on_event` may do more about them."""

    def __init__(self, **options) -> None:
        self.clock = Clock()
        self.runtime = FakeRuntime()
        self.events: list[events.Event] = []
        self.on_event: Callable[[events.Event], None] = lambda event: None
        self.service = Service(
            "whisper.test",
            service_config(**options),
            self.runtime,
            emit=self.emit,
            clock=self.clock,
            wall=lambda: self.clock.now + 1e9,
        )

    def emit(self, event: events.Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    async def use(self) -> None:
        async with self.service.lease("test"):
            pass


def with_bench(test, kind=Bench, **options):
    """Run the coroutine function `test(bench)` on a bench of this kind and close its service, whatever happens."""

    async def body() -> None:
        bench = kind(**options)
        try:
            async with asyncio.timeout(2 * LIMIT_S):
                await test(bench)
        finally:
            await bench.service.close()

    asyncio.run(body())
