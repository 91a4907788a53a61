"""The HTTP face of the server: which paths there are for recordings, and what each asks the engine for.

Knows the engine. All other paths, and how a request becomes a job and an answer, are `speech_common`'s.
"""

from functools import partial
from typing import Any

from speech_common.forms import STALLED_AFTER_S, Form
from speech_common.intake import Asked
from speech_common.jobs import Jobs
from speech_common.loads import LoadTally
from speech_common.models.registry import Registry
from speech_common.service import Service
from starlette.types import ASGIApp

from whisperx_server.engine import Engine
from whisperx_server.fields import (
    RESULT_FORMATS,
    transcribe_request,
    transcription_request,
)
from whisperx_server.openapi import TRANSCRIBE_FORM, TRANSCRIPTION_FORM
from whisperx_server.settings import Settings


def create_app(
    settings: Settings,
    registry: Registry[Any],
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
        "WhisperX API",
        settings,
        registry,
        jobs,
        loads,
        engine=engine,
        formats=RESULT_FORMATS,
        stalled_after_s=stalled_after_s,
    )

    def read(task: str, form: Form) -> Asked:
        return service.asked(transcription_request(form, task=task))

    for path, task, summary in (
        ("/v1/audio/transcriptions", "transcribe", "Write down what is said in a recording, and by whom"),
        ("/v1/audio/translations", "translate", "Write down in English what is said in a recording"),
    ):
        service.answer(path, partial(read, task), summary, TRANSCRIPTION_FORM)
    service.answer(
        "/transcribe",
        lambda form: service.asked(transcribe_request(form)),
        "Write down what is said in a recording, word by word, and by whom",
        TRANSCRIBE_FORM,
    )
    return service.finished()
