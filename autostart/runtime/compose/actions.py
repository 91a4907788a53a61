"""Starting, stopping and waiting for single containers, through the engine."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import docker

from autostart.errors import RuntimeFailure, TimedOut, Unhealthy
from autostart.runtime.base import HealthResult, StopMethod
from autostart.runtime.compose import inspection
from autostart.runtime.compose.containers import Container, inspect_containers
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.failures import EngineRefused
from autostart.runtime.compose.project import Condition

_LOOK_LIMIT_S = 10.0
_ENGINE_LIMIT_S = 60.0
_KILL_MARGIN_S = 10.0
_CONDITION_LIMIT_S = 1800.0
_FIRST_POLL_S = 0.02
_SLOWEST_POLL_S = 0.25
_LOG_TAIL_LINES = 20


class ContainerActions:
    """What can be done to a container. Raises RuntimeFailure; a health check is read once a container.

    What changes a container cannot be called back once the engine was asked: a cancelled caller leaves it under
    way, and `settle` waits for it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended_before_s: dict[str, float] = {}
        self._checks: dict[str, inspection.HealthCheck | None] = {}

    async def start(self, container: Container) -> None:
        """Start it, or thaw it; return once the engine has done so, or somebody else."""
        while not container.is_running:
            try:
                await self._start_as_seen(container)
            except EngineRefused:
                now = await self._look_at(container)
                if now is None or now.state == container.state:
                    raise
                container = now  # somebody has paused, thawed or ended it since it was looked at
            else:
                break

    async def _start_as_seen(self, container: Container) -> None:
        if container.state != "paused":
            self._ended_before_s[container.id] = container.ended_at_s or 0.0
        await self._change(
            f"starting the container {container.name}",
            lambda client: (client.unpause if container.state == "paused" else client.start)(container.id),
            _ENGINE_LIMIT_S,
        )

    async def _look_at(self, container: Container) -> Container | None:
        """Return it as it is now; None where it is gone."""
        found = await self._engine.call(
            f"looking at the container {container.name}",
            lambda client: inspect_containers(client, [container.id]),
            limit_s=_LOOK_LIMIT_S,
        )
        return next(iter(found), None)

    async def halt(self, container: Container, method: StopMethod, grace_s: float) -> None:
        """Stop or freeze it; does nothing to what does not run. `grace_s` is rounded up to whole seconds."""
        if not container.is_alive:
            return
        if method is StopMethod.PAUSE and container.state != "restarting":
            if container.is_running:
                await self._change(
                    f"pausing the container {container.name}",
                    lambda client: client.pause(container.id),
                    _ENGINE_LIMIT_S,
                )
            return
        await self._change(
            f"stopping the container {container.name}",
            lambda client: client.stop(container.id, timeout=math.ceil(grace_s)),
            grace_s + _KILL_MARGIN_S,
        )

    async def settle(self) -> None:
        """Return once nothing is under way any more that cancelled callers asked for."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _change(
        self, operation: str, function: Callable[[docker.APIClient], None], limit_s: float
    ) -> None:
        task = asyncio.create_task(self._engine.call(operation, function, limit_s=limit_s))
        self._under_way.add(task)
        task.add_done_callback(self._forget)
        await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, for a caller that has gone

    async def death_of(self, container: Container) -> RuntimeFailure | None:
        """Return how it ended, with the last lines of its log; None where it runs."""
        return await self._engine.call(
            f"looking at the container {container.name}",
            lambda client: inspection.death_of(
                client,
                container.id,
                container.name,
                _LOG_TAIL_LINES,
                self._ended_before_s.get(container.id),
            ),
            limit_s=_LOOK_LIMIT_S,
        )

    async def log_tail(self, container: Container, lines: int) -> list[str]:
        """Return the last `lines` lines of its present or latest run."""
        return await self._engine.call(
            f"reading the log of the container {container.name}",
            lambda client: inspection.log_tail(
                client, container.id, lines, self._ended_before_s.get(container.id)
            ),
            limit_s=_LOOK_LIMIT_S,
        )

    async def cpu_seconds(self, containers: Iterable[Container]) -> dict[str, float]:
        """Return the CPU seconds that each that runs has used so far, by id. Raises BusyUnknown where one is not told."""

        async def read(container: Container) -> float:
            return await self._engine.call(
                f"reading the CPU time of the container {container.name}",
                lambda client: inspection.cpu_seconds(client, container.id, container.name),
                limit_s=_LOOK_LIMIT_S,
            )

        running = [container for container in containers if container.is_running]
        used = await asyncio.gather(*(read(container) for container in running))
        return {container.id: seconds for container, seconds in zip(running, used, strict=True)}

    async def check_health(self, container: Container) -> HealthResult | None:
        """Run its health check now; None where it has none. One that takes too long counts as failed.

        Raises Exited or OutOfMemory where the container has ended meanwhile.
        """
        if container.id not in self._checks:
            self._checks[container.id] = await self._engine.call(
                f"looking at the container {container.name}",
                lambda client: inspection.HealthCheck.of(client, container.id),
                limit_s=_LOOK_LIMIT_S,
            )
        check = self._checks[container.id]
        if check is None:
            return None
        try:
            return await self._engine.call(
                f"checking the health of the container {container.name}", check.run, limit_s=check.limit_s
            )
        except TimedOut:
            return HealthResult(False, f"the check did not end within {check.limit_s:g} s")
        except EngineRefused as exc:
            raise await self.death_of(container) or exc from exc

    async def wait_for(self, container: Container, condition: Condition) -> None:
        """Return once a dependency has reached `condition`.

        Health is asked more often than the engine does. Raises Exited, OutOfMemory, Unhealthy, TimedOut.
        """
        pause_s, begun_s = _FIRST_POLL_S, time.monotonic()
        while not await self._has_reached(container, condition):
            if time.monotonic() - begun_s > _CONDITION_LIMIT_S:
                raise TimedOut(f"waiting for {container.name} ({condition.value})", _CONDITION_LIMIT_S)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _SLOWEST_POLL_S)

    async def _has_reached(self, container: Container, condition: Condition) -> bool:
        if condition is Condition.STARTED:
            return True
        death = await self.death_of(container)
        if death is not None:
            if condition is Condition.COMPLETED and getattr(death, "exit_code", None) == 0:
                return True
            raise death
        return condition is Condition.HEALTHY and await self._is_healthy(container)

    async def _is_healthy(self, container: Container) -> bool:
        result = await self.check_health(container)
        if result is None:
            raise Unhealthy(container.name, "it has none, but something waits for it to be healthy")
        if not result.healthy:
            sick = await self._engine.call(
                f"looking at the container {container.name}",
                lambda client: inspection.engine_finds_unhealthy(client, container.id, container.name),
                limit_s=_LOOK_LIMIT_S,
            )
            if sick is not None:
                raise sick
        return result.healthy


async def together(actions: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run `actions` at once and wait for all; then raise the first failure. Cancellation cancels all."""
    outcomes = await asyncio.gather(*actions, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
