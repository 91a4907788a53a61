"""The sequence that every request goes through, and the server that it comes in on.

Owns the order of the steps (DESIGN.md section 4, "A request"): host, quiet, authentication, size, lease, forward,
give back. Each step's own rules live beside it: `headers`, `replies`, `waiting`, `parking`, `http`,
`websocket`. Imports lifecycle, auth, config and errors; never a runtime's implementation.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from aiohttp import web

from autostart import errors
from autostart.auth import Authenticator, Identity
from autostart.config import Service as ServiceConfig
from autostart.config import normalise_host
from autostart.lifecycle import Lease, Service, State
from autostart.proxy import headers as rules
from autostart.proxy.body import Body, let_in
from autostart.proxy.events import Emit, WebSocketOpened
from autostart.proxy.exchange import Exchange, Route
from autostart.proxy.http import Answer, AnswerCut, Passed, Question, Upstream, break_off
from autostart.proxy.parking import Parking
from autostart.proxy.replies import reply
from autostart.proxy.server import Patience, Server
from autostart.proxy.waiting import STATE_PATH, remaining_s, state_reply, waiting_page
from autostart.proxy.websocket import Relay, Sockets

__all__ = ["Proxy", "Route"]

_log = logging.getLogger(__name__)

_READ_BYTES = 2**18

Leasing = contextlib.AbstractAsyncContextManager[Lease]


class Proxy:
    """The gateway: takes requests for the hosts in `routes`, wakes their services, and forwards.

    `routes` is keyed by normalised host name, aliases included, and replaced as a whole on a reload; requests
    that are open keep the service they have. With `ends_connections`, each answer says that its connection ends;
    with `draining`, new requests are refused. `emit` is called when a request has ended, and when a WebSocket was
    opened.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        trusted_proxies: Sequence[str],
        spool_dir: Path,
        spool_size: int,
        patience: Patience,
        emit: Emit,
    ) -> None:
        self.routes = routes
        self.ends_connections = False
        self.draining = False
        self.sockets = Sockets()
        self._passing: dict[Passed, Exchange] = {}
        self._trusted = rules.TrustedProxies(trusted_proxies)
        self._parking = Parking(spool_dir, spool_size)
        self._patience = patience
        self._upstream = Upstream()
        self._emit = emit
        self._server: Server | None = None

    def runner(self, shutdown_timeout_s: float = 5.0) -> web.ServerRunner:
        """Return what sites are put on; call in the loop. A client that leaves cancels its request.

        aiohttp's low-level server: no router stands between, nothing answers `Expect` before its time.
        """
        self._server = Server(
            self._handle,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            patience=self._patience,
        )
        return web.ServerRunner(self._server, shutdown_timeout=shutdown_timeout_s)

    async def deserted(self) -> None:
        """Return once no client is connected."""
        if self._server is not None:
            await self._server.deserted.wait()

    def cut_answers(self) -> None:
        """Tell who waits for an answer; break off those that go on: cancelled, one in HTTP/1.0 would look complete."""
        self._upstream.end()
        for passed, exchange in self._passing.items():
            exchange.is_cut = True
            break_off(exchange.request, passed)

    async def close(self) -> None:
        """Let go of the connections to services; call after the runner's cleanup."""
        await self._parking.close()
        await self._upstream.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request, self._trusted)
        try:
            response = await self._answer(exchange)
        except errors.AutostartError as exc:
            response = reply(exc, exchange.refused(exc))
        except asyncio.CancelledError:
            exchange.left()
            raise
        except Exception:  # noqa: BLE001 - a mistake of ours must not reach a client as a traceback
            _log.exception("request_id=%s a mistake in autostart", exchange.request_id)
            error = errors.AutostartError()
            response = reply(error, exchange.refused(error))
        finally:
            if not exchange.is_silent:
                self._emit(exchange.ended())
        has_unread_body = not request.content.is_eof()
        if has_unread_body:
            let_in(request)  # who is still sending does not hear the answer
        if request.content.exception() is not None:
            request.content.feed_eof()  # or aiohttp reads on, for the rest of a body that broke
        ends_connection = self.draining or self.ends_connections or exchange.is_last
        if not response.prepared and (has_unread_body or ends_connection):
            response.force_close()
        return response

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        exchange.read_target()
        route = self._find_route(exchange)
        service, method, headers = route.service, exchange.method, exchange.request.headers
        if service.config.cors is not None and rules.is_preflight(method, headers):
            return _preflight(exchange)
        asks_for_state = exchange.path == STATE_PATH
        is_quiet = not asks_for_state and rules.is_quiet(method, exchange.path, headers, service.config.quiet)
        if is_quiet and service.state is not State.READY:
            return _answer_quietly(exchange, service)
        if route.authenticator is not None:
            exchange.identity = await _authenticate(route.authenticator, exchange)
            # A password takes its time to check: a reload, a drain or a stop may have come meanwhile.
            route = self._find_route(exchange)
            service = route.service
            if is_quiet and service.state is not State.READY:
                return _answer_quietly(exchange, service)
        if asks_for_state:
            exchange.is_silent = True
            return state_reply(service.snapshot(), exchange.request_id, exchange.cors)
        exchange.body = self._body(exchange, service.config)
        if service.state is not State.READY and not _waits(exchange, service):
            return _answer_at_once(exchange, service)
        leasing = service.lease(exchange.by, counts=not is_quiet)
        if service.state is not State.READY:
            leasing = self._parked(exchange, leasing)
        try:
            async with leasing as lease:
                return await self._forward(exchange, route, lease)
        finally:
            if exchange.body is not None:
                exchange.body.close()

    def _find_route(self, exchange: Exchange) -> Route:
        """Return where the request leads now. Raises UnknownHost, ShuttingDown."""
        route = self.routes.get(normalise_host(exchange.host))
        if route is None:
            raise errors.UnknownHost(exchange.host)
        exchange.found(route)
        if self.draining:
            raise errors.ShuttingDown(route.service.host)
        return route

    def _body(self, exchange: Exchange, config: ServiceConfig) -> Body | None:
        """Return the request's body, None where it has none. Raises BodyTooLarge, BadRequest."""
        request = exchange.request
        expectation = request.headers.get("Expect", "").lower()
        if expectation not in {"", "100-continue"}:
            raise errors.BadRequest(f"the expectation {expectation!r} cannot be met")
        if not request.body_exists:
            return None
        declared_bytes = request.content_length
        if max(declared_bytes or 0, request.content.total_bytes) > config.max_body_size:
            raise errors.BodyTooLarge(config.max_body_size, declared_bytes)
        return Body(request, config.max_body_size, config.body_timeout, self._parking.set_aside)

    @contextlib.asynccontextmanager
    async def _parked(self, exchange: Exchange, leasing: Leasing) -> AsyncIterator[Lease]:
        """Hold a lease that has to be waited for, parked for as long as that takes."""
        async with contextlib.AsyncExitStack() as stack:
            with exchange.waiting():
                if exchange.body is None:
                    lease = await stack.enter_async_context(leasing)
                else:
                    async with self._parking.parked(exchange.body):
                        lease = await stack.enter_async_context(leasing)
            yield lease

    async def _forward(self, exchange: Exchange, route: Route, lease: Lease) -> web.StreamResponse:
        request, config = exchange.request, route.service.config
        assert lease.endpoint is not None, "a lease that was entered has one"
        is_upgrade = exchange.asks_for_websocket
        question = Question(
            service=route.service.host,
            endpoint=lease.endpoint,
            method=exchange.method,
            target=exchange.target,
            headers=rules.to_upstream(
                request.headers,
                host=exchange.host,
                peer=exchange.peer,
                request_id=exchange.request_id,
                credentials=route.passes_authorization,
                upgrade=is_upgrade,
            ),
            body=exchange.body,
            connect_timeout_s=config.connect_timeout,
            response_timeout_s=config.response_timeout,
        )
        async with await self._upstream.ask(question) as answer:
            exchange.status = answer.status
            if is_upgrade and answer.status == 101:
                return await self._relay(exchange, route.service, lease, answer)
            return await self._pass_on(exchange, answer)

    async def _pass_on(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        headers = rules.to_client(answer.headers, request_id=exchange.request_id, extra=exchange.cors)
        passed = Passed(answer, headers)
        has_unread_body = exchange.body is not None and not exchange.body.is_complete
        if self.ends_connections or exchange.is_last or has_unread_body:
            passed.force_close()
        self._passing[passed] = exchange
        try:
            await passed.pass_on(exchange.request)
        except AnswerCut as exc:
            exchange.cut()
            _log.info("request_id=%s the service cut its answer: %s", exchange.request_id, exc)
        except ConnectionError:
            exchange.left()
        finally:
            del self._passing[passed]
            exchange.bytes_out = passed.sent_bytes
        return passed

    async def _relay(
        self, exchange: Exchange, service: Service, lease: Lease, answer: Answer
    ) -> web.StreamResponse:
        headers = rules.to_client(
            answer.headers, request_id=exchange.request_id, extra=exchange.cors, upgrade=True
        )
        relay = Relay(answer, headers)
        try:
            await relay.accept(exchange.request)
        except AnswerCut as exc:
            raise errors.UpstreamFailed(service.host, str(exc)) from exc
        exchange.is_websocket = True
        self._emit(WebSocketOpened(service.host, exchange.request_id))

        def used() -> None:
            if service.state is not State.READY:  # paused: the client has to come anew, and wakes it
                raise ConnectionResetError("the service went to sleep")
            service.used(lease)

        service.used(lease)
        try:
            await self.sockets.run(relay, exchange.request, used)
        finally:
            exchange.bytes_in, exchange.bytes_out = relay.in_bytes, relay.out_bytes
        return relay


def _preflight(exchange: Exchange) -> web.Response:
    """Answer a CORS preflight for the service: it neither wakes nor needs credentials (browsers send none)."""
    service = exchange.service
    assert service is not None
    cors = rules.cors_headers(service.config.cors, exchange.request.headers, preflight=True)
    exchange.status = 204
    return web.Response(
        status=204, headers={"X-Request-Id": exchange.request_id, "Server": "autostart", **cors}
    )


def _answer_quietly(exchange: Exchange, service: Service) -> web.Response:
    """Answer for a service that is not ready without waking it: a monitor on its path, or the error `asleep`."""
    is_monitor = exchange.path == service.config.quiet.monitor_path and exchange.method in {"GET", "HEAD"}
    if not is_monitor or service.state is State.FAILED:
        raise errors.Asleep(service.host)
    exchange.status = 200
    headers = {"X-Request-Id": exchange.request_id, "Server": "autostart", "Cache-Control": "no-store"}
    return web.Response(text="asleep\n", headers={**headers, **exchange.cors})


async def _authenticate(authenticator: Authenticator, exchange: Exchange) -> Identity:
    given = exchange.request.headers.getall("Authorization", [])
    if len(given) > 1:
        raise errors.BadRequest("a request may carry one Authorization header only")
    authorization = given[0] if given else None
    return authenticator.remembered(authorization) or await authenticator.authenticate(authorization)


def _waits(exchange: Exchange, service: Service) -> bool:
    """Say whether this request waits for a start (DESIGN.md section 3, `blocking`)."""
    if service.config.blocking is not None:
        return service.config.blocking
    return not (exchange.method == "GET" and exchange.is_navigation)


def _answer_at_once(exchange: Exchange, service: Service) -> web.Response:
    """Begin the start and do not wait: the waiting page for a person, the error `starting` for a program."""
    service.wake(exchange.by)
    snapshot = service.snapshot()
    error = errors.Starting(service.host, remaining_s(snapshot))
    if not (exchange.method == "GET" and exchange.is_navigation):
        raise error
    exchange.refused(error)
    return waiting_page(snapshot, exchange.request_id, exchange.cors)
