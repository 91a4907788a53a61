"""What a caller may ask for: turns a form into options, and refuses by name what cannot be honoured.

Owns the lists of fields of the two paths: OpenAI's, and `POST /transcribe` in whisperx's own terms. A field is honoured,
refused as unsupported (OpenAI's API has it, this server does not) or refused as unknown: never ignored.
"""

import base64
import binascii
import re

from speech_common import fields
from speech_common.errors import InvalidValue, MissingField, UnsupportedField
from speech_common.formats import UNKNOWN_SPEAKER, Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.request import TranscriptionRequest

from whisperx_server.options import Options, Reference

_SPEAKERS = ("diarize", "min_speakers", "max_speakers")
HONOURED = (*fields.SHARED, *_SPEAKERS, "known_speaker_names", "known_speaker_references")
# Fields of OpenAI's API that ask for what this server cannot do, with the reason it gives.
UNSUPPORTED = {
    "include": "the decoder tells no log probabilities of single tokens; leave it out",
}
HONOURED_BY_TRANSCRIBE = ("file", "model", "language", "format", *_SPEAKERS)
FORMATS = (
    ResponseFormat.JSON,
    ResponseFormat.TEXT,
    ResponseFormat.SRT,
    ResponseFormat.VTT,
    ResponseFormat.VERBOSE_JSON,
    ResponseFormat.DIARIZED_JSON,
    ResponseFormat.TSV,
)
RESULT_FORMATS = (*FORMATS, ResponseFormat.WHISPERX_JSON)
"""What a job's result can be fetched in."""
# What `format` calls them: as whisperx's own command does.
FORMAT_NAMES = {
    "json": ResponseFormat.WHISPERX_JSON,
    "txt": ResponseFormat.TEXT,
    "srt": ResponseFormat.SRT,
    "vtt": ResponseFormat.VTT,
    "tsv": ResponseFormat.TSV,
}
# They show words, or are cut between them.
_OF_WORDS = (ResponseFormat.SRT, ResponseFormat.VTT, ResponseFormat.WHISPERX_JSON)
# The events carry text, and segments with their speakers.
_STREAMED = (ResponseFormat.JSON, ResponseFormat.TEXT, ResponseFormat.DIARIZED_JSON)
_MOST_SPEAKERS = 64
_MOST_REFERENCES = 4
_LONGEST_NAME = 40
# What diarized_json calls those whose names are not known.
_LETTERS = re.compile("[A-Z]{1,2}")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,(.*)", re.DOTALL)


def transcription_request(form: Form, *, task: str = "transcribe") -> TranscriptionRequest[Options]:
    """Check every field of OpenAI's form. Raises a FieldError that names the first one at fault."""
    fields.refuse_what_cannot_be_done(form, HONOURED, UNSUPPORTED)
    _refuse_temperature(form)
    task = fields.task(form, task)
    response_format = fields.response_format(form, FORMATS)
    if task == "translate" and response_format is ResponseFormat.DIARIZED_JSON:
        raise InvalidValue("response_format", response_format, "another one; translations have no speakers")
    words_for = "response_format" if response_format in _OF_WORDS else None
    granularities = fields.granularities(form, response_format)
    if Granularity.WORD in granularities:
        words_for = "timestamp_granularities"
    if form.boolean("word_timestamps", default=False):
        granularities |= {Granularity.WORD}
        words_for = "word_timestamps"
    language, languages = fields.languages(form)
    references = _references(form)
    is_diarized = response_format is ResponseFormat.DIARIZED_JSON or bool(references)
    diarize, at_least, at_most = _speakers(form, default=is_diarized)
    # The text of a stream names nobody, but for diarized_json.
    streamed = [each for each in _STREAMED if each is not ResponseFormat.TEXT or not diarize]
    return TranscriptionRequest(
        model=form.text("model"),
        response_format=response_format,
        granularities=granularities,
        stream=fields.stream(form, response_format, streamed),
        options=Options(
            task=task,
            language=language,
            languages=languages,
            prompt=fields.prompt(form),
            hotwords=fields.hotwords(form),
            beam_size=fields.beam_size(form),
            batch_size=fields.batch_size(form),
            vad_filter=fields.vad_filter(form),
            voice=fields.voice(form),
            times_words=diarize or Granularity.WORD in granularities or _shows_times(response_format),
            words_for=words_for,
            diarize=diarize,
            min_speakers=at_least,
            max_speakers=at_most,
            references=references,
        ),
    )


def transcribe_request(form: Form) -> TranscriptionRequest[Options]:
    """Check the form of `POST /transcribe`."""
    form.refuse_unknown(HONOURED_BY_TRANSCRIBE)
    name = form.text("format") or "json"
    if name not in FORMAT_NAMES:
        raise InvalidValue("format", name, ", ".join(FORMAT_NAMES))
    response_format = FORMAT_NAMES[name]
    language, _ = fields.languages(form)
    diarize, at_least, at_most = _speakers(form, default=False)
    return TranscriptionRequest(
        model=form.text("model"),
        response_format=response_format,
        granularities=frozenset({Granularity.SEGMENT}),
        stream=False,
        options=Options(
            language=language,
            times_words=diarize or _shows_times(response_format),
            words_for="format" if response_format in _OF_WORDS else None,
            diarize=diarize,
            min_speakers=at_least,
            max_speakers=at_most,
        ),
    )


def _shows_times(response_format: ResponseFormat) -> bool:
    """Tell whether an answer says when something is said, which only its words tell here."""
    return response_format not in (ResponseFormat.JSON, ResponseFormat.TEXT)


def _refuse_temperature(form: Form) -> None:
    if fields.temperature(form) is not None:
        raise UnsupportedField("temperature", "whisperx decodes at 0 only")


def _speakers(form: Form, *, default: bool) -> tuple[bool, int | None, int | None]:
    """Return whether to tell speakers apart, and how many there are at least and at most, where that is known."""
    diarize = form.boolean("diarize", default=default)
    bounds: list[int | None] = []
    for name in ("min_speakers", "max_speakers"):
        value = form.text(name)
        if value is not None and not diarize:
            raise InvalidValue(name, value, "it only together with diarize=true")
        bounds.append(None if value is None else form.integer(name, 1, 1, _MOST_SPEAKERS))
    at_least, at_most = bounds
    if at_least is not None and at_most is not None and at_least > at_most:
        raise InvalidValue("min_speakers", str(at_least), f"at most max_speakers, which is {at_most}")
    if default and not diarize:
        raise InvalidValue("diarize", "false", "true, which the other fields ask for")
    return diarize, at_least, at_most


def _references(form: Form) -> tuple[Reference, ...]:
    """Return the speakers that the client knows: as many names as samples."""
    names, samples = form.many("known_speaker_names"), form.many("known_speaker_references")
    if names and not samples:
        raise MissingField("known_speaker_references")
    if samples and not names:
        raise MissingField("known_speaker_names")
    if len(names) != len(samples):
        raise InvalidValue("known_speaker_names", f"{len(names)} of them", f"{len(samples)}, one a reference")
    if len(names) > _MOST_REFERENCES:
        raise InvalidValue("known_speaker_names", f"{len(names)} of them", f"at most {_MOST_REFERENCES}")
    for name in names:
        is_taken = name.startswith(UNKNOWN_SPEAKER) or _LETTERS.fullmatch(name) or names.count(name) > 1
        if is_taken or len(name) > _LONGEST_NAME or not name.isprintable():
            raise InvalidValue(
                "known_speaker_names",
                name[:_LONGEST_NAME],
                f"different names of at most {_LONGEST_NAME} characters on one line; A to ZZ, and what begins with "
                f"{UNKNOWN_SPEAKER}, are for those who are not known",
            )
    return tuple(Reference(name, _sample(value)) for name, value in zip(names, samples, strict=True))


def _sample(value: str) -> bytes:
    match = _DATA_URL.fullmatch(value)
    try:
        if match:
            return base64.b64decode("".join(match[1].split()), validate=True)
    except binascii.Error:
        pass
    raise InvalidValue("known_speaker_references", value[:30], "recordings as data:audio/wav;base64,… URLs")
