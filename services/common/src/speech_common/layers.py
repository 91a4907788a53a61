"""What stands around the routes of every service: the log, CORS, and the door that asks for a key.

Pure ASGI, so that bodies and streams pass untouched. From the outside in: `AccessLog` (every answer has an id and a
line), CORS (a preflight needs no key, and a browser may read a refusal), then the key, before a byte of the body is
read.
"""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from speech_common.access import AccessLog, Observe
from speech_common.errors import MissingKey, WrongKey
from speech_common.keys import OWNER, ApiKeys
from speech_common.replies import ERROR_CODE, error_body, reply_for, response_for

# What an orchestrator and a person must see before they have a key: nothing in them is anybody's.
_OPEN = ("/health", "/docs", "/openapi.json")
_CORS_REFUSED = "cors_refused"
_EXPOSED = ("location", "preference-applied", "retry-after", "x-request-id", "x-should-retry")


def with_layers(
    app: ASGIApp,
    *,
    keys: ApiKeys | None = None,
    cors_origins: Collection[str] = (),
    observe: Observe | None = None,
) -> ASGIApp:
    """Wrap `app`. `observe` is told of every request that ended (`Metrics.request_ended`)."""
    if keys:
        app = _RequireKey(app, keys)
    if cors_origins:
        app = _Cors(
            app,
            allow_origins=tuple(cors_origins),
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    return AccessLog(app, observe)


class _RequireKey:
    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            scope[OWNER] = self._keys.owner(Headers(scope=scope).getlist("authorization"))
        except (MissingKey, WrongKey) as exc:
            scope[ERROR_CODE] = reply_for(exc).code
            response = response_for(exc)
            # RFC 6750, section 3: the error is named only to who sent a key.
            error = ', error="invalid_token"' if isinstance(exc, WrongKey) else ""
            response.headers["www-authenticate"] = f'Bearer realm="speech"{error}'
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Cors(CORSMiddleware):
    """Starlette's, with refused preflights in the shape of all other errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        body = error_body(bytes(response.body).decode(), "invalid_request_error", None, _CORS_REFUSED)
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return _Refused(body, response.status_code, kept)


class _Refused(JSONResponse):
    """A refused preflight, which is logged and counted as such."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ERROR_CODE] = _CORS_REFUSED
        await super().__call__(scope, receive, send)


def is_open(path: str) -> bool:
    """Tell whether a path needs no key, where keys are configured."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _OPEN)
