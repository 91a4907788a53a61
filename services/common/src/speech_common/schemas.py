"""What OpenAPI says of forms: schemas by hand, because the forms are read by hand. Owns no behaviour."""

from collections.abc import Mapping
from typing import Any


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


ANSWERED_LATER = {
    "name": "Prefer",
    "in": "header",
    "description": "`respond-async` answers 202 and the path of a job; with `wait=n` only after n seconds",
    "schema": {"type": "string"},
}
"""The header of a request that does not wait for its answer."""
