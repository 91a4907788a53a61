"""The outermost layer of a service: a request id on every answer, one log line a request, no traceback outside.

Pure ASGI, so that bodies and streams pass untouched. Never logs content, file names or credentials.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from speech_common.job import LOGGED_OF_ID
from speech_common.replies import ERROR_CODE, REQUEST_ID

_log = logging.getLogger("speech.access")
_FACTS = "speech.facts"
# Without API keys, the id of a job is all that opens its transcript, and logs are read by many.
_JOB_ID = re.compile(rf"(/jobs/[^/]{{{LOGGED_OF_ID}}})[^/]+")
_SAFE_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_QUIET = ("/health", "/metrics")  # asked every few milliseconds during a wake, and every few seconds always
_LEFT = 499  # nginx's number for a client that left; it is only logged and counted


class RequestFacts(NamedTuple):
    """What is counted of a request. `route` is the declared path, or `other` where none was matched."""

    route: str
    status: int
    duration_s: float
    error_code: str | None


Observe = Callable[[RequestFacts], None]


def note(scope: MutableMapping[str, Any], **facts: object) -> None:
    """Add `key=value` to the request's log line, e.g. the seconds of audio. Never content."""
    scope.setdefault(_FACTS, {}).update(facts)


class AccessLog:
    """Wrap an application. A sane `x-request-id` from the caller is kept, so one id runs through all logs."""

    def __init__(self, app: ASGIApp, observe: Observe | None = None) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope[REQUEST_ID] = _request_id(scope)
        began = time.monotonic()
        status = 0
        complete = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _LEFT
            scope.pop(ERROR_CODE, None)  # the answer that the framework made of it went nowhere
        except Exception:
            _log.exception(
                "event=internal_error path=%s request_id=%s", _logged_path(scope["path"]), request_id
            )
            if status and not complete:
                raise  # half an answer is out: only a broken connection tells the client
        finally:
            duration_s = time.monotonic() - began
            level = logging.DEBUG if scope["path"].startswith(_QUIET) else logging.INFO
            if _log.isEnabledFor(level):
                _log.log(level, "%s", _line(scope, status, duration_s, request_id))
            if self._observe is not None:
                # A connection that ended before there was an answer has no status of its own.
                facts = RequestFacts(_route(scope), status or _LEFT, duration_s, scope.get(ERROR_CODE))
                self._observe(facts)


def _line(scope: Scope, status: int, duration_s: float, request_id: str) -> str:
    facts: dict[str, object] = {
        "event": "request",
        "method": scope["method"],
        "path": _logged_path(scope["path"]),
        "status": status,
        "duration_s": f"{duration_s:.3f}",
        **({"error": scope[ERROR_CODE]} if ERROR_CODE in scope else {}),
        **scope.get(_FACTS, {}),
        "request_id": request_id,
    }
    return " ".join(f"{key}={value}" for key, value in facts.items())


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "other"


def _logged_path(path: str) -> str:
    """Return the path as it travels: white space in it would forge lines and `key=value` of the log."""
    return quote(_JOB_ID.sub(r"\1...", path), safe="/:=@!$&'()*+,;~", errors="replace")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _SAFE_ID.fullmatch(given):
                return str(given)
    return uuid.uuid4().hex
