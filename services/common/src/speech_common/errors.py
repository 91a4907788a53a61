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
        return f"Invalid value {_shown(self.value)} for '{self.param}'. Accepted: {self.accepted}."


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
        return f"Unknown field {_shown(self.param)}. Accepted: {', '.join(self.accepted)}."


class UnexpectedParameter(FieldError):
    """A parameter came in the address, where it would be logged by every proxy on the way."""

    def __str__(self) -> str:
        return f"Unexpected parameter {_shown(self.param)} in the address; send it as a field of the form."


class MissingKey(SpeechError):
    """The service asks for an API key, and none was sent."""

    def __str__(self) -> str:
        return "An API key is needed: send it as 'Authorization: Bearer <key>'."


class WrongKey(SpeechError):
    """The API key sent is not one of those configured."""

    def __str__(self) -> str:
        return "Incorrect API key provided."


class EncodedBody(SpeechError):
    """The body was sent compressed."""

    def __init__(self, encoding: str) -> None:
        super().__init__(encoding)
        self.encoding = encoding

    def __str__(self) -> str:
        return f"The Content-Encoding {_shown(self.encoding)} is not accepted; send the form as it is."


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


class RequestStalled(SpeechError):
    """Nothing more of the body came for so long that its client must be gone, or hardly anything for longer."""

    def __init__(self, stalled_s: float) -> None:
        super().__init__(stalled_s)
        self.stalled_s = stalled_s

    def __str__(self) -> str:
        return f"Nothing, or hardly anything, of the request's body came for {self.stalled_s:g} s; send it again."


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
        return f"The model {_shown(self.name, 100)} does not exist here. Models: {', '.join(self.known)}."


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


class DiarizationUnavailable(SpeechError):
    """Speakers cannot be told apart, and will not be until somebody has done what `reason` says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"Speakers cannot be told apart: {self.reason}"


class QueueFull(SpeechError):
    """As many recordings wait, or are being received, as may wait. `setting` is what limits them, where it has a name."""

    def __init__(self, retry_after_s: int, setting: str | None = None) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s
        self.setting = setting

    def __str__(self) -> str:
        limited = f" (set by {self.setting})" if self.setting else ""
        return f"The queue is full{limited}; try again in {self.retry_after_s} s."


class ShuttingDown(SpeechError):
    """The server ends before the work is done, and takes no more."""

    def __str__(self) -> str:
        return "The server is shutting down."


class UnknownJob(SpeechError):
    """There is no such job, or it expired, or it is somebody else's."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return "There is no such job here. Its result may have expired, or it was made with another API key."


class JobUnfinished(SpeechError):
    """The result of a job was asked for before there is one."""

    def __str__(self) -> str:
        return "The job has no result yet; ask for its state, or follow its events."


class JobCancelled(SpeechError):
    """The job was cancelled."""

    def __str__(self) -> str:
        return "The job was cancelled."


class WorkCrashed(SpeechError):
    """The work ended in a way that nobody foresaw; the log has the traceback under the beginning of the job's id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"Internal error. The server's log has the details under job id {self.job_id}."


def _shown(given: str, longest: int = 60) -> str:
    """Quote what a caller sent, its end left out where it is long."""
    return repr(given if len(given) <= longest else given[: longest - 3] + "...")
