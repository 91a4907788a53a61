"""`GET /v1/models` and `GET /v1/models/{name}`, as OpenAI's API has them."""

import time

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from speech_common.models.registry import Registry
from speech_common.models.served import Served


def install_model_routes(app: FastAPI, registry: "Registry[Served]") -> None:
    """Add the routes, in threads of the framework's, as both look at directories."""
    started_at = int(time.time())

    def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": list(_bodies(registry).values())})

    def get_model(name: str) -> JSONResponse:
        registry.resolve(name)
        return JSONResponse(_bodies(registry).get(name) or _body(name, started_at))

    app.add_api_route("/v1/models", list_models, tags=["models"], response_model=None)
    app.add_api_route("/v1/models/{name:path}", get_model, tags=["models"], response_model=None)


def _bodies(registry: "Registry[Served]") -> dict[str, dict[str, object]]:
    listed = registry.names()
    return {name: _body(name, info.created) for info in listed for name in (info.name, *info.aliases)}


def _body(name: str, created: int) -> dict[str, object]:
    return {"id": name, "object": "model", "created": created, "owned_by": "autostart"}
