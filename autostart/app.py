"""The composition root: the only module that knows all the others.

Owns building the program from a configuration, running it, applying a new configuration by difference, and
ending it in order. Everything below is handed what it needs and looks nothing up.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from autostart import log
from autostart.admin.server import AdminServer
from autostart.auth import Authenticator
from autostart.config import Auth, Config, load
from autostart.config import Service as ServiceConfig
from autostart.errors import AutostartError, ConfigError, ShuttingDown
from autostart.lifecycle.events import Event
from autostart.lifecycle.fleet import Fleet
from autostart.lifecycle.reaper import reap
from autostart.lifecycle.state_file import StateFile
from autostart.metrics import Metrics
from autostart.notify import Notifier, listening_sockets
from autostart.proxy.events import RequestEvent
from autostart.proxy.handler import Proxy, Route
from autostart.runtime.base import Runtime
from autostart.runtime.process import ProcessRuntime

if TYPE_CHECKING:
    from autostart.runtime.compose import ComposeCommand, Engine

_log = logging.getLogger("autostart")

_ADOPTION_LIMIT_S = 2.0
"""How long listening waits for services to be looked at. A request that comes sooner is safe: what runs already
is started without effect; but a service may be told as asleep that is not."""


def serve(config_path: Path) -> int:
    """Run autostart until SIGTERM or SIGINT and return the exit code; 2 for a broken configuration."""
    try:
        config = load(config_path)
    except ConfigError as exc:
        log.setup("info")
        for problem in exc.problems:
            _log.error("%s: %s", exc.path, problem)
        return 2
    log.setup(config.log.level)
    _raise_file_limit()
    try:
        return uvloop.run(_serve(config_path, config))
    except AutostartError as exc:
        _log.error("%s", exc)
        return 1
    except OSError as exc:
        _log.error("cannot serve: %s", exc)
        return 1


async def _serve(path: Path, config: Config) -> int:
    app = App(path, config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, app.reload_soon)
    async with app.running():
        # What was made so far lives as long as the program: measured p99 13-18 ms before, 4-10 ms after.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        await stop.wait()
        _log.info("stopping: draining for at most %g s", app.config.drain_timeout)
    return 0


class App:
    """The running program.

    `running` is its life: what it enters is left in the opposite order, also when entering fails half-way.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.config = config
        self._projects = _count_projects(config)
        self._path = path
        self._docker: tuple[Engine, ComposeCommand] | None = None
        self._state = StateFile(config.state_file) if config.state_file else None
        self._fleet = Fleet(
            self._make_runtime,
            emit=self._on_lifecycle,
            last_used_s=self._state.last_used_s if self._state else lambda _: None,
            on_change=self._route,
        )
        self._authenticators: dict[Auth, Authenticator] = {}
        self._metrics = Metrics(self._fleet.services.values, reconnects=self._reconnects)
        self._notifier = Notifier()
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._proxy = Proxy(
            {},
            trusted_proxies=config.trusted_proxies,
            spool_dir=config.spool_dir,
            spool_size=config.spool_size,
            emit=self._on_request,
        )
        self._admin = AdminServer(
            services=self._fleet.services,
            aliases=self._aliases,
            metrics=self._metrics.render,
            reload=self.reload,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve for the body of the `async with`; then drain and let go. Raises OSError, AutostartError."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._reloading:  # a SIGHUP that comes now is next
                await self._open(stack)
            yield
            self._notifier.stopping()

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        stack.push_async_callback(self._close_docker)
        if self._state is not None:
            stack.push_async_callback(self._state.close)
        stack.push_async_callback(self._fleet.close)
        stack.push_async_callback(self._proxy.close)
        sockets = listening_sockets()
        runner = self._proxy.runner()
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(self._end_tasks)
        for_admin = sockets.pop("admin", [])
        self._fleet.follow(self.config.services)
        if not await self._fleet.adopted(_ADOPTION_LIMIT_S):
            _log.warning("some services could not be looked at yet: they are told as stopped until then")
        for site in _sites(runner, self.config.listen, [s for group in sockets.values() for s in group]):
            await site.start()
            _log.info("listening on %s", site.name)
        # Last, so that who finds the admin socket finds everything else served.
        await self._admin.open(self.config.admin, for_admin)
        stack.push_async_callback(self._admin.close)
        for task in (reap(self._fleet.services.values), self._notifier.watch()):
            self._spawn(task)
        stack.push_async_callback(self._drain)
        self._notifier.ready(f"{len(self._fleet.services)} services")
        _log.info("ready: %d services", len(self._fleet.services))

    # --- services ------------------------------------------------------------------------------------

    def _make_runtime(self, host: str, config: ServiceConfig) -> Runtime:
        if config.runtime.kind == "process":
            runtime = config.runtime
            return ProcessRuntime(runtime.command, runtime.cwd, runtime.env, config.proxy_port, label=host)
        # Docker's SDK takes 6 MB of memory, which those who need no Docker need not have.
        from autostart.runtime.compose import ComposeCommand, ComposeRuntime, Engine  # noqa: PLC0415

        if self._docker is None:
            engine = Engine()
            self._docker = engine, ComposeCommand(engine.address)
        directory = config.compose_dir
        assert directory is not None, "the model requires it"
        return ComposeRuntime(
            *self._docker,
            directory,
            config.containers,
            config.proxy_port,
            is_alone=self._projects[directory] == 1,
        )

    def _reconnects(self) -> int:
        return self._docker[0].reconnects if self._docker else 0

    async def _close_docker(self) -> None:
        if self._docker is not None:
            await self._docker[0].close()

    def _aliases(self) -> dict[str, str]:
        return {
            alias: host for host, service in self._fleet.services.items() for alias in service.config.aliases
        }

    def _route(self) -> None:
        """Let requests find the services that there are from now on."""
        routes: dict[str, Route] = {}
        authenticators: dict[Auth, Authenticator] = {}
        for host, service in self._fleet.services.items():
            authenticator = None
            if auth := self.config.auth_for(service.config):
                # One for the same rules, kept over a reload: it remembers the passwords that it verified.
                authenticator = (
                    authenticators.get(auth) or self._authenticators.get(auth) or Authenticator(auth)
                )
                authenticators[auth] = authenticator
            route = Route(service, authenticator, bool(auth and auth.forward_credentials))
            routes |= dict.fromkeys((host, *service.config.aliases), route)
        self._authenticators = authenticators
        self._proxy.routes = routes

    # --- reload --------------------------------------------------------------------------------------

    def reload_soon(self) -> None:
        """Reload, for SIGHUP: what is wrong is told in the log."""

        async def reload() -> None:
            with contextlib.suppress(AutostartError):
                await self.reload()

        self._spawn(reload())

    async def reload(self) -> None:
        """Apply the configuration file by difference.

        Raises ConfigError, and the old one stays; ShuttingDown, for what is drained takes nothing new.
        """
        async with self._reloading:
            if self._proxy.draining:
                raise ShuttingDown("")
            self._notifier.reloading()
            try:
                await self._apply(load(self._path))
            except ConfigError as exc:
                self._metrics.on_reload(ok=False)
                _log.error("configuration not reloaded, the old one stays: %s", exc)
                raise
            else:
                self._metrics.on_reload(ok=True)
                _log.info("configuration reloaded: %d services", len(self._fleet.services))
            finally:
                self._notifier.ready(f"{len(self._fleet.services)} services")

    async def _apply(self, config: Config) -> None:
        for option in ("listen", "admin", "state_file", "spool_dir", "spool_size", "trusted_proxies"):
            if getattr(config, option) != getattr(self.config, option):
                _log.warning("option=%s changed, which takes effect with a restart", option)
        self.config = config
        self._projects = _count_projects(config)
        log.setup(config.log.level)
        self._fleet.follow(config.services)
        await self._fleet.adopted(_ADOPTION_LIMIT_S)

    # --- events --------------------------------------------------------------------------------------

    def _on_lifecycle(self, event: Event) -> None:
        self._metrics.on_lifecycle(event)
        log.log_lifecycle(event)
        if self._state is not None:
            self._state.on_event(event)

    def _on_request(self, event: RequestEvent) -> None:
        self._metrics.on_request(event)
        if self.config.log.requests:
            log.log_request(event)

    # --- tasks ---------------------------------------------------------------------------------------

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self) -> None:
        """Refuse new requests and give the open ones their time."""
        self._proxy.draining = True
        try:
            async with asyncio.timeout(self.config.drain_timeout):
                await self._fleet.drained()
        except TimeoutError:
            _log.warning("drain limit reached: open requests are cut")


def _count_projects(config: Config) -> Counter[Path | None]:
    """Count the services of each compose directory: one that has it alone stops all of its containers."""
    return Counter(service.compose_dir for service in config.services.values())


def _sites(
    runner: web.BaseRunner, addresses: Iterable[str], handed_over: list[socket.socket]
) -> Iterable[web.BaseSite]:
    if handed_over:
        return [web.SockSite(runner, sock) for sock in handed_over]
    sites: list[web.BaseSite] = []
    for address in addresses:
        if address.startswith("unix:"):
            sites.append(web.UnixSite(runner, address.removeprefix("unix:")))
        else:
            host, _, port = address.rpartition(":")
            sites.append(web.TCPSite(runner, host.strip("[]"), int(port), backlog=2048))
    return sites


def _raise_file_limit() -> None:
    """Allow as many open files as we may: each waiting request holds one or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
