"""`POST /transcribe` and `GET /health`, as meeting applications ask for them. The work is the service's own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from speech_common.formats import meeting_body
from speech_common.health import add_look
from speech_common.replies import NO_STORE
from speech_common.schemas import LANGUAGE, MODEL, form
from speech_common.transcript import Transcript

_SCHEMA: dict[str, Any] = {"requestBody": form({"language": LANGUAGE, "model": MODEL})}


def install_meeting_route(app: FastAPI, transcribe: Callable[[Request], Awaitable[Transcript]]) -> None:
    """Add `POST /transcribe`. `transcribe` reads the request's form, and raises SpeechError."""

    async def meeting(request: Request) -> JSONResponse:
        transcript = await transcribe(request)
        # In a thread: hours of segments take a second, and the others would wait.
        return await asyncio.to_thread(lambda: JSONResponse(meeting_body(transcript), headers=NO_STORE))

    app.add_api_route(
        "/transcribe",
        meeting,
        methods=["POST"],
        summary="Write down what is said in a recording, for meeting applications",
        tags=["audio"],
        response_model=None,
        openapi_extra=_SCHEMA,
        operation_id="meeting",
    )


def install_meeting_health(app: FastAPI, model: Callable[[], str]) -> None:
    """Add `GET /health`. `model` names the default one."""

    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "model": model()})

    add_look(app, "/health", health, "200 as soon as the process answers, with the default model's name")
