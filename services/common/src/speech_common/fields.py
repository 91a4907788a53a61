"""Read the fields of a form that every speech service has, and refuse what they cannot mean.

Each function reads one thing of the contract (OpenAI's fields and ours beside them) and raises a FieldError that names the
field at fault. Which fields a service has at all is its own `fields.py`.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from speech_common.errors import InvalidValue, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.languages import language_code
from speech_common.sound.detection import VoiceDetection

STRATEGY_FIELDS = tuple(
    f"chunking_strategy[{key}]" for key in ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
)
"""How a form spells an object: each of its keys is a field."""
SHARED = (
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
    *STRATEGY_FIELDS,
    "hotwords",
    "keywords",
    "vad_filter",
    "beam_size",
    "batch_size",
    "word_timestamps",
    "task",
)
"""What every service honours of a transcription's form."""
_STRATEGY = "chunking_strategy"
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
_COLDEST = 0.001
# In characters: a megabyte would be divided into tokens again for every window. Decoders read some 200 tokens of either.
_LONGEST_PROMPT = 8_000
_LONGEST_HOTWORDS = 4_000
_MAX_BEAM_SIZE = 10
_MAX_BATCH_SIZE = 64
# A detector that looks at 32 ms at a time means nothing by less than that, and a minute of padding joins everything.
_LONGEST_MS = 60_000


def refuse_what_cannot_be_done(form: Form, honoured: Collection[str], unsupported: Mapping[str, str]) -> None:
    """Raise UnknownField for what is in neither, or UnsupportedField with the reason that `unsupported` gives."""
    form.refuse_unknown({*honoured, *unsupported})
    for name, reason in unsupported.items():
        if form.many(name):
            raise UnsupportedField(name, reason)


def response_format(
    form: Form, accepted: Sequence[ResponseFormat], name: str = "response_format"
) -> ResponseFormat:
    """Return the format of the answer, by default the first of those accepted."""
    value = form.text(name)
    if value is None:
        return accepted[0]
    if value not in accepted:
        raise InvalidValue(name, value, ", ".join(accepted))
    return ResponseFormat(value)


def granularities(form: Form, wanted: ResponseFormat) -> frozenset[Granularity]:
    """Return which lists a verbose_json has, by default the segments."""
    given = form.many("timestamp_granularities")
    for value in given:
        if value not in list(Granularity):
            raise InvalidValue("timestamp_granularities", value, ", ".join(Granularity))
    asked = frozenset(Granularity(value) for value in given) or frozenset({Granularity.SEGMENT})
    if Granularity.WORD in asked and wanted is not ResponseFormat.VERBOSE_JSON:
        raise InvalidValue(
            "timestamp_granularities", "word", "word only together with response_format=verbose_json"
        )
    return asked


def stream(form: Form, wanted: ResponseFormat, streamed: Sequence[ResponseFormat]) -> bool:
    """Tell whether the answer is wanted as it is said. `streamed` are the formats that events can carry."""
    is_asked = form.boolean("stream", default=False)
    if is_asked and wanted not in streamed:
        # The events carry text alone: segments, words and cues would be lost without a word.
        raise InvalidValue(
            "stream", "true", f"true only together with response_format={' or '.join(streamed)}"
        )
    return is_asked


def languages(form: Form) -> tuple[str | None, tuple[str, ...]]:
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


def task(form: Form, of_path: str) -> str:
    """Return `transcribe` or `translate`; a path of translations has no other."""
    value = form.text("task") or of_path
    accepted = ("translate",) if of_path == "translate" else ("transcribe", "translate")
    if value not in accepted:
        raise InvalidValue("task", value, ", ".join(accepted))
    return value


def hotwords(form: Form) -> str | None:
    """Join our `hotwords` and OpenAI's `keywords`: the library takes one string for both."""
    words = [plain("hotwords", form.text("hotwords"))]
    words += [plain("keywords", word) for word in form.many("keywords")]
    joined = ", ".join(word for word in words if word)
    if len(joined) > _LONGEST_HOTWORDS:
        raise InvalidValue("hotwords", f"{joined[:20]}…", f"at most {_LONGEST_HOTWORDS} characters")
    return joined or None


def prompt(form: Form) -> str | None:
    """Return the end of what comes before the recording: more than a decoder reads of it."""
    text = plain("prompt", form.text("prompt"))
    return text and text[-_LONGEST_PROMPT:]


def plain(param: str, text: str | None) -> str | None:
    """Return the text, unless the tokenizer would read in it what is no text: the end of the transcript, say."""
    if text is not None and (token := _CONTROL_TOKEN.search(text)):
        raise InvalidValue(param, token[0], "text without the model's control tokens, <|...|>")
    return text


def temperature(form: Form) -> float | None:
    """Return None for 0, which means "as cold as works" in OpenAI's API; so does what is too small to divide by."""
    value = form.number("temperature", 0.0, 0.0, 1.0)
    return value if value >= _COLDEST else None


def vad_filter(form: Form) -> bool:
    """Tell whether what is no speech is left out; a chunking strategy asks for that too."""
    is_chunked = _chunking_type(form) is not None
    is_filtered = form.boolean("vad_filter", default=is_chunked)
    if is_chunked and not is_filtered:
        raise InvalidValue("vad_filter", "false", f"true together with {_STRATEGY}, which asks for it")
    return is_filtered


def voice(form: Form) -> VoiceDetection:
    """Return what `chunking_strategy` says is speech."""
    kind = _chunking_type(form)
    threshold, padding_ms, silence_ms = STRATEGY_FIELDS[1:]
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


def beam_size(form: Form) -> int:
    """Return how many texts the decoder follows at a time."""
    return form.integer("beam_size", 5, 1, _MAX_BEAM_SIZE)


def batch_size(form: Form) -> int | None:
    """Return how many windows to decode at once at most, or None where that is left to the server."""
    return form.integer("batch_size", 0, 1, _MAX_BATCH_SIZE) or None
