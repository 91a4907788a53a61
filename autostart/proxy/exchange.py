"""One request and what became of it: the facts that the steps of `handler` share.

Owns reading the request's target and host, and turning the outcome into an event. Imports headers, replies,
events, lifecycle and config.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11

from autostart import errors
from autostart.auth import Authenticator, Identity
from autostart.lifecycle import Service
from autostart.proxy import headers as rules
from autostart.proxy.body import Body
from autostart.proxy.events import RequestEnded
from autostart.proxy.replies import Occasion, row_of

CLIENT_GONE = "client_gone"
ANSWER_CUT = "answer_cut"
_CLIENT_GONE_STATUS = 499


@dataclass(frozen=True)
class Route:
    """Where a host name leads. `authenticator` is None where everyone is let in.

    With `forward_credentials`, the caller's Authorization goes on to the service; it always does where there
    is no authenticator, for then it was meant for the service.
    """

    service: Service
    authenticator: Authenticator | None
    forward_credentials: bool = False

    @property
    def passes_authorization(self) -> bool:
        """Say whether the Authorization header goes on to the service."""
        return self.authenticator is None or self.forward_credentials


class Exchange:
    """One request on its way. Made when its headers are there; `ended` tells the world how it went."""

    def __init__(self, request: web.BaseRequest, trusted: rules.TrustedProxies) -> None:
        self.request = request
        self.method = request.method
        self.target = request.raw_path
        self.path = self.target.partition("?")[0]
        self.host = ""
        name = None if request.transport is None else request.transport.get_extra_info("peername")
        # A unix socket's peer has no name, or an empty one.
        self.peer = trusted.peer(str(name[0]) if isinstance(name, tuple) else "unix", request.headers)
        self.request_id = rules.request_id(request.headers, trusted=self.peer.trusted)
        self.is_navigation = rules.is_navigation(self.method, request.headers)

        self.service: Service | None = None
        self.cors: dict[str, str] = {}
        self.body: Body | None = None
        self.identity: Identity | None = None
        self.status = 0
        self.code = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.is_websocket = False
        self.is_cut = False  # by autostart, which stops
        # aiohttp 3.14.5 takes the last trailer of a chunked body for a header of the next request, and loses what was
        # sent behind an upgrade that it does not know: there is no next one.
        self.is_last = "Transfer-Encoding" in request.headers or rules.asks_for_upgrade(request.headers)
        self.is_silent = False  # the waiting page asks every second, which is no news
        self._waited_s = 0.0
        self._failed_auth = False
        self._shows_log = False
        self._begun = time.monotonic()

    @property
    def by(self) -> str:
        """Who asks, for logs and `explain`; no credential, no query."""
        who = f"{self.identity.name}@{self.peer.client}" if self.identity else self.peer.client
        return f"{who} {self.method} {self.path}"

    @property
    def asks_for_websocket(self) -> bool:
        """Say whether a WebSocket is asked for; other upgrades are not offered on (RFC 9110 section 7.8)."""
        request = self.request
        return (
            self.method == "GET"
            and not request.body_exists
            and request.headers.get("Upgrade", "").strip().lower() == "websocket"
            and rules.asks_for_upgrade(request.headers)
        )

    def read_target(self) -> None:
        """Find host, path and target. Raises BadRequest where they, or the body, cannot be told for sure."""
        request = self.request
        version = request._version  # noqa: SLF001 - what `version` has said once it says for ever
        request._version = max(HttpVersion10, min(version, HttpVersion11))  # noqa: SLF001 - what it is answered in
        why = rules.unforwardable(self.method, request.headers, version)
        if why:
            self.is_last = True  # what comes next may be part of what was not understood
            raise errors.BadRequest(why)
        try:
            self.target.encode()
            authority, self.target = rules.split_target(self.target)
        except ValueError as exc:
            self.is_last = True
            raise errors.BadRequest(str(exc)) from exc
        self.path = self.target.partition("?")[0]
        self.host = authority or request.headers["Host"]

    def found(self, route: Route) -> None:
        """Take note of the service that this request is for."""
        self.service = route.service
        self.cors = rules.cors_headers(route.service.config.cors, self.request.headers)
        self._shows_log = route.authenticator is not None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the body of the `with` as waiting for the service."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._waited_s = time.monotonic() - begun

    def refused(self, error: errors.AutostartError) -> Occasion:
        """Take note of the error that ends this request, and return what its reply has to know."""
        row = row_of(error)
        self.status, self.code = row.status, row.code
        self._failed_auth = isinstance(error, errors.Unauthorized | errors.Forbidden)
        service = self.service
        is_for_a_page = self.is_navigation or self.request.headers.get("Sec-Fetch-Mode") == "navigate"
        if service is None:
            return Occasion(self.request_id, html=is_for_a_page)
        # Without authentication the log would be open to everyone who comes along.
        details = service.config.failure_details or ("log" if self._shows_log else "cause")
        return Occasion(
            request_id=self.request_id,
            service=service.host,
            name=service.config.name,
            state=service.state.value,
            details=details,
            html=is_for_a_page,
            headers=self.cors,
        )

    def cut(self) -> None:
        """Take note that the answer broke off: the service's doing, unless the client's body was refused."""
        failure = None if self.body is None else self.body.failure
        self.code = ANSWER_CUT if failure is None else row_of(failure).code

    def left(self) -> None:
        """Take note that the client has gone, or was left by us; for a WebSocket that is how it ends."""
        self.status = self.status or _CLIENT_GONE_STATUS
        why = row_of(errors.ShuttingDown("")).code if self.is_cut else CLIENT_GONE
        self.code = "" if self.is_websocket else why

    def ended(self) -> RequestEnded:
        """Return the event that tells of this request."""
        return RequestEnded(
            service=None if self.service is None else self.service.host,
            request_id=self.request_id,
            method=self.method,
            path=self.path,
            status=self.status,
            code=self.code,
            duration_s=time.monotonic() - self._begun,
            waited_s=self._waited_s,
            bytes_in=self.bytes_in + (0 if self.body is None else self.body.received_bytes),
            bytes_out=self.bytes_out,
            websocket=self.is_websocket,
            client=self.peer.client,
            identity=None if self.identity is None else self.identity.name,
            failed_auth=self._failed_auth,
        )
