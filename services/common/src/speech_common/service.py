"""The HTTP face that every speech server has: all of its paths but those where a recording becomes a transcript.

Knows the framework, and puts together what the modules of this package own. A service makes one, adds its own paths with
`answer`, and serves `finished()`. How a request becomes a job and an answer is in `intake.py`, the answers of errors in
`replies.py`.
"""

from collections.abc import Sequence
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp

from speech_common.docs import install_docs
from speech_common.formats import ResponseFormat
from speech_common.forms import STALLED_AFTER_S, Form
from speech_common.health import Readiness, install_health_routes
from speech_common.intake import Asked, Intake, Read
from speech_common.job_routes import Wanted, install_job_routes
from speech_common.jobs import Jobs, Progress
from speech_common.language_routes import install_language_route
from speech_common.languages import DetectedLanguage
from speech_common.layers import with_layers
from speech_common.loads import LoadTally, ModelFigures
from speech_common.meeting_routes import install_meeting_health
from speech_common.metrics import Metrics, install_metrics
from speech_common.model_routes import install_model_routes
from speech_common.models.registry import ModelState, Registry
from speech_common.models.served import Served
from speech_common.replies import install_error_handlers
from speech_common.request import Spoken, TranscriptionRequest, refuse_unknown_languages
from speech_common.settings import ServerSettings
from speech_common.transcript import Transcript

Asks_contra = TypeVar("Asks_contra", bound=Spoken, contravariant=True)


class Engine(Protocol[Asks_contra]):
    """What works on recordings, with the model of a name. Blocks, and raises SpeechError."""

    def run(self, model: str, file: BinaryIO, options: Asks_contra, progress: Progress) -> Transcript:
        """Write down what is said in `file`."""

    def detect_language(self, model: str, file: BinaryIO, progress: Progress) -> DetectedLanguage:
        """Tell which language is spoken in `file`."""


class Service(Generic[Asks_contra]):
    """One server's paths, around a registry of models, of which the default may still be loading.

    A request of whose body nothing comes for `stalled_after_s` is refused. `formats` are those of a job's result.
    """

    def __init__(
        self,
        title: str,
        settings: ServerSettings,
        registry: "Registry[Any]",
        jobs: Jobs,
        loads: LoadTally,
        *,
        engine: Engine[Asks_contra],
        formats: Sequence[ResponseFormat],
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self.app = FastAPI(
            title=title,
            version="0.1.0",
            docs_url=None,
            redoc_url=None,
            # A redirect would lead to http:// even where the caller came by https, and have the file uploaded again.
            redirect_slashes=False,
        )
        self.intake = Intake(jobs, settings.max_upload_bytes, settings.max_audio_s, stalled_after_s)
        self._settings = settings
        self._registry: Registry[Served] = registry
        self._jobs = jobs
        self._loads = loads
        self._engine = engine
        self._formats = formats

    def asked(self, request: TranscriptionRequest[Asks_contra]) -> Asked:
        """Return the work that a request asks for. Raises UnknownModel, ModelUnavailable or a FieldError."""
        model = self._registry.resolve(request.model)
        if facts := self._registry.facts(model):
            refuse_unknown_languages(request.options, facts.languages)
        return Asked(
            lambda file, progress: self._engine.run(model, file, request.options, progress),
            Wanted(model, request.response_format, request.granularities),
            request.stream,
        )

    def answer(self, path: str, read: Read, summary: str, form: dict[str, Any]) -> None:
        """Have recordings sent to `path` answered as their forms ask. `form` is what the documentation says of those."""

        async def endpoint(request: Request) -> Response:
            return await self.intake.answer(request, read)

        self.app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            tags=["audio"],
            response_model=None,
            openapi_extra=form,
            operation_id=path.rpartition("/")[2],
        )

    def finished(self) -> ASGIApp:
        """Return the application, with all other paths behind those that were added."""
        settings, registry, jobs = self._settings, self._registry, self._jobs
        metrics = Metrics()

        def readiness() -> Readiness:
            if jobs.is_closing:
                return Readiness(False, "stopping")
            return Readiness(registry.state is ModelState.READY, registry.state, registry.failure)

        def model_figures() -> ModelFigures:
            return self._loads.figures(registry.loaded_count)

        install_model_routes(self.app, registry)
        install_job_routes(self.app, jobs, self._formats)
        install_language_route(self.app, self._detect)
        install_meeting_health(self.app, lambda: settings.model_name)
        install_health_routes(self.app, readiness)
        install_metrics(self.app, metrics)
        metrics.watch_jobs(jobs)
        metrics.watch_models(model_figures)
        jobs.on_ended = metrics.job_ended
        install_docs(self.app, has_keys=bool(settings.api_keys))
        install_error_handlers(self.app)
        return with_layers(
            self.app,
            keys=settings.api_keys,
            cors_origins=settings.cors_origins,
            observe=metrics.request_ended,
        )

    async def _detect(self, request: Request) -> DetectedLanguage:
        found: list[DetectedLanguage] = []

        def read(form: Form) -> Asked:
            form.refuse_unknown(("file", "model"))
            model = self._registry.resolve(form.text("model"))

            def work(file: BinaryIO, progress: Progress) -> Transcript:
                detected = self._engine.detect_language(model, file, progress)
                found.append(detected)
                return Transcript("transcribe", detected.code, detected.heard_s, ())

            return Asked(work, Wanted(model, ResponseFormat.JSON, frozenset()), is_counted=False)

        await self.intake.transcript(request, read)
        return found[0]
