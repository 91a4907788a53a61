"""A whole gateway for tests: real sockets on both sides, the real lifecycle, and a runtime that opens a server
in this process when it is started."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle import Service
from autostart.proxy import Proxy, Route
from autostart.proxy.events import RequestEnded
from autostart.proxy.server import Patience
from autostart.runtime.base import Endpoint, Observation, RunState

HOST = "whisper.example.org"
BOTH = ("127.0.0.0/8", "unix")
PATIENCE = Patience(header_s=30.0, keep_alive_s=600.0)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def say_hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


class ServerRuntime:
    """Starts a server of this process; `gate` holds the start up, `failure` makes it fail."""

    def __init__(self, handler: Handler | None, raw: RawHandler | None) -> None:
        self.gate: asyncio.Event | None = None
        self.failure: RuntimeFailure | None = None
        self.starts = 0
        self.connections = 0
        self.endpoint: Endpoint | None = None
        self._handler, self._raw = handler, raw
        self._runner: web.ServerRunner | None = None
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Future] = set()

    def watch(self, listener) -> None:
        pass

    async def observe(self) -> Observation:
        return Observation(RunState.RUNNING if self.endpoint else RunState.STOPPED, self.endpoint)

    async def start(self) -> Endpoint:
        self.starts += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if self.endpoint is None:
            self.endpoint = Endpoint("127.0.0.1", await self._open())
        return self.endpoint

    async def _open(self) -> int:
        if self._raw is not None:
            self._server = await asyncio.start_server(self._serve_raw, "127.0.0.1", 0, backlog=4096)
            return self._server.sockets[0].getsockname()[1]
        server = web.Server(self._handler, handler_cancellation=True, access_log=None, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        return self._runner.addresses[0][1]

    async def _serve_raw(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._raw(reader, writer))
        self._serving.add(task)
        await asyncio.wait({task})
        self._serving.discard(task)
        writer.close()
        if not task.cancelled() and not isinstance(task.exception(), ConnectionError | EOFError | None):
            raise task.exception()

    async def stop(self, method, grace_s: float) -> None:
        await self._shut()

    async def _shut(self) -> None:
        self.endpoint = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._server is not None:
            self._server.close()
            self._server = None
            for task in self._serving:
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def check_health(self) -> None:
        return None

    async def log_tail(self, lines: int) -> list[str]:
        return ["first line", "<last> line"]

    async def close(self) -> None:
        await self._shut()


@dataclass
class Gateway:
    """A running gateway in front of one service at HOST."""

    proxy: Proxy
    service: Service
    runtime: ServerRuntime
    port: int
    unix: str
    session: aiohttp.ClientSession
    events: list = field(default_factory=list)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, method: str = "GET", path: str = "/", *, host: str = HOST, headers=(), **options):
        """Ask as an HTTP client does; use with `async with`."""
        return self.session.request(method, self.url(path), headers=[("Host", host), *headers], **options)

    async def connect(self, *, limit: int = 2**20) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=limit)

    async def say(self, text: str | bytes) -> bytes:
        """Send these bytes and return all that comes back until the connection ends."""
        reader, writer = await self.connect()
        writer.write(text.encode() if isinstance(text, str) else text)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b"(reset)"
        finally:
            writer.close()

    @property
    def ended(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]


def service_config(**options) -> ServiceConfig:
    runtime = {"kind": "process", "command": ["unused"]}
    return ServiceConfig.model_validate(
        {"proxyPort": 1, "runtime": runtime, "idleTimeout": "never"} | options
    )


@contextlib.asynccontextmanager
async def open_gateway(
    handler: Handler | None = say_hello,
    *,
    raw: RawHandler | None = None,
    authenticator=None,
    forward_credentials: bool = False,
    trusted: tuple[str, ...] = BOTH,
    spool_size: int = 2**30,
    patience: Patience = PATIENCE,
    asleep: bool = False,
    start_gate: bool = False,
    address: str = "127.0.0.1",
    **options,
) -> AsyncIterator[Gateway]:
    """Run a gateway for one service; awake unless `asleep` or `start_gate` (which holds its start up).

    `address` is where it listens; the helpers of `Gateway` connect to 127.0.0.1.
    """
    runtime = ServerRuntime(handler, raw)
    events: list = []
    service = Service(HOST, service_config(**options), runtime, emit=lambda event: None)
    with tempfile.TemporaryDirectory() as directory:
        proxy = Proxy(
            {HOST: Route(service, authenticator, forward_credentials)},
            trusted_proxies=trusted,
            spool_dir=Path(directory),
            spool_size=spool_size,
            patience=patience,
            emit=events.append,
        )
        runner = proxy.runner(shutdown_timeout_s=0.2)
        await runner.setup()
        unix = f"{directory}/gateway.sock"
        await web.TCPSite(runner, address, 0, backlog=4096).start()
        await web.UnixSite(runner, unix, backlog=4096).start()
        port = next(address[1] for address in runner.addresses if isinstance(address, tuple))
        if start_gate:
            runtime.gate = asyncio.Event()
        elif not asleep:
            await service.start("the test")
        connector = aiohttp.TCPConnector(limit=0)
        try:
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
                yield Gateway(proxy, service, runtime, port, unix, session, events)
        finally:
            await runner.cleanup()
            await proxy.close()
            await service.close()
            assert Path(directory).is_dir()
            assert not [path for path in Path(directory).iterdir() if path.name != "gateway.sock"]
