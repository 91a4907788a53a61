"""What a caller may ask for: turns a form into options, and refuses by name what cannot be honoured.

Owns the list of fields. Knows forms, errors and the engine's options; nothing of HTTP. A field is honoured, refused
as unsupported (OpenAI's API has it, this server does not) or refused as unknown: never ignored.
"""

import re
from dataclasses import dataclass

from speech_common.errors import InvalidValue, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.languages import language_code

from whisper_server.options import Options, VoiceDetection

HONOURED = (
    "file",
    "model",
    "language",
    "languages",
    "prompt",
    "response_format",
    "temperature",
    "timestamp_granularities",
    "stream",
    "chunking_strategy",
    "hotwords",
    "keywords",
    "vad_filter",
    "beam_size",
    "batch_size",
    "word_timestamps",
    "task",
)
# Fields of OpenAI's API that ask for what this server cannot do, with the reason it gives.
UNSUPPORTED = {
    "include": "the decoder tells no log probabilities of single tokens; leave it out",
    "known_speaker_names": "speakers are not told apart",
    "known_speaker_references": "speakers are not told apart",
}
_ACCEPTED = frozenset({*HONOURED, *UNSUPPORTED})
_STRATEGY = "chunking_strategy"
_STRATEGY_KEYS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
_COLDEST = 0.001
_MAX_BEAM_SIZE = 10
_MAX_BATCH_SIZE = 64
# A detector that looks at 32 ms at a time means nothing by less than that, and a minute of padding joins everything.
_LONGEST_MS = 60_000
_STREAMED = (ResponseFormat.JSON, ResponseFormat.TEXT)


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """One request, checked."""

    model: str | None
    response_format: ResponseFormat
    granularities: frozenset[Granularity]
    stream: bool
    options: Options


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """One question for the language, checked."""

    model: str | None


def transcription_request(form: Form, *, task: str = "transcribe") -> TranscriptionRequest:
    """Check every field of `form`. Raises a FieldError that names the first one at fault."""
    _refuse_what_cannot_be_done(form)
    response_format = _response_format(form)
    granularities = _granularities(form, response_format)
    if form.boolean("word_timestamps", default=False):
        granularities |= {Granularity.WORD}
    language, languages = _languages(form)
    return TranscriptionRequest(
        model=form.text("model"),
        response_format=response_format,
        granularities=granularities,
        stream=_stream(form, response_format),
        options=Options(
            task=_task(form, task),
            language=language,
            languages=languages,
            prompt=_plain("prompt", form.text("prompt")),
            hotwords=_hotwords(form),
            temperature=_temperature(form),
            beam_size=form.integer("beam_size", 5, 1, _MAX_BEAM_SIZE),
            batch_size=form.integer("batch_size", 0, 1, _MAX_BATCH_SIZE) or None,
            vad_filter=_vad_filter(form),
            voice=_voice(form),
            word_timestamps=Granularity.WORD in granularities,
        ),
    )


def meeting_request(form: Form) -> TranscriptionRequest:
    """Check the form of `POST /transcribe`: file, and perhaps language and model."""
    form.refuse_unknown(("file", "language", "model"))
    return transcription_request(form)


def detection_request(form: Form) -> DetectionRequest:
    """Check the form of `POST /v1/audio/detect-language`: file, and perhaps model."""
    form.refuse_unknown(("file", "model"))
    return DetectionRequest(form.text("model"))


def _refuse_what_cannot_be_done(form: Form) -> None:
    strategy = [f"{_STRATEGY}[{key}]" for key in _STRATEGY_KEYS]
    form.refuse_unknown({*_ACCEPTED, *strategy})
    for name, reason in UNSUPPORTED.items():
        if form.many(name):
            raise UnsupportedField(name, reason)


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


def _stream(form: Form, response_format: ResponseFormat) -> bool:
    stream = form.boolean("stream", default=False)
    if stream and response_format not in _STREAMED:
        # The events carry text alone: segments, words and cues would be lost without a word.
        raise InvalidValue(
            "stream", "true", f"true only together with response_format={' or '.join(_STREAMED)}"
        )
    return stream


def _languages(form: Form) -> tuple[str | None, tuple[str, ...]]:
    """Return the one language, or None and those to detect it among: none of them means all."""
    value = form.text("language")
    language = None if value is None else _language("language", value)
    among = tuple(dict.fromkeys(_language("languages", each) for each in form.many("languages")))
    if language is None:
        return (among[0], ()) if len(among) == 1 else (None, among)
    if among and language not in among:
        raise InvalidValue("languages", ", ".join(among), f"{language}, or leave it out: it is in 'language'")
    return language, ()


def _language(param: str, value: str) -> str:
    code = language_code(value)
    if code is None:
        raise InvalidValue(param, value, "an ISO 639-1 code of a language Whisper knows, such as en")
    return code


def _task(form: Form, of_path: str) -> str:
    value = form.text("task") or of_path
    accepted = ("translate",) if of_path == "translate" else ("transcribe", "translate")
    if value not in accepted:
        raise InvalidValue("task", value, ", ".join(accepted))
    return value


def _hotwords(form: Form) -> str | None:
    """Join our `hotwords` and OpenAI's `keywords`: the library takes one string for both."""
    words = [_plain("hotwords", form.text("hotwords"))]
    words += [_plain("keywords", word) for word in form.many("keywords")]
    return ", ".join(word for word in words if word) or None


def _plain(param: str, text: str | None) -> str | None:
    """Return the text, unless the tokenizer would read in it what is no text: the end of the transcript, say."""
    if text is not None and (token := _CONTROL_TOKEN.search(text)):
        raise InvalidValue(param, token[0], "text without the model's control tokens, <|...|>")
    return text


def _temperature(form: Form) -> float | None:
    """Return None for 0, which means "as cold as works" in OpenAI's API; so does what is too small to divide by."""
    temperature = form.number("temperature", 0.0, 0.0, 1.0)
    return temperature if temperature >= _COLDEST else None


def _vad_filter(form: Form) -> bool:
    chunking = _chunking_type(form) is not None
    vad_filter = form.boolean("vad_filter", default=chunking)
    if chunking and not vad_filter:
        raise InvalidValue("vad_filter", "false", f"true together with {_STRATEGY}, which asks for it")
    return vad_filter


def _voice(form: Form) -> VoiceDetection:
    kind = _chunking_type(form)
    threshold, padding_ms, silence_ms = (f"{_STRATEGY}[{key}]" for key in _STRATEGY_KEYS[1:])
    if kind != "server_vad":
        for name in (threshold, padding_ms, silence_ms):
            if form.text(name) is not None:
                raise InvalidValue(
                    name, form.text(name) or "", f"it only together with {_STRATEGY}[type]=server_vad"
                )
        return VoiceDetection()
    return VoiceDetection(
        threshold=form.number(threshold, 0.5, 0.0, 1.0),
        prefix_padding_ms=form.integer(padding_ms, 300, 0, _LONGEST_MS),
        silence_duration_ms=form.integer(silence_ms, 200, 0, _LONGEST_MS),
    )


def _chunking_type(form: Form) -> str | None:
    """Return `auto`, `server_vad`, or None where it is left to the server."""
    strategy, kind = form.text(_STRATEGY), form.text(f"{_STRATEGY}[type]")
    if strategy not in (None, "auto"):
        raise InvalidValue(_STRATEGY, strategy or "", f"auto, or {_STRATEGY}[type]=server_vad")
    if kind not in (None, "server_vad"):
        raise InvalidValue(f"{_STRATEGY}[type]", kind or "", "server_vad")
    if strategy and kind:
        raise InvalidValue(_STRATEGY, strategy, f"auto or {_STRATEGY}[type]=server_vad, not both")
    return kind or strategy
