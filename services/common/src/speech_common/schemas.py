"""What OpenAPI says of forms: schemas by hand, because the forms are read by hand. Owns no behaviour."""

from collections.abc import Mapping, Sequence
from typing import Any

from speech_common.formats import Granularity, ResponseFormat


def field(type_: str, description: str, **more: object) -> dict[str, object]:
    """Return the schema of one field."""
    return {"type": type_, "description": description, **more}


FILE = field("string", "The recording: any common audio or video format", format="binary")
MODEL = field("string", "One of /v1/models", default="whisper-1")
LANGUAGE = field("string", "ISO 639-1 code; detected where left out")


def form(fields: Mapping[str, dict[str, object]]) -> dict[str, Any]:
    """Return a request body of `file`, which is required, and more fields.

    Of a list (`name[]`) a browser sends one part for each element, as the openai SDK does.
    """
    schema = {"type": "object", "required": ["file"], "properties": {"file": FILE, **fields}}
    encoding = {name: {"explode": True} for name in fields if name.endswith("[]")}
    content = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    return {"required": True, "content": content}


def transcription_fields(formats: Sequence[ResponseFormat]) -> dict[str, dict[str, object]]:
    """Return the fields of a transcription's form that every service has, but for a temperature."""
    words = {"items": {"type": "string"}}
    return {
        "model": MODEL,
        "language": LANGUAGE,
        "prompt": field("string", "Text before the recording, to set style and spelling"),
        "response_format": field("string", "", enum=list(formats), default="json"),
        "stream": field("boolean", "Send the text as it is decoded, as server-sent events", default=False),
        "timestamp_granularities[]": field(
            "array",
            "With verbose_json: which lists to return",
            items={"type": "string", "enum": list(Granularity)},
        ),
        "hotwords": field("string", "Words to listen for"),
        "keywords[]": field("array", "The same, as a list", **words),
        "languages[]": field("array", "Codes to detect the language among", **words),
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
    }


ANSWERED_LATER = {
    "name": "Prefer",
    "in": "header",
    "description": "`respond-async` answers 202 and the path of a job; with `wait=n` only after n seconds",
    "schema": {"type": "string"},
}
"""The header of a request that does not wait for its answer."""
