"""What a caller may ask for: turns a form into options, and refuses by name what cannot be honoured.

Owns the list of fields. Knows forms, errors and the engine's options; nothing of HTTP. A field is honoured, refused
as unsupported (OpenAI's API has it, this server does not) or refused as unknown: never ignored.
"""

from speech_common import fields
from speech_common.errors import UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.request import TranscriptionRequest

from whisper_server.options import Options

HONOURED = fields.SHARED
# Fields of OpenAI's API that ask for what this server cannot do, with the reason it gives.
UNSUPPORTED = {
    "include": "the decoder tells no log probabilities of single tokens; leave it out",
    "known_speaker_names": "speakers are not told apart",
    "known_speaker_references": "speakers are not told apart",
}
FORMATS = (
    ResponseFormat.JSON,
    ResponseFormat.TEXT,
    ResponseFormat.SRT,
    ResponseFormat.VTT,
    ResponseFormat.VERBOSE_JSON,
)
# The events carry text alone.
_STREAMED = (ResponseFormat.JSON, ResponseFormat.TEXT)


def transcription_request(form: Form, *, task: str = "transcribe") -> TranscriptionRequest[Options]:
    """Check every field of `form`. Raises a FieldError that names the first one at fault."""
    fields.refuse_what_cannot_be_done(form, HONOURED, UNSUPPORTED)
    response_format = _response_format(form)
    granularities = fields.granularities(form, response_format)
    if form.boolean("word_timestamps", default=False):
        granularities |= {Granularity.WORD}
    language, languages = fields.languages(form)
    return TranscriptionRequest(
        model=form.text("model"),
        response_format=response_format,
        granularities=granularities,
        stream=fields.stream(form, response_format, _STREAMED),
        options=Options(
            task=fields.task(form, task),
            language=language,
            languages=languages,
            prompt=fields.prompt(form),
            hotwords=fields.hotwords(form),
            temperature=fields.temperature(form),
            beam_size=fields.beam_size(form),
            batch_size=fields.batch_size(form),
            vad_filter=fields.vad_filter(form),
            voice=fields.voice(form),
            word_timestamps=Granularity.WORD in granularities,
        ),
    )


def meeting_request(form: Form) -> TranscriptionRequest[Options]:
    """Check the form of `POST /transcribe`: file, and perhaps language and model."""
    form.refuse_unknown(("file", "language", "model"))
    return transcription_request(form)


def _response_format(form: Form) -> ResponseFormat:
    if form.text("response_format") == ResponseFormat.DIARIZED_JSON:
        raise UnsupportedField("response_format", "diarized_json needs a service that tells speakers apart")
    return fields.response_format(form, FORMATS)
