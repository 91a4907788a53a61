"""One attempt to start a service: run it, wait until it is ready, notice when it dies meanwhile.

Owns what a start does, not what it means: the state machine in `service.py` decides when one begins and what
follows from its end.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from autostart import errors
from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle.events import Phases
from autostart.lifecycle.limits import limited, mistake
from autostart.lifecycle.readiness import ReadinessCheck
from autostart.runtime.base import Change, Endpoint, Runtime, RuntimeEvent

_LOG_TAIL_LINES = 20
_LOG_TAIL_LIMIT_S = 1.0


class StartAttempt:
    """One start; `on_event` is told what the runtime sees while it lasts."""

    def __init__(
        self,
        name: str,
        config: ServiceConfig,
        runtime: Runtime,
        readiness: ReadinessCheck,
        *,
        clock: Callable[[], float],
        running_at: Endpoint | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._runtime = runtime
        self._readiness = readiness
        self._clock = clock
        self._running_at = running_at
        self._is_adoption = running_at is not None
        self.came_up_anew = False
        """It died during this start, and runs again."""
        self._death: asyncio.Future[RuntimeEvent] = asyncio.get_running_loop().create_future()

    @property
    def is_up(self) -> bool:
        """Say whether the runtime has done its part, so that what does not run now has died."""
        return self._running_at is not None

    def on_event(self, event: RuntimeEvent) -> None:
        """Take note of a death; while the runtime still works, what it starts anew takes it back."""
        if event.change in {Change.DIED, Change.PAUSED} and not self._death.done():
            self._death.set_result(event)
        elif event.change is Change.STARTED and self._death.done():
            self.came_up_anew = True
            if self._running_at is None:
                self._death = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[Endpoint, Phases]:
        """Start it (unless it is `running_at` an endpoint already) and wait until it is ready.

        Raises RuntimeFailure with the cause and the last log lines: whatever the runtime raises, TimedOut
        after `startTimeout`, Exited or OutOfMemory when it dies first; StoppedByHand, without a log, where somebody
        ends what ran before this. A mistake in autostart itself ends as InternalFailure, so that nobody waits for
        ever. Cancellation leaves what was started to the caller.
        """
        try:
            return await self._run()
        except errors.StoppedByHand:
            raise
        except RuntimeFailure as exc:
            failure = exc
        except Exception as exc:  # noqa: BLE001 - see the docstring
            failure = mistake(exc)
        await add_log_tail(failure, self._runtime)
        raise failure

    async def _run(self) -> tuple[Endpoint, Phases]:
        begun = self._clock()
        limit_s = self._config.start_timeout
        doing = "starting"
        try:
            async with asyncio.timeout(limit_s):
                endpoint = self._running_at = self._running_at or await self._start_runtime()
                runtime_s = self._clock() - begun
                doing = "becoming ready"
                await self._ready_or_dead(endpoint)
        except TimeoutError as exc:
            detail = self._readiness.last_answer if doing == "becoming ready" else ""
            raise errors.TimedOut(doing, limit_s, detail=detail, option="startTimeout") from exc
        return endpoint, Phases(runtime_s, self._clock() - begun - runtime_s)

    async def _start_runtime(self) -> Endpoint:
        while True:
            endpoint = await self._runtime.start()
            if not self.came_up_anew:
                return endpoint
            self.came_up_anew = False  # what died and came again may listen elsewhere: ask once more

    async def _ready_or_dead(self, endpoint: Endpoint) -> None:
        ready = asyncio.create_task(self._readiness.wait(endpoint, self._runtime.check_health))
        try:
            either: set[asyncio.Future[Any]] = {ready, self._death}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            await asyncio.wait({ready})
        # No await from here until the service is in its next state, or a death in between would be lost.
        if self._death.done():
            death = self._death.result()
            if self._is_adoption and death.is_by_hand:
                raise errors.StoppedByHand
            raise cause_of_death(self._name, death)
        ready.result()


def cause_of_death(name: str, event: RuntimeEvent, ready_s: float | None = None) -> RuntimeFailure:
    """Return the failure that a death is, before it was ready or `ready_s` seconds after."""
    if event.out_of_memory:
        return errors.OutOfMemory(name)
    return errors.Exited(name, event.exit_code, ready_s=ready_s)


async def add_log_tail(failure: RuntimeFailure, runtime: Runtime) -> None:
    """Give `failure` the last log lines, where it has none and they can be had within a second."""
    if failure.log_tail:
        return
    with contextlib.suppress(RuntimeFailure):
        async with limited("reading the log", _LOG_TAIL_LIMIT_S):
            failure.log_tail = tuple(await runtime.log_tail(_LOG_TAIL_LINES))
