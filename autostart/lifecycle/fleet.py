"""The services of a configuration, and how one configuration follows another: by difference (promise 9).

Owns every service from its making to its end. Knows how to make a runtime only by the function it is given.

| a service whose configuration            | idle                              | with open requests                 |
|------------------------------------------|-----------------------------------|------------------------------------|
| is the same, or needs no other runtime   | goes on                           | goes on                            |
| needs another runtime                    | makes way for a new one           | the same, but when it is free next |
| is gone                                  | is closed                         | leaves: closed when it is free     |
| is there again while it leaves           |                                   | goes on                            |

A new service waits for those that make way, now or when they are free, or leave, and had its port or its
containers: two on one project would stop each other's requests, two on one port could not run.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle.events import Emit
from autostart.lifecycle.service import Service
from autostart.lifecycle.state_file import StateFile
from autostart.runtime.base import Runtime

_OF_THE_RUNTIME = ("runtime", "compose_dir", "containers", "proxy_port")
"""What a runtime is made of: these options cannot change under it."""

_log = logging.getLogger(__name__)


class Fleet:
    """All services; `services` holds those in the configuration, by host name, and stays the same mapping.

    `state` tells the idle clocks and holds that were kept. `on_change` is called whenever `services` or the
    configuration of one of them has changed, in the same step.
    """

    def __init__(
        self,
        make_runtime: Callable[[str, ServiceConfig], Runtime],
        *,
        emit: Emit,
        state: StateFile,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.services: dict[str, Service] = {}
        self._make_runtime = make_runtime
        self._emit = emit
        self._state = state
        self._on_change = on_change
        self._clock = clock
        self._wall = wall
        self._wanted: Mapping[str, ServiceConfig] = {}
        self._leaving: dict[Service, asyncio.Task[None]] = {}
        self._outdated: dict[Service, asyncio.Task[None]] = {}
        self._gone: dict[Service, asyncio.Future[None]] = {}
        """Done once a service has been closed because it left."""
        self._adopting: set[asyncio.Task[None]] = set()

    # --- following a configuration -------------------------------------------------------------------

    def follow(self, wanted: Mapping[str, ServiceConfig]) -> None:
        """Make `services` those of `wanted`, at once; what is new is adopted in the background."""
        self._wanted = wanted
        kept: dict[str, Service] = {}
        for host, config in wanted.items():
            service = self.services.get(host) or self._call_back(host)
            if service is not None:
                is_outdated = _runtime_options(service.config) != _runtime_options(config)
                _reconfigure(service, config, is_outdated=is_outdated)
                if service.is_in_use or not is_outdated:
                    kept[host] = service
                    if is_outdated:
                        self._follow_when_free(service)
        for service in self.services.values():
            if kept.get(service.host) is not service:
                self._leave(service)
        made = {host: self._make(host, config) for host, config in wanted.items() if host not in kept}
        self.services.clear()
        self.services.update({host: kept.get(host) or made[host] for host in wanted})
        for service in made.values():
            self._adopt(service)
        self._on_change()

    def _make(self, host: str, config: ServiceConfig) -> Service:
        loop = asyncio.get_running_loop()
        # Those that are here now: one that comes later waits for this, and this never for itself.
        before = [other for other in (*self._leaving, *self._outdated) if _collide(other.config, config)]
        after = loop.create_task(self._wait_for_place(config, before)) if before else None
        runtime = self._make_runtime(host, config)
        service = Service(
            host, config, runtime, emit=self._emit, clock=self._clock, wall=self._wall, after=after
        )
        self._gone[service] = loop.create_future()
        return service

    async def _wait_for_place(self, config: ServiceConfig, before: Collection[Service]) -> None:
        while ends := [end for other in before if (end := self._end_of(other, config)) is not None]:
            await asyncio.wait(ends)

    def _end_of(self, other: Service, config: ServiceConfig) -> asyncio.Future[None] | None:
        """Return what to wait for before `config` runs: one that is called back after all keeps its port."""
        ending = self._leaving.get(other) or self._outdated.get(other)
        has_port = other.config.proxy_port == config.proxy_port
        return ending or (self._gone.get(other) if has_port else None)

    def _call_back(self, host: str) -> Service | None:
        """Return the service of `host` that leaves but is still in use; it stays."""
        for service, leaving in self._leaving.items():
            if service.host == host and service.is_in_use:
                leaving.cancel()
                del self._leaving[service]
                return service
        return None

    def _follow_when_free(self, service: Service) -> None:
        if service in self._outdated:
            return
        _log.info("service=%s has open requests: its new runtime comes when they have ended", service.host)

        async def follow() -> None:
            await service.drained()
            del self._outdated[service]
            self.follow(self._wanted)

        self._outdated[service] = asyncio.get_running_loop().create_task(follow())

    def _leave(self, service: Service) -> None:
        task = asyncio.get_running_loop().create_task(
            _end(service, Service.retire), name=f"retire {service.host}"
        )
        self._leaving[service] = task

        def forget(task: asyncio.Task[None]) -> None:
            if self._leaving.get(service) is task:  # it was not called back
                del self._leaving[service]
                self._gone.pop(service).set_result(None)

        task.add_done_callback(forget)

    def _adopt(self, service: Service) -> None:
        task = asyncio.get_running_loop().create_task(
            service.adopt(self._state.last_used_s(service.host), self._state.held_until_s(service.host))
        )
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    # --- all together --------------------------------------------------------------------------------

    async def adopted(self, limit_s: float) -> bool:
        """Wait, for `limit_s` seconds at most, until everything was looked at; say whether it was."""
        if self._adopting:
            await asyncio.wait(self._adopting, timeout=limit_s)
        return not self._adopting

    async def drained(self) -> None:
        """Wait until each service, those that leave too, has once been without a lease."""
        for service in (*self.services.values(), *self._leaving):
            await service.drained()

    async def close(self) -> None:
        """Close all services; what cannot be ended is told in the log."""
        services = {*self.services.values(), *self._leaving}
        tasks = {*self._leaving.values(), *self._outdated.values(), *self._adopting}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(_end(service, Service.close) for service in services))


def _runtime_options(config: ServiceConfig) -> dict[str, object]:
    """Return what the runtime of `config` is made of: another one is needed where this is another."""
    return {option: getattr(config, option) for option in _OF_THE_RUNTIME}


def _reconfigure(service: Service, wanted: ServiceConfig, *, is_outdated: bool) -> None:
    """Let `service` take over what needs no other runtime."""
    service.reconfigure(wanted.model_copy(update=_runtime_options(service.config)), is_outdated=is_outdated)


def _collide(one: ServiceConfig, other: ServiceConfig) -> bool:
    """Say whether the two have a port or a project in common."""
    same_project = one.compose_dir is not None and one.compose_dir == other.compose_dir
    return same_project or one.proxy_port == other.proxy_port


async def _end(service: Service, how: Callable[[Service], Awaitable[None]]) -> None:
    try:
        await how(service)
    except RuntimeFailure as failure:
        _log.error("service=%s could not be closed: %s", service.host, failure)
