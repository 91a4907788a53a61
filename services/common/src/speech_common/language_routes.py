"""`POST /v1/audio/detect-language`. The work is the service's own."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from speech_common.formats import language_body
from speech_common.languages import DetectedLanguage
from speech_common.replies import NO_STORE
from speech_common.schemas import MODEL, form

_SCHEMA: dict[str, Any] = {
    "requestBody": form({"model": MODEL}),
    "responses": {
        "200": {
            "description": "The language that is most probably spoken",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["language", "language_name", "probability", "duration"],
                        "properties": {
                            "language": {"type": "string", "description": "Its code", "example": "fr"},
                            "language_name": {
                                "type": "string",
                                "description": "Its English name",
                                "example": "french",
                            },
                            "probability": {"type": "number", "minimum": 0, "maximum": 1},
                            "duration": {"type": "number", "description": "Seconds of audio looked at"},
                        },
                    }
                }
            },
        }
    },
}


def install_language_route(app: FastAPI, detect: Callable[[Request], Awaitable[DetectedLanguage]]) -> None:
    """Add the route. `detect` reads the request's form, and raises SpeechError."""

    async def detect_language(request: Request) -> JSONResponse:
        return JSONResponse(language_body(await detect(request)), headers=NO_STORE)

    app.add_api_route(
        "/v1/audio/detect-language",
        detect_language,
        methods=["POST"],
        summary="Tell which language is spoken in a recording",
        tags=["audio"],
        response_model=None,
        openapi_extra=_SCHEMA,
        operation_id="detect_language",
    )
