"""What the documentation says of a transcription's form. Owns no behaviour: `fields.py` says what is accepted."""

from typing import Any

from speech_common.schemas import ANSWERED_LATER, field, form, transcription_fields

from whisper_server.fields import FORMATS

TRANSCRIPTION_FORM: dict[str, Any] = {
    "requestBody": form(
        {
            **transcription_fields(FORMATS),
            "temperature": field("number", "0 to 1", default=0),
            "batch_size": field(
                "integer", "1 to 64: decode at most so many windows together; 1 is one by one"
            ),
        }
    ),
    "parameters": [ANSWERED_LATER],
}
