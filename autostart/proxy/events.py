"""What the proxy tells of requests: metrics and the request log listen, nobody answers back.

Imports nothing of ours. Holds no credential and no query string, and `service` is always a host name from
the configuration, never one that a request brought.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WebSocketOpened:
    """A WebSocket was accepted; a `RequestEnded` with `websocket` true follows when it closes."""

    service: str
    request_id: str


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over, one way or the other.

    `status` is what was sent to the client, 499 where it left before there was an answer. `code` is the
    error's code (`replies`; `shutting_down` also where an answer had begun), `client_gone`, `answer_cut`, or empty
    where the service's answer was passed on whole. `waited_s` is the wait for a start, 0 where the service was
    ready. `bytes_in` and `bytes_out` count bodies. `websocket` is true for what was relayed as one.
    """

    service: str | None
    request_id: str
    method: str
    path: str
    status: int
    code: str
    duration_s: float
    waited_s: float
    bytes_in: int
    bytes_out: int
    websocket: bool
    client: str
    identity: str | None
    failed_auth: bool


RequestEvent = WebSocketOpened | RequestEnded
Emit = Callable[[RequestEvent], None]
