"""What a caller may ask for: turns a form into options, and refuses by name what cannot be honoured.

Owns the list of fields. Knows forms, errors and the engine's options; nothing of HTTP. A field is honoured, refused
as unsupported (OpenAI's API has it, this server does not) or refused as unknown: never ignored.
"""

from dataclasses import dataclass

from speech_common.errors import InvalidValue, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.languages import language_code

from whisper_server.engine import Options

_HONOURED = (
    "file",
    "model",
    "language",
    "languages",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "stream",
    "hotwords",
    "keywords",
    "vad_filter",
    "beam_size",
    "batch_size",
    "word_timestamps",
    "task",
)
# Fields of OpenAI's API that ask for what this server cannot do yet, with the reason it gives.
_UNSUPPORTED = {
    "chunking_strategy": "long recordings are always cut by the model itself; leave it out",
    "include": "log probabilities are not returned; leave it out",
    "known_speaker_names": "speakers are not told apart",
    "known_speaker_references": "speakers are not told apart",
}
_ACCEPTED = frozenset({*_HONOURED, *_UNSUPPORTED})
_OBJECTS = ("chunking_strategy",)
_MAX_BEAM_SIZE = 10


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """One request, checked."""

    model: str | None
    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    options: Options


def transcription_request(form: Form, *, task: str = "transcribe") -> TranscriptionRequest:
    """Check every field of `form`. Raises a FieldError that names the first one at fault."""
    _refuse_what_cannot_be_done(form)
    response_format = _response_format(form)
    granularities = _granularities(form, response_format)
    word_timestamps = form.boolean("word_timestamps", default=False)
    if word_timestamps:
        granularities |= {Granularity.WORD}
    return TranscriptionRequest(
        model=form.text("model"),
        response_format=response_format,
        granularities=granularities,
        options=Options(
            task=_task(form, task),
            language=_language(form),
            prompt=form.text("prompt"),
            hotwords=_hotwords(form),
            # 0 means "as cold as works" in OpenAI's API, which is also the default.
            temperature=form.number("temperature", 0.0, 0.0, 1.0) or None,
            beam_size=form.integer("beam_size", 5, 1, _MAX_BEAM_SIZE),
            vad_filter=form.boolean("vad_filter", default=False),
            word_timestamps=Granularity.WORD in granularities,
        ),
    )


def _refuse_what_cannot_be_done(form: Form) -> None:
    form.refuse_unknown(_ACCEPTED, _OBJECTS)
    for name in sorted(form.names()):
        if name in _UNSUPPORTED:
            raise UnsupportedField(name, _UNSUPPORTED[name])
    if form.boolean("stream", default=False):
        raise UnsupportedField("stream", "the transcript is sent when it is complete; send false")
    if form.integer("batch_size", 1, 1, 1_000_000) > 1:
        raise UnsupportedField("batch_size", "recordings are decoded window by window; leave it out")
    if len(form.many("languages")) > 1:
        raise UnsupportedField("languages", "name one language, or none to have it detected")


def _response_format(form: Form) -> ResponseFormat:
    value = form.text("response_format") or ResponseFormat.JSON
    if value == "diarized_json":
        raise UnsupportedField("response_format", "diarized_json needs a service that tells speakers apart")
    try:
        return ResponseFormat(value)
    except ValueError:
        raise InvalidValue("response_format", value, ", ".join(ResponseFormat)) from None


def _granularities(form: Form, response_format: ResponseFormat) -> frozenset[Granularity]:
    given = form.many("timestamp_granularities")
    for value in given:
        if value not in list(Granularity):
            raise InvalidValue("timestamp_granularities", value, ", ".join(Granularity))
    granularities = frozenset(Granularity(value) for value in given) or frozenset({Granularity.SEGMENT})
    if Granularity.WORD in granularities and response_format is not ResponseFormat.VERBOSE_JSON:
        raise InvalidValue(
            "timestamp_granularities", "word", "word only together with response_format=verbose_json"
        )
    return granularities


def _language(form: Form) -> str | None:
    for param, value in (
        ("language", form.text("language")),
        ("languages", next(iter(form.many("languages")), None)),
    ):
        if value is not None:
            code = language_code(value)
            if code is None:
                raise InvalidValue(param, value, "an ISO 639-1 code of a language Whisper knows, such as en")
            return code
    return None


def _task(form: Form, default: str) -> str:
    value = form.text("task") or default
    if value not in ("transcribe", "translate"):
        raise InvalidValue("task", value, "transcribe, translate")
    return value


def _hotwords(form: Form) -> str | None:
    """Join our `hotwords` and OpenAI's `keywords`: the library takes one string for both."""
    words = [form.text("hotwords"), *form.many("keywords")]
    return ", ".join(word for word in words if word) or None
