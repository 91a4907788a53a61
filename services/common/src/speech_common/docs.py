"""`/docs` from files of our own: the usual page loads its script from a CDN, and is blank without the internet."""

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from speech_common.layers import is_open

# The bundle is Swagger UI 4, which shows OpenAPI 3.0 and refuses the framework's default of 3.1.
OPENAPI_VERSION = "3.0.3"
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def install_docs(app: FastAPI, *, has_keys: bool = False) -> None:
    """Add `/docs` to an application made with `docs_url=None, redoc_url=None`, and to its description the need of a key."""
    app.openapi_version = OPENAPI_VERSION
    if has_keys:
        _describe_keys(app)

    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=app.openapi_url or "/openapi.json",
            title=app.title,
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="data:,",
            # Swagger UI otherwise sends the description's address to a validator on the internet.
            swagger_ui_parameters={"validatorUrl": None},
        )

    async def asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise HTTPException(404)
        return FileResponse(_bundle() / name, media_type=_ASSETS[name])

    app.add_api_route("/docs", docs, include_in_schema=False, response_model=None)
    app.add_api_route("/docs/{name}", asset, include_in_schema=False, response_model=None)


def _describe_keys(app: FastAPI) -> None:
    """Have `/openapi.json` say which paths want a Bearer key, so that the page asks for one and generated clients send it."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        description = describe()
        description.setdefault("components", {})["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"}
        }
        description["security"] = [{"key": []}]
        for path, operations in description["paths"].items():
            if is_open(path):
                for operation in operations.values():
                    operation["security"] = []
        return description

    # As the framework's documentation has it.
    app.openapi = described  # type: ignore[method-assign]


def _bundle() -> Path:
    """Find Swagger UI's files without importing the package that carries them."""
    spec = importlib.util.find_spec("swagger_ui_bundle")
    assert spec is not None
    assert spec.submodule_search_locations
    (script,) = Path(spec.submodule_search_locations[0]).glob("vendor/*/swagger-ui-bundle.js")
    return script.parent
