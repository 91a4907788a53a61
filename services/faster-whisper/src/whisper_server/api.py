"""The HTTP face of the server: which paths there are for recordings, and what each asks the engine for.

Knows the engine. All other paths, and how a request becomes a job and an answer, are `speech_common`'s.
"""

from functools import partial

from fastapi import Request
from speech_common.forms import STALLED_AFTER_S, Form
from speech_common.intake import Asked
from speech_common.jobs import Jobs
from speech_common.loads import LoadTally
from speech_common.meeting_routes import install_meeting_route
from speech_common.models.registry import Registry
from speech_common.service import Service
from speech_common.transcript import Transcript
from starlette.types import ASGIApp

from whisper_server.engine import Engine
from whisper_server.fields import FORMATS, meeting_request, transcription_request
from whisper_server.model import Model
from whisper_server.openapi import TRANSCRIPTION_FORM
from whisper_server.settings import Settings


def create_app(
    settings: Settings,
    registry: Registry[Model],
    engine: Engine,
    jobs: Jobs,
    loads: LoadTally,
    *,
    stalled_after_s: float = STALLED_AFTER_S,
) -> ASGIApp:
    """Build the application around a registry of models, of which the default may still be loading.

    A request of whose body nothing comes for `stalled_after_s` is refused.
    """
    service = Service(
        "Whisper API (faster-whisper)",
        settings,
        registry,
        jobs,
        loads,
        engine=engine,
        formats=FORMATS,
        stalled_after_s=stalled_after_s,
    )

    def read(task: str, form: Form) -> Asked:
        return service.asked(transcription_request(form, task=task))

    async def meeting(request: Request) -> Transcript:
        return await service.intake.transcript(request, lambda form: service.asked(meeting_request(form)))

    for path, task, summary in (
        ("/v1/audio/transcriptions", "transcribe", "Write down what is said in a recording"),
        ("/v1/audio/translations", "translate", "Write down in English what is said in a recording"),
    ):
        service.answer(path, partial(read, task), summary, TRANSCRIPTION_FORM)
    install_meeting_route(service.app, meeting)
    return service.finished()
