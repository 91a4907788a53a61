"""The HTTP face of the server: which paths there are, and what each asks the engine for.

Knows the engine and the framework. How a request becomes a job and an answer is in `speech_common.intake`, the answers
of errors in `speech_common.replies`, and the schemas of the forms in `openapi.py`.
"""

import time
from functools import partial
from typing import BinaryIO

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from speech_common.docs import install_docs
from speech_common.formats import ResponseFormat
from speech_common.forms import STALLED_AFTER_S, Form
from speech_common.health import Readiness, install_health_routes
from speech_common.intake import Asked, Intake
from speech_common.job_routes import Wanted, install_job_routes
from speech_common.jobs import Jobs, Progress
from speech_common.language_routes import install_language_route
from speech_common.languages import DetectedLanguage
from speech_common.layers import with_layers
from speech_common.loads import LoadTally, ModelFigures
from speech_common.meeting_routes import install_meeting_routes
from speech_common.metrics import Metrics, install_metrics
from speech_common.replies import install_error_handlers
from speech_common.transcript import Transcript
from starlette.types import ASGIApp

from whisper_server.engine import Engine
from whisper_server.fields import (
    TranscriptionRequest,
    detection_request,
    meeting_request,
    transcription_request,
)
from whisper_server.openapi import TRANSCRIPTION_FORM
from whisper_server.registry import ModelState, Registry
from whisper_server.settings import Settings


def create_app(
    settings: Settings,
    registry: Registry,
    engine: Engine,
    jobs: Jobs,
    loads: LoadTally,
    *,
    stalled_after_s: float = STALLED_AFTER_S,
) -> ASGIApp:
    """Build the application around a registry of models, of which the default may still be loading.

    A request of whose body nothing comes for `stalled_after_s` is refused.
    """
    app = FastAPI(
        title="Whisper API (faster-whisper)",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        # A redirect would lead to http:// even where the caller came by https, and have the file uploaded again.
        redirect_slashes=False,
    )
    started_at = int(time.time())
    intake = Intake(jobs, settings.max_upload_bytes, settings.max_audio_s, stalled_after_s)
    metrics = Metrics()

    def asked(wanted: TranscriptionRequest) -> Asked:
        model = registry.resolve(wanted.model)
        if facts := registry.facts(model):
            wanted.options.refuse_what_lacks(facts.languages)
        return Asked(
            lambda file, progress: engine.run(model, file, wanted.options, progress),
            Wanted(model, wanted.response_format, wanted.granularities),
            wanted.stream,
        )

    def read(task: str, form: Form) -> Asked:
        return asked(transcription_request(form, task=task))

    async def transcriptions(request: Request) -> Response:
        return await intake.answer(request, partial(read, "transcribe"))

    async def translations(request: Request) -> Response:
        return await intake.answer(request, partial(read, "translate"))

    async def meeting(request: Request) -> Transcript:
        return await intake.transcript(request, lambda form: asked(meeting_request(form)))

    async def detect(request: Request) -> DetectedLanguage:
        found: list[DetectedLanguage] = []

        def read(form: Form) -> Asked:
            model = registry.resolve(detection_request(form).model)

            def work(file: BinaryIO, progress: Progress) -> Transcript:
                detected = engine.detect_language(model, file, progress)
                found.append(detected)
                return Transcript("transcribe", detected.code, detected.heard_s, ())

            return Asked(work, Wanted(model, ResponseFormat.JSON, frozenset()), is_counted=False)

        await intake.transcript(request, read)
        return found[0]

    def model_body(name: str, created: int) -> dict[str, object]:
        return {"id": name, "object": "model", "created": created, "owned_by": "autostart"}

    def model_bodies() -> dict[str, dict[str, object]]:
        listed = registry.names()
        return {
            name: model_body(name, info.created) for info in listed for name in (info.name, *info.aliases)
        }

    # In a thread of the framework's, as these two look at directories.
    def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": list(model_bodies().values())})

    def get_model(name: str) -> JSONResponse:
        registry.resolve(name)
        return JSONResponse(model_bodies().get(name) or model_body(name, started_at))

    def readiness() -> Readiness:
        if jobs.is_closing:
            return Readiness(False, "stopping")
        return Readiness(registry.state is ModelState.READY, registry.state, registry.failure)

    def model_figures() -> ModelFigures:
        return loads.figures(registry.loaded_count)

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
            openapi_extra=TRANSCRIPTION_FORM,
        )
    app.add_api_route("/v1/models", list_models, tags=["models"], response_model=None)
    app.add_api_route("/v1/models/{name:path}", get_model, tags=["models"], response_model=None)
    install_job_routes(app, jobs)
    install_language_route(app, detect)
    install_meeting_routes(app, meeting, lambda: settings.model_name)
    install_health_routes(app, readiness)
    install_metrics(app, metrics)
    metrics.watch_jobs(jobs)
    metrics.watch_models(model_figures)
    jobs.on_ended = metrics.job_ended
    install_docs(app, has_keys=bool(settings.api_keys))
    install_error_handlers(app)
    return with_layers(
        app, keys=settings.api_keys, cors_origins=settings.cors_origins, observe=metrics.request_ended
    )
