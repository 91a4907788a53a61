"""The local API on its unix socket, and the metrics listener.

Owns who is served where; what is answered is in `facts` and `replies`. The unix socket does everything and is
private by its mode; the TCP listener knows `/metrics` and `/health/live` and nothing else.
"""

import asyncio
import json
import logging
import pwd
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from autostart import sites
from autostart.admin import facts, listen
from autostart.admin.lookup import find
from autostart.admin.replies import TOLD, InvalidRequest, reply
from autostart.config.models import Admin
from autostart.lifecycle import Service, State
from autostart.log import log_action
from autostart.metrics import CONTENT_TYPE
from autostart.version import version

_log = logging.getLogger(__name__)

_MOST_BODY_BYTES = 16 * 1024
_CLOSE_LIMIT_S = 2.0
"""How long an answer under way may take when autostart ends."""
_LONGEST_HOLD_S = 366 * 86400.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """Both listeners: `open` once, `close` once.

    `services` are those of the configuration in use, by host name; `aliases` leads from other names to these.
    """

    def __init__(
        self,
        *,
        services: Mapping[str, Service],
        aliases: Callable[[], Mapping[str, str]],
        metrics: Callable[[], bytes],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        self._services = services
        self._aliases = aliases
        self._metrics = metrics
        self._reload = reload
        self._began = time.monotonic()
        self._runners: list[web.AppRunner] = []
        self._own: tuple[Path, socket.socket, tuple[int, int]] | None = None
        self._claim: listen.Claim | None = None

    def claim(self, path: Path) -> None:
        """Make sure that no other autostart serves at `path`, or will before `close`. Raises SocketUnusable."""
        self._claim = listen.Claim(path)

    async def open(self, config: Admin, handed_over: Iterable[socket.socket] = ()) -> None:
        """Serve on `config.socket`, or on the sockets handed over in its place, and on `config.metrics`.

        Raises OSError with a message that names the address; nothing is left open then.
        """
        try:
            await self._open(config, list(handed_over))
        except BaseException:
            await self.close()
            raise

    async def _open(self, config: Admin, sockets: list[socket.socket]) -> None:
        if not sockets and self._claim is None:
            self.claim(config.socket)
        if config.metrics is not None:
            await sites.listen(await self._run(self._public()), config.metrics)
        # Last, so that who finds the socket finds everything else served.
        if not sockets:
            sock = listen.open_private(config.socket)
            self._own = config.socket, sock, listen.identify(config.socket)
            sockets = [sock]
        runner = await self._run(self._api())
        for sock in sockets:
            await web.SockSite(runner, sock).start()

    async def close(self) -> None:
        """Stop serving; the socket's file goes first, so that nobody new comes."""
        if self._own is not None:
            path, _, identity = self._own
            listen.remove(path, identity)
        for runner in reversed(self._runners):
            await runner.cleanup()
        self._runners.clear()
        if self._own is not None:
            self._own[1].close()
            self._own = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def _run(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_LIMIT_S)
        self._runners.append(runner)
        await runner.setup()
        return runner

    def _api(self) -> web.Application:
        app = web.Application(middlewares=[_tell_errors], client_max_size=_MOST_BODY_BYTES)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/services", self._list),
                web.get("/v1/services/{service}", self._show),
                web.get("/v1/services/{service}/explain", self._explain),
                web.post("/v1/services/{service}/start", self._start),
                web.post("/v1/services/{service}/stop", self._stop),
                web.post("/v1/services/{service}/hold", self._hold),
                web.post("/v1/reload", self._do_reload),
            ]
        )
        return app

    def _public(self) -> web.Application:
        app = web.Application(client_max_size=0)
        app.add_routes([web.get("/metrics", self._show_metrics), web.get("/health/live", _live)])
        return app

    # --- what is asked -------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        up_s = time.monotonic() - self._began
        return _json({"status": "ok", "version": version(), "up_s": up_s, "services": len(self._services)})

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _list(self, _: web.Request) -> web.Response:
        told = [
            facts.service_facts(service.snapshot(), service.config) for service in self._services.values()
        ]
        return _json({"now_s": time.time(), "services": told})

    async def _show(self, request: web.Request) -> web.Response:
        return _json(_told(self._find(request)))

    async def _explain(self, request: web.Request) -> web.Response:
        service = self._find(request)
        sentences = facts.explain(service.snapshot(), service.config, time.time())
        return _json({"explanation": sentences, **_told(service)})

    # --- what is done --------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.Response:
        service = self._find(request)
        was_ready = service.state is State.READY
        await service.start(await _caller(request))
        return _json({"was_ready": was_ready, **_told(service)})

    async def _stop(self, request: web.Request) -> web.Response:
        service = self._find(request)
        force = (await _body(request)).get("force", False)
        if not isinstance(force, bool):
            raise InvalidRequest("force is true or false", "force")
        log_action("stop_asked", service.host, await _caller(request), force=force)
        await service.stop(force=force)
        return _json(_told(service))

    async def _hold(self, request: web.Request) -> web.Response:
        service = self._find(request)
        for_s = (await _body(request)).get("for_s")
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 <= for_s <= _LONGEST_HOLD_S:
            raise InvalidRequest("for_s is a number of seconds, at most a year; 0 ends a hold", "for_s")
        log_action("held" if for_s else "released", service.host, await _caller(request), for_s=for_s or None)
        service.hold(for_s)
        return _json(_told(service))

    async def _do_reload(self, request: web.Request) -> web.Response:
        _log.info("reload asked for by %s", await _caller(request))
        await self._reload()
        return _json({"services": len(self._services)})

    def _find(self, request: web.Request) -> Service:
        return self._services[find(request.match_info["service"], self._services, self._aliases())]


@web.middleware
async def _tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except TOLD as exc:
        status, body = reply(exc)
    except web.HTTPException as exc:
        status, body = exc.status, reply(InvalidRequest(exc.reason))[1]
    except Exception as exc:  # noqa: BLE001 - a mistake of ours is told as such, not as aiohttp's page
        _log.exception("the local API failed at %s %s", request.method, request.path)
        status, body = reply(exc)
    return _json(body, status)


async def _live(_: web.Request) -> web.Response:
    return _json({"status": "ok"})


def _told(service: Service) -> facts.Json:
    return {"now_s": time.time(), **facts.service_facts(service.snapshot(), service.config)}


def _json(body: facts.Json, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})


async def _body(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that was sent, an empty one where nothing was. Raises InvalidRequest."""
    text = await request.read()
    try:
        body = json.loads(text) if text.strip() else {}
    except ValueError as exc:  # UnicodeDecodeError is one
        raise InvalidRequest("the body is not JSON") from exc
    if not isinstance(body, dict):
        raise InvalidRequest("the body is not a JSON object")
    return body


async def _caller(request: web.Request) -> str:
    """Say who is at the other end of the unix socket, as the kernel knows it (SO_PEERCRED, unix(7))."""
    if request.transport is None:  # left already; what was asked is done all the same
        return "the command line"
    sock: socket.socket = request.transport.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    try:
        # The name may come from a directory server.
        user = (await asyncio.to_thread(pwd.getpwuid, uid)).pw_name
    except KeyError:
        user = f"user {uid}"
    return f"{user} on the command line"
