"""`/docs` from files of our own: the usual page loads its script from a CDN, and is blank without the internet."""

import importlib.util
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

# The bundle is Swagger UI 4, which shows OpenAPI 3.0 and refuses the framework's default of 3.1.
OPENAPI_VERSION = "3.0.3"
_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


def install_docs(app: FastAPI) -> None:
    """Add `/docs` to an application made with `docs_url=None, redoc_url=None`."""
    app.openapi_version = OPENAPI_VERSION

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


def _bundle() -> Path:
    """Find Swagger UI's files without importing the package that carries them."""
    spec = importlib.util.find_spec("swagger_ui_bundle")
    assert spec is not None
    assert spec.submodule_search_locations
    (script,) = Path(spec.submodule_search_locations[0]).glob("vendor/*/swagger-ui-bundle.js")
    return script.parent
