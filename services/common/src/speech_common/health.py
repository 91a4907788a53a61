"""`/health/live` and `/health/ready`, the same for every service."""

from collections.abc import Callable
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.responses import JSONResponse


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
        return JSONResponse(body, 200 if now.ready else 503, {"cache-control": "no-store"})

    methods = ["GET", "HEAD"]
    for path, endpoint, summary in (
        ("/health/live", live, "200 as soon as the process answers"),
        ("/health/ready", ready, "200 only when a recording can be transcribed, else 503 with the reason"),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=methods,
            summary=summary,
            tags=["health"],
            response_model=None,
            operation_id=endpoint.__name__,
        )
