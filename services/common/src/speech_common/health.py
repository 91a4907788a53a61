"""`/health/live` and `/health/ready`, the same for every service."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from speech_common.replies import NO_STORE


class Readiness(NamedTuple):
    """Whether a request would be served now, and what is in the way if not."""

    ready: bool
    status: str
    reason: str | None = None


def install_health_routes(app: FastAPI, readiness: Callable[[], Readiness]) -> None:
    """Add the routes. Ready is 200 only while `readiness()` says so, else 503 with the reason."""

    async def live() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def ready() -> JSONResponse:
        now = readiness()
        body = {"status": now.status} | ({"reason": now.reason} if now.reason else {})
        return JSONResponse(body, 200 if now.ready else 503, NO_STORE)

    add_look(app, "/health/live", live, "200 as soon as the process answers")
    add_look(
        app,
        "/health/ready",
        ready,
        "200 only when a recording can be transcribed, else 503 with the reason",
    )


def add_look(app: FastAPI, path: str, endpoint: Callable[[], Awaitable[Response]], summary: str) -> None:
    """Add a path for probes: by GET, and by HEAD, which the description leaves out (it would have the same id)."""
    for method in ("GET", "HEAD"):
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            tags=["health"],
            response_model=None,
            operation_id=endpoint.__name__,
            include_in_schema=method == "GET",
        )
