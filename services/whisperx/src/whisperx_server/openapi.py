"""What the documentation says of a transcription's form. Owns no behaviour: `fields.py` says what is accepted."""

from typing import Any

from speech_common.schemas import ANSWERED_LATER, LANGUAGE, MODEL, field, form, transcription_fields

from whisperx_server.fields import FORMAT_NAMES, FORMATS

_WORDS = {"items": {"type": "string"}}
_SPEAKERS = {
    "min_speakers": field("integer", "With diarize: at least so many speakers"),
    "max_speakers": field("integer", "With diarize: at most so many speakers"),
}
TRANSCRIPTION_FORM: dict[str, Any] = {
    "requestBody": form(
        {
            **transcription_fields(FORMATS),
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
