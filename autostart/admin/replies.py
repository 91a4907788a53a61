"""What the local API answers when something does not work: the one table from errors to status and body.

Shape, statuses and codes are those of `proxy.replies`; here are the errors that only people get to see. Nothing
is held back: whoever may open the socket may know.
"""

from typing import Any

from autostart import errors
from autostart.admin.facts import failure_facts
from autostart.admin.lookup import AmbiguousService, NoSuchService
from autostart.proxy.replies import Row, row_of

Json = dict[str, Any]

_INVALID = Row(400, "invalid_request", "invalid_request_error")
_UNKNOWN = Row(404, "unknown_service", "invalid_request_error")
_AMBIGUOUS = Row(409, "ambiguous_service", "invalid_request_error")
_BAD_CONFIG = Row(422, "config_invalid", "invalid_request_error")
_RUNTIME_FAILED = Row(502, "runtime_failed")
_MISTAKE = Row(500, "internal_error")


class InvalidRequest(Exception):
    """The request to the local API makes no sense; `param` is what is wrong with it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


TOLD = (errors.AutostartError, NoSuchService, AmbiguousService, InvalidRequest)
"""What `reply` turns into an answer; everything else is a mistake of ours."""


def reply(exc: BaseException) -> tuple[int, Json]:
    """Return status and body for what was raised."""
    match exc:
        case InvalidRequest():
            return _body(_INVALID, str(exc), param=exc.param)
        case NoSuchService():
            return _body(_UNKNOWN, str(exc), param="service", similar=list(exc.similar))
        case AmbiguousService():
            return _body(_AMBIGUOUS, str(exc), param="service", candidates=list(exc.candidates))
        case errors.ConfigError():
            problems = [
                {"where": p.where, "message": p.message, "accepted": p.accepted} for p in exc.problems
            ]
            return _body(_BAD_CONFIG, str(exc), path=str(exc.path), problems=problems)
        case errors.RuntimeFailure():
            return _body(_RUNTIME_FAILED, str(exc), **_told(exc))
        case errors.StartFailed(failure=failure) | errors.StartHeldOff(failure=failure):
            told: Json = {"service": exc.service, "retry_after_s": exc.retry_after_s, **_told(failure)}
            return _body(row_of(exc), str(exc), **told)
        case errors.ServiceUnavailable():
            return _body(row_of(exc), str(exc), service=exc.service, retry_after_s=exc.retry_after_s)
        case errors.AutostartError():
            return _body(row_of(exc), str(exc))
        case _:
            return _body(_MISTAKE, "autostart itself made a mistake; its log tells more")


def _told(failure: errors.RuntimeFailure) -> Json:
    return {key: value for key, value in failure_facts(failure).items() if key != "message"}


def _body(row: Row, message: str, *, param: str | None = None, **facts: Any) -> tuple[int, Json]:
    error = {"message": message, "type": row.kind, "param": param, "code": row.code}
    return row.status, {"error": error, **facts}
