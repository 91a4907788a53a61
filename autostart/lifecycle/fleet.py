"""The services of a configuration, and how one configuration follows another: by difference (promise 9).

Owns every service from its making to its end. Knows how to make a runtime only by the function it is given.

| a service whose configuration            | idle                              | with open requests                 |
|------------------------------------------|-----------------------------------|------------------------------------|
| is the same, or needs no other runtime   | goes on                           | goes on                            |
| needs another runtime                    | makes way for a new one           | the same, but when it is free next |
| is gone                                  | is closed                         | leaves: closed when it is free     |
| is there again while it leaves           |                                   | goes on                            |

A new service waits for those that make way, now or when they are free, or leave, and had its port or its
containers: two on one project would stop each other's requests, two on one port could not run. A service that
has its compose project no longer for itself, or again, needs another runtime too: alone, it stops all of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from weakref import WeakKeyDictionary

from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle.events import Emit
from autostart.lifecycle.service import Service
from autostart.lifecycle.state_file import StateFile
from autostart.runtime.base import Runtime

_OF_THE_RUNTIME = ("runtime", "compose_dir", "containers", "proxy_port")
"""What a runtime is made of: these options cannot change under it."""
_MadeOf = tuple[object, ...]

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
    ) -> None:
        self.services: dict[str, Service] = {}
        self._make_runtime = make_runtime
        self._emit = emit
        self._state = state
        self._on_change = on_change
        self._wanted: Mapping[str, ServiceConfig] = {}
        self._leaving: dict[Service, asyncio.Task[None]] = {}
        self._outdated: dict[Service, asyncio.Task[None]] = {}
        self._adopting: set[asyncio.Task[None]] = set()
        self._made_of: WeakKeyDictionary[Service, _MadeOf] = WeakKeyDictionary()

    # --- following a configuration -------------------------------------------------------------------

    def follow(self, wanted: Mapping[str, ServiceConfig]) -> None:
        """Make `services` those of `wanted`, at once; what is new is adopted in the background."""
        self._wanted = wanted
        made_of = {host: _made_of(config, wanted.values()) for host, config in wanted.items()}
        kept: dict[str, Service] = {}
        for host, config in wanted.items():
            service = self.services.get(host) or self._call_back(host)
            if service is not None:
                is_outdated = self._made_of[service] != made_of[host]
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
            self._made_of[service] = made_of[service.host]
            self._adopt(service)
        self._on_change()

    def _make(self, host: str, config: ServiceConfig) -> Service:
        after = None
        if self._in_the_way(config):
            after = asyncio.get_running_loop().create_task(self._wait_for_place(config))
        return Service(host, config, self._make_runtime(host, config), emit=self._emit, after=after)

    def _in_the_way(self, config: ServiceConfig) -> set[asyncio.Task[None]]:
        """Return what ends with the services that make way or leave, and have the port or the project of `config`."""
        ending = (*self._leaving.items(), *self._outdated.items())
        return {task for service, task in ending if _collide(service.config, config)}

    async def _wait_for_place(self, config: ServiceConfig) -> None:
        while before := self._in_the_way(config):  # what is outdated leaves after that
            await asyncio.wait(before)

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


def _made_of(config: ServiceConfig, everybody: Iterable[ServiceConfig]) -> _MadeOf:
    """Return what the runtime of `config` depends on: another one is needed where this is another."""
    directory = config.compose_dir
    has_neighbours = directory is not None and sum(other.compose_dir == directory for other in everybody) > 1
    return *(getattr(config, option) for option in _OF_THE_RUNTIME), has_neighbours


def _reconfigure(service: Service, wanted: ServiceConfig, *, is_outdated: bool) -> None:
    """Let `service` take over what needs no other runtime."""
    of_the_runtime = {option: getattr(service.config, option) for option in _OF_THE_RUNTIME}
    service.reconfigure(wanted.model_copy(update=of_the_runtime), is_outdated=is_outdated)


def _collide(one: ServiceConfig, other: ServiceConfig) -> bool:
    """Say whether the two have a port or a project in common."""
    same_project = one.compose_dir is not None and one.compose_dir == other.compose_dir
    return same_project or one.proxy_port == other.proxy_port


async def _end(service: Service, how: Callable[[Service], Awaitable[None]]) -> None:
    try:
        await how(service)
    except RuntimeFailure as failure:
        _log.error("service=%s could not be closed: %s", service.host, failure)
