"""The one table that turns errors into what a caller is told: status, code, type, facts and headers.

Owns the shape of every answer that is autostart's own: JSON as the OpenAI clients read it, HTML for a
person's browser. Imports errors, config, headers and lifecycle's names.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Literal

from aiohttp import web

from autostart import errors

Details = Literal["none", "cause", "log"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is told of one class of errors. `kind` is the `type` of the OpenAI shape."""

    status: int
    code: str
    kind: str = "server_error"
    title: str = "Something went wrong"
    repeat: bool = True
    """False tells the OpenAI SDK not to try again: it would upload the file twice more."""


_REFUSED = "invalid_request_error"

TABLE: Mapping[type[errors.AutostartError], Row] = {
    errors.UnknownHost: Row(404, "unknown_host", _REFUSED, "Nothing here"),
    errors.Unauthorized: Row(401, "unauthorized", "authentication_error", "Please log in"),
    errors.Forbidden: Row(403, "forbidden", "permission_error", "Not allowed"),
    errors.BodyTooLarge: Row(413, "body_too_large", _REFUSED, "Too large"),
    errors.BadRequest: Row(400, "bad_request", _REFUSED, "Not understood"),
    errors.HeadersTooLarge: Row(431, "headers_too_large", _REFUSED, "Too large"),
    errors.HeaderTimeout: Row(408, "header_timeout", _REFUSED, "Too slow"),
    errors.BodyTimeout: Row(408, "body_timeout", _REFUSED, "Too slow"),
    errors.StartFailed: Row(503, "start_failed", title="The service could not be started", repeat=False),
    errors.StartHeldOff: Row(503, "start_held_off", title="The service could not be started"),
    errors.StartTimeout: Row(504, "start_timeout", title="The service is still starting"),
    errors.Starting: Row(503, "starting", title="The service is starting"),
    errors.Asleep: Row(503, "asleep", title="The service is asleep"),
    errors.ShuttingDown: Row(503, "shutting_down", title="Back in a moment"),
    errors.InUse: Row(409, "in_use", title="The service is in use"),
    errors.UpstreamFailed: Row(502, "upstream_failed", title="The service did not answer"),
    errors.UpstreamTimeout: Row(504, "upstream_timeout", title="The service did not answer"),
    # Never meant for a request: the lifecycle wraps them. Here so that nothing falls through.
    errors.RuntimeFailure: Row(503, "runtime_failed"),
    errors.ConfigError: Row(500, "config_invalid"),
    errors.AutostartError: Row(500, "internal_error"),
}


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a reply has to know beside the error. `service` and `state` are None where no service was found."""

    request_id: str
    service: str | None = None
    name: str = ""
    state: str | None = None
    details: Details = "cause"
    html: bool = False
    headers: Mapping[str, str] | None = None
    """Added as they are: CORS."""


def row_of(error: errors.AutostartError) -> Row:
    """Return the table's row for this error: that of its class, else of the nearest class above it."""
    return next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)


def reply(error: errors.AutostartError, occasion: Occasion) -> web.Response:
    """Return the answer that tells of `error`."""
    row = row_of(error)
    message = _message(error, occasion.details)
    retry_after_s = _whole_seconds(getattr(error, "retry_after_s", None))
    facts = _facts(error, occasion.details)
    headers = {
        "X-Request-Id": occasion.request_id,
        "Server": "autostart",
        "Cache-Control": "no-store",
        **(occasion.headers or {}),
    }
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    if not row.repeat:
        headers["x-should-retry"] = "false"
    if occasion.html:
        text, content_type = _page(row, message, facts, occasion), "text/html"
        headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    else:
        text, content_type = _json(row, message, facts, occasion, retry_after_s), "application/json"
    response = web.Response(status=row.status, text=text, content_type=content_type, headers=headers)
    if isinstance(error, errors.Unauthorized):
        realm = error.realm.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("WWW-Authenticate", f'Basic realm="{realm}", charset="UTF-8"')
        response.headers.add("WWW-Authenticate", f'Bearer realm="{realm}"')
    return response


def _whole_seconds(seconds: float | None) -> int | None:
    return None if seconds is None or math.isinf(seconds) else max(1, math.ceil(seconds))


def _message(error: errors.AutostartError, details: Details) -> str:
    if isinstance(error, errors.RuntimeFailure | errors.ConfigError) or type(error) is errors.AutostartError:
        return "autostart could not do this; its log says why"
    if isinstance(error, errors.StartFailed | errors.StartHeldOff) and details == "none":
        return "the service could not be started"
    return str(error)


def _facts(error: errors.AutostartError, details: Details) -> dict[str, Any]:
    match error:
        case errors.StartFailed() | errors.StartHeldOff() if details != "none":
            failure = error.failure
            facts: dict[str, Any] = {"cause": failure.cause.value, "hint": failure.hint or None}
            exit_code = getattr(failure, "exit_code", None)
            if exit_code is not None:
                facts["exit_code"] = exit_code
            if details == "log":
                facts["log_tail"] = list(failure.log_tail)
            return facts
        case errors.StartTimeout() | errors.UpstreamTimeout():
            return {"waited_s": round(error.waited_s, 3)}
        case errors.BodyTooLarge():
            return {"limit_bytes": error.limit_bytes, "declared_bytes": error.declared_bytes}
        case errors.HeadersTooLarge():
            return {"limit_bytes": error.limit_bytes}
        case errors.HeaderTimeout() | errors.BodyTimeout():
            return {"limit_s": error.limit_s}
        case errors.InUse():
            return {"leases": error.leases}
        case _:
            return {}


def _json(
    row: Row, message: str, facts: Mapping[str, Any], occasion: Occasion, retry_after_s: int | None
) -> str:
    return json.dumps(
        {
            "error": {"message": message, "type": row.kind, "param": None, "code": row.code},
            "service": occasion.service,
            "state": occasion.state,
            "retry_after_s": retry_after_s,
            "request_id": occasion.request_id,
            **facts,
        }
    )


_ERROR_PAGE = Template(files("autostart.proxy").joinpath("error.html").read_text("utf-8"))


def _page(row: Row, message: str, facts: Mapping[str, Any], occasion: Occasion) -> str:
    paragraphs = [f"<p>{escape(message[:1].upper() + message[1:])}.</p>"]
    if facts.get("hint"):
        paragraphs.append(f"<p>For the administrator: {escape(facts['hint'])}.</p>")
    if facts.get("log_tail"):
        paragraphs.append(f"<pre>{escape(chr(10).join(facts['log_tail']))}</pre>")
    return _ERROR_PAGE.substitute(
        title=escape(row.title),
        name=escape(occasion.name or occasion.service or ""),
        body="\n".join(paragraphs),
        code=escape(row.code),
        request_id=escape(occasion.request_id),
    )
