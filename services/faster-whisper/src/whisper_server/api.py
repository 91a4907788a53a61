"""The HTTP face of the server: OpenAI's paths, health and docs. Every answer of an error is made in `speech_common`.

Knows the engine and the framework. Paths are declared with hand-written schemas, because the forms are read by hand
(see `speech_common.forms`) and the framework cannot infer them.
"""

import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from speech_common.access import AccessLog, note
from speech_common.docs import install_docs
from speech_common.errors import UnknownModel
from speech_common.formats import Granularity, ResponseFormat, render
from speech_common.forms import read_form
from speech_common.health import Readiness, install_health_routes
from speech_common.presence import while_connected
from speech_common.replies import install_error_handlers
from starlette.types import ASGIApp

from whisper_server.engine import Engine, EngineState
from whisper_server.fields import transcription_request
from whisper_server.settings import Settings

# Programs written for OpenAI's API ask for this model, whatever the server runs.
_ALIAS = "whisper-1"


def create_app(settings: Settings, engine: Engine) -> ASGIApp:
    """Build the application around an engine, which may still be loading."""
    app = FastAPI(
        title="Whisper API (faster-whisper)",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        # A redirect would lead to http:// even where the caller came by https, and have the file uploaded again.
        redirect_slashes=False,
    )
    started_at = int(time.time())
    names = list(dict.fromkeys([settings.model_name, _ALIAS]))

    def model_body(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": started_at, "owned_by": "autostart"}

    def refuse_unknown_model(name: str | None) -> None:
        if name is not None and name not in names:
            raise UnknownModel(name, names)

    async def answer(request: Request, task: str) -> Response:
        began = time.monotonic()
        async with await read_form(request, settings.max_upload_bytes) as form:
            wanted = transcription_request(form, task=task)
            refuse_unknown_model(wanted.model)
            transcript = await while_connected(request, engine.transcribe(form.file(), wanted.options))
        note(
            request.scope,
            model=settings.model_name,
            language=transcript.language,
            audio_s=f"{transcript.duration_s:.2f}",
            speed=f"{transcript.duration_s / max(time.monotonic() - began, 0.001):.1f}",
        )
        body, content_type = render(transcript, wanted.response_format, wanted.granularities)
        return Response(body, headers={"content-type": content_type})

    async def transcriptions(request: Request) -> Response:
        return await answer(request, "transcribe")

    async def translations(request: Request) -> Response:
        return await answer(request, "translate")

    async def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": [model_body(name) for name in names]})

    async def get_model(name: str) -> JSONResponse:
        refuse_unknown_model(name)
        return JSONResponse(model_body(name))

    def readiness() -> Readiness:
        return Readiness(engine.state is EngineState.READY, engine.state, engine.failure)

    for path, endpoint, summary in (
        ("/v1/audio/transcriptions", transcriptions, "Write down what is said in a recording"),
        ("/v1/audio/translations", translations, "Write down in English what is said in a recording"),
    ):
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            tags=["audio"],
            response_model=None,
            openapi_extra=_REQUEST_SCHEMA,
        )
    app.add_api_route("/v1/models", list_models, tags=["models"], response_model=None)
    app.add_api_route("/v1/models/{name:path}", get_model, tags=["models"], response_model=None)
    install_health_routes(app, readiness)
    install_docs(app)
    install_error_handlers(app)
    return AccessLog(app)


def _field(type_: str, description: str, **more: object) -> dict[str, object]:
    return {"type": type_, "description": description, **more}


_LIST_OF_WORDS = {"items": {"type": "string"}}
_REQUEST_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": _field(
                            "string", "The recording: any common audio or video format", format="binary"
                        ),
                        "model": _field("string", "One of /v1/models", default=_ALIAS),
                        "language": _field("string", "ISO 639-1 code; detected where left out"),
                        "prompt": _field("string", "Text before the recording, to set style and spelling"),
                        "response_format": _field("string", "", enum=list(ResponseFormat), default="json"),
                        "temperature": _field("number", "0 to 1", default=0),
                        "timestamp_granularities[]": _field(
                            "array",
                            "With verbose_json: which lists to return",
                            items={"type": "string", "enum": list(Granularity)},
                        ),
                        "hotwords": _field("string", "Words to listen for"),
                        "keywords[]": _field("array", "The same, as a list", **_LIST_OF_WORDS),
                        "vad_filter": _field("boolean", "Skip stretches without speech", default=False),
                        "beam_size": _field("integer", "1 to 10", default=5),
                        "word_timestamps": _field("boolean", "Time every word", default=False),
                        "task": _field("string", "", enum=["transcribe", "translate"]),
                    },
                },
                # The browser sends one part per element, as the openai SDK does.
                "encoding": {"timestamp_granularities[]": {"explode": True}, "keywords[]": {"explode": True}},
            }
        },
    }
}
