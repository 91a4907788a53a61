"""What the documentation says of a transcription's form. Owns no behaviour: `fields.py` says what is accepted."""

from typing import Any

from speech_common.formats import Granularity
from speech_common.schemas import ANSWERED_LATER, LANGUAGE, MODEL, field, form

from whisperx_server.fields import FORMAT_NAMES, FORMATS

_WORDS = {"items": {"type": "string"}}
_SPEAKERS = {
    "min_speakers": field("integer", "With diarize: at least so many speakers"),
    "max_speakers": field("integer", "With diarize: at most so many speakers"),
}
TRANSCRIPTION_FORM: dict[str, Any] = {
    "requestBody": form(
        {
            "model": MODEL,
            "language": LANGUAGE,
            "prompt": field("string", "Text before the recording, to set style and spelling"),
            "response_format": field("string", "", enum=list(FORMATS), default="json"),
            "stream": field(
                "boolean", "Send the text as it is decoded, as server-sent events", default=False
            ),
            "timestamp_granularities[]": field(
                "array",
                "With verbose_json: which lists to return",
                items={"type": "string", "enum": list(Granularity)},
            ),
            "hotwords": field("string", "Words to listen for"),
            "keywords[]": field("array", "The same, as a list", **_WORDS),
            "languages[]": field("array", "Codes to detect the language among", **_WORDS),
            "chunking_strategy": field(
                "string",
                "Skip stretches without speech; `chunking_strategy[type]=server_vad` with `[threshold]`, "
                "`[prefix_padding_ms]` and `[silence_duration_ms]` says what those are",
                enum=["auto"],
            ),
            "batch_size": field("integer", "1 to 64: decode at most so many windows together"),
            "vad_filter": field("boolean", "Skip stretches without speech", default=False),
            "beam_size": field("integer", "1 to 10", default=5),
            "word_timestamps": field("boolean", "Time every word", default=False),
            "task": field("string", "", enum=["transcribe", "translate"]),
            "diarize": field("boolean", "Tell speakers apart; diarized_json always does", default=False),
            **_SPEAKERS,
            "known_speaker_names[]": field("array", "Up to 4 names of speakers", **_WORDS),
            "known_speaker_references[]": field(
                "array", "For each name 2 to 10 s of its voice, as a data URL", **_WORDS
            ),
        }
    ),
    "parameters": [ANSWERED_LATER],
}
TRANSCRIBE_FORM: dict[str, Any] = {
    "requestBody": form(
        {
            "model": MODEL,
            "language": LANGUAGE,
            "diarize": field("boolean", "Tell speakers apart", default=False),
            **_SPEAKERS,
            "format": field("string", "", enum=list(FORMAT_NAMES), default="json"),
        }
    ),
    "parameters": [ANSWERED_LATER],
}
