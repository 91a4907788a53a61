"""The composition root: the only module that knows all the others.

Owns building the program from a configuration, running it, applying a new configuration by difference, and
ending it in order. Everything below is handed what it needs and looks nothing up.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from autostart import log, sites
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
from autostart.proxy.server import Patience
from autostart.runtime.base import Runtime
from autostart.runtime.process import ProcessRuntime
from autostart.words import counted

if TYPE_CHECKING:
    from autostart.runtime.compose import ComposeCommand, Engine

_log = logging.getLogger("autostart")

_FLUSH_LIMIT_S = 1.0
"""How long the last bytes of an answer may take, after its request had `drainTimeout` to end."""

_ADOPTION_LIMIT_S = 2.0
"""How long listening waits for services to be looked at. A request that comes sooner is safe: what runs already
is started without effect; but a service may be told as asleep that is not."""
_LINGER_S = 1.0
"""How long kept connections stay open at the end, for a request that is on its way to be answered."""
_FIXED_OPTIONS = (
    *("listen", "admin", "state_file", "spool_dir", "spool_size", "trusted_proxies"),
    *("header_timeout", "keep_alive_timeout"),
)
"""What a reload leaves as it is."""


class App:
    """The running program.

    `running` is its life: what it enters is left in the opposite order, also when entering fails half-way.
    `cut` ends the draining at its end early.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.config = config
        self._path = path
        self._docker: tuple[Engine, ComposeCommand] | None = None
        self._state = StateFile(config.state_file)
        self._fleet = Fleet(
            self._make_runtime,
            emit=self._on_lifecycle,
            state=self._state,
            on_change=self._route,
        )
        self._authenticators: dict[Auth, Authenticator] = {}
        self._metrics = Metrics(self._fleet.services.values, reconnects=self._reconnects)
        self._notifier = Notifier()
        self._reloading = asyncio.Lock()
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut = asyncio.Event()
        self._proxy = Proxy(
            {},
            trusted_proxies=config.trusted_proxies,
            spool_dir=config.spool_dir,
            spool_size=config.spool_size,
            patience=Patience(config.header_timeout, config.keep_alive_timeout),
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
        stack.push_async_callback(self._state.close)
        stack.push_async_callback(self._proxy.close)
        sockets = listening_sockets()
        for_admin = sockets.pop("admin", [])
        stack.push_async_callback(self._admin.close)
        if not for_admin:
            # First: a second autostart would take the first one's unix sockets in `listen` from it.
            self._admin.claim(self.config.admin.socket)
        runner = self._proxy.runner(_FLUSH_LIMIT_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        # Before the listeners: whoever waits for a start when time is up is told so, and not cut.
        stack.push_async_callback(self._fleet.close)
        stack.push_async_callback(self._end_tasks)
        self._fleet.follow(self.config.services)
        if not await self._fleet.adopted(_ADOPTION_LIMIT_S):
            _log.warning("some services could not be looked at yet: they are told as stopped until then")
        handed_over: list[web.BaseSite] = [
            web.SockSite(runner, sock) for group in sockets.values() for sock in group
        ]
        for site in handed_over:
            await site.start()
        for listening in handed_over or [await sites.listen(runner, at) for at in self.config.listen]:
            _log.info("listening on %s", listening.name)
        # Last, so that who finds the admin socket finds everything else served.
        await self._admin.open(self.config.admin, for_admin)
        for task in (reap(self._fleet.services.values), self._notifier.watch()):
            self._spawn(task)
        stack.push_async_callback(self._drain, runner, has_successor=bool(handed_over))
        self._notifier.ready(counted(len(self._fleet.services), "service"))
        _log.info("ready: %s", counted(len(self._fleet.services), "service"))

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
        return ComposeRuntime(*self._docker, directory, config.containers, config.proxy_port)

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
            if self._is_draining:
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
                _log.info("configuration reloaded: %s", counted(len(self._fleet.services), "service"))
            finally:
                self._notifier.ready(counted(len(self._fleet.services), "service"))

    async def _apply(self, config: Config) -> None:
        for option in _FIXED_OPTIONS:
            if getattr(config, option) != getattr(self.config, option):
                _log.warning("option=%s changed, which takes effect with a restart", option)
        self.config = config
        log.setup(config.log.level)
        self._fleet.follow(config.services)
        await self._fleet.adopted(_ADOPTION_LIMIT_S)

    # --- events --------------------------------------------------------------------------------------

    def _on_lifecycle(self, event: Event) -> None:
        self._metrics.on_lifecycle(event)
        log.log_lifecycle(event)
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

    async def _drain(self, runner: web.BaseRunner, *, has_successor: bool) -> None:
        """Give the open requests their time, and let every answer say that its connection ends.

        With sockets that outlive us, who connects from now on waits for the next autostart, and what comes on
        connections that we have is still answered; without, new requests are refused.
        """
        self._is_draining = True
        self._proxy.ends_connections = True
        if has_successor:
            for site in tuple(runner.sites):
                await site.stop()
        else:
            self._proxy.draining = True
        ended = asyncio.create_task(self._ended(lingers=has_successor))
        cut = asyncio.create_task(self.cut.wait())
        await asyncio.wait(
            {ended, cut}, timeout=self.config.drain_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not ended.done():
            why = "interrupted again" if cut.done() else "drain limit reached"
            _log.warning("%s: open requests are cut", why)
            await self._proxy.sockets.close(_FLUSH_LIMIT_S)
            self._proxy.cut_answers()
        ended.cancel()
        cut.cancel()

    async def _ended(self, *, lingers: bool) -> None:
        """Return once no request is open; with `lingers`, kept connections get a moment to be used once more."""
        await self._fleet.drained()
        if lingers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._proxy.deserted(), _LINGER_S)
            await self._fleet.drained()
