"""The errors a speech service answers with, as facts.

Owns the tree; knows neither HTTP nor logging (`replies.py` turns an error into an answer) and imports nothing
of ours. Every message is for the person at the other end: what is wrong and what is accepted.
"""

from collections.abc import Iterable


class SpeechError(Exception):
    """Base of what a caller may be told. `param` names the request field at fault, if one is."""

    param: str | None = None

    def __str__(self) -> str:
        raise NotImplementedError

    @property
    def message(self) -> str:
        """Return what the caller is told: one or two plain sentences."""
        return str(self)


class FieldError(SpeechError):
    """A form field is wrong."""

    def __init__(self, param: str) -> None:
        super().__init__(param)
        self.param: str = param


class MissingField(FieldError):
    """A required field was not sent."""

    def __str__(self) -> str:
        return f"The field '{self.param}' is required."


class RepeatedField(FieldError):
    """A field that carries one value was sent more than once."""

    def __str__(self) -> str:
        return f"The field '{self.param}' was sent more than once; send it once."


class InvalidValue(FieldError):
    """A field carries a value outside what is accepted."""

    def __init__(self, param: str, value: str, accepted: str) -> None:
        super().__init__(param)
        self.value = value
        self.accepted = accepted

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 60 else self.value[:57] + "..."
        return f"Invalid value {shown!r} for '{self.param}'. Accepted: {self.accepted}."


class UnsupportedField(FieldError):
    """A field of OpenAI's API asks for something this service cannot do: refused, never ignored."""

    def __init__(self, param: str, reason: str) -> None:
        super().__init__(param)
        self.reason = reason

    def __str__(self) -> str:
        return f"'{self.param}' is not supported here: {self.reason}."


class UnknownField(FieldError):
    """A field that no version of the API knows."""

    def __init__(self, param: str, accepted: Iterable[str]) -> None:
        super().__init__(param)
        self.accepted = tuple(sorted(accepted))

    def __str__(self) -> str:
        shown = self.param if len(self.param) <= 60 else self.param[:57] + "..."
        return f"Unknown field {shown!r}. Accepted: {', '.join(self.accepted)}."


class MalformedForm(SpeechError):
    """The body is not the form it should be."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The request body is not valid multipart/form-data: {self.reason}"


class EmptyFile(SpeechError):
    """The uploaded file has no bytes."""

    param = "file"

    def __str__(self) -> str:
        return "The uploaded file is empty."


class UnreadableAudio(SpeechError):
    """The uploaded file holds no audio that can be decoded."""

    param = "file"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The file could not be read as audio: {self.reason}."


class TruncatedAudio(UnreadableAudio):
    """The file ends before the length that its own header announces."""

    def __init__(self, announced_s: float, decoded_s: float) -> None:
        super().__init__(
            f"it is cut off, its header announces {announced_s:.1f} s but only {decoded_s:.1f} s are there"
        )
        self.announced_s = announced_s
        self.decoded_s = decoded_s


class AudioTooLong(UnreadableAudio):
    """The recording lasts longer than the limit, however few bytes it came in."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it lasts longer than the limit of {limit_s:g} s (set by MAX_AUDIO)")
        self.limit_s = limit_s


class BodyTooLarge(SpeechError):
    """The body is over the limit. `size_bytes` is None where it was sent without a length."""

    def __init__(self, limit_bytes: int, size_bytes: int | None) -> None:
        super().__init__(limit_bytes, size_bytes)
        self.limit_bytes = limit_bytes
        self.size_bytes = size_bytes

    def __str__(self) -> str:
        size = "The request" if self.size_bytes is None else f"The request of {self.size_bytes} bytes"
        return f"{size} is over the limit of {self.limit_bytes} bytes (set by MAX_UPLOAD)."


class StorageFull(SpeechError):
    """The upload did not fit on the disk it is spooled to."""

    def __str__(self) -> str:
        return "The server has no space left to receive the upload."


class UnknownModel(SpeechError):
    """The named model is not served here."""

    param = "model"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = tuple(known)

    def __str__(self) -> str:
        shown = self.name if len(self.name) <= 100 else self.name[:97] + "..."
        return f"The model {shown!r} does not exist here. Models: {', '.join(self.known)}."


class ModelLoading(SpeechError):
    """The model was not loaded within the time a request waits for it; loading goes on."""

    def __init__(self, waited_s: float, retry_after_s: int) -> None:
        super().__init__(waited_s)
        self.waited_s = waited_s
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return "The model is still being loaded; try again shortly."


class ModelUnavailable(SpeechError):
    """The model could not be loaded, and will not be."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"The model could not be loaded: {self.reason}"
