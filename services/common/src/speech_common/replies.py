"""The one table that turns errors into answers in OpenAI's shape.

Knows `errors.py` and the web framework. Every error answer of a service goes through here, so a client always
finds `{"error": {"message", "type", "param", "code"}}` and never a traceback.
"""

from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from speech_common import errors


class Reply(NamedTuple):
    """How one class of error is answered."""

    status: int
    type: str
    code: str


REQUEST_ID = "speech.request_id"
"""Where `access.py` keeps the request's id in the ASGI scope."""
ERROR_CODE = "speech.error_code"
"""Where the code of a request's error stands in the ASGI scope, to be logged and counted."""

NO_STORE = {"cache-control": "no-store"}
"""For every answer that is somebody's own, or of this moment."""

_INVALID = "invalid_request_error"
_SERVER = "server_error"

# Looked up along the class's ancestors, so a new error is covered by its parent until it gets its own line.
REPLIES: dict[type[errors.SpeechError], Reply] = {
    errors.MissingField: Reply(400, _INVALID, "missing_field"),
    errors.RepeatedField: Reply(400, _INVALID, "repeated_field"),
    errors.InvalidValue: Reply(400, _INVALID, "invalid_value"),
    errors.UnsupportedField: Reply(400, _INVALID, "unsupported_field"),
    errors.UnknownField: Reply(400, _INVALID, "unknown_field"),
    errors.UnexpectedParameter: Reply(400, _INVALID, "unexpected_parameter"),
    errors.MissingKey: Reply(401, _INVALID, "missing_api_key"),
    errors.WrongKey: Reply(401, _INVALID, "invalid_api_key"),
    errors.EncodedBody: Reply(415, _INVALID, "unsupported_encoding"),
    errors.MalformedForm: Reply(400, _INVALID, "malformed_form"),
    errors.EmptyFile: Reply(400, _INVALID, "empty_file"),
    errors.UnreadableAudio: Reply(400, _INVALID, "invalid_audio"),
    errors.TruncatedAudio: Reply(400, _INVALID, "truncated_audio"),
    errors.AudioTooLong: Reply(400, _INVALID, "audio_too_long"),
    errors.UnknownModel: Reply(404, _INVALID, "model_not_found"),
    errors.UnknownJob: Reply(404, _INVALID, "job_not_found"),
    errors.JobUnfinished: Reply(409, _INVALID, "job_unfinished"),
    errors.JobCancelled: Reply(410, _INVALID, "job_cancelled"),
    errors.RequestStalled: Reply(408, _INVALID, "request_timeout"),
    errors.DiarizationUnavailable: Reply(424, _INVALID, "diarization_unavailable"),
    errors.BodyTooLarge: Reply(413, _INVALID, "body_too_large"),
    errors.WorkCrashed: Reply(500, _SERVER, "internal_error"),
    errors.QueueFull: Reply(503, _SERVER, "queue_full"),
    errors.ShuttingDown: Reply(503, _SERVER, "shutting_down"),
    errors.ModelLoading: Reply(503, _SERVER, "model_loading"),
    errors.ModelUnavailable: Reply(503, _SERVER, "model_unavailable"),
    errors.StorageFull: Reply(507, _SERVER, "storage_full"),
}


def error_body(message: str, type_: str, param: str | None, code: str | None) -> dict[str, object]:
    """Return the body that the OpenAI clients read."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def reply_for(error: errors.SpeechError) -> Reply:
    """Return the row of the nearest ancestor that has one. Raises LookupError if none has."""
    for cls in type(error).__mro__:
        reply = REPLIES.get(cls)
        if reply is not None:
            return reply
    raise LookupError(f"no reply for {type(error).__name__}")


def body_for(error: errors.SpeechError) -> dict[str, object]:
    """Return the body of its answer."""
    reply = reply_for(error)
    return error_body(error.message, reply.type, error.param, reply.code)


def response_for(error: errors.SpeechError) -> JSONResponse:
    """Turn an error into its answer.

    5xx, 408 and 409 carry `x-should-retry: false`: the openai SDK would otherwise upload the whole file twice more. A
    full queue is what that is meant for: the SDK comes again when `retry-after` tells it to.
    """
    reply = reply_for(error)
    headers: dict[str, str] = {}
    if (reply.status >= 500 or reply.status in (408, 409)) and not isinstance(error, errors.QueueFull):
        headers["x-should-retry"] = "false"
    if isinstance(error, errors.ModelLoading | errors.QueueFull):
        headers["retry-after"] = str(error.retry_after_s)
    return JSONResponse(body_for(error), reply.status, headers)


async def _unforeseen(request: Request, _: Exception) -> JSONResponse:
    """Answer what nobody foresaw; `access.py` logs the traceback under the same id."""
    request_id = request.scope.get(REQUEST_ID, "unknown")
    message = f"Internal error. The server's log has the details under request id {request_id}."
    request.scope[ERROR_CODE] = "internal_error"
    body = error_body(message, _SERVER, None, "internal_error")
    return JSONResponse(body, 500, {"x-should-retry": "false"})


async def _speech_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, errors.SpeechError)
    request.scope[ERROR_CODE] = reply_for(exc).code
    return response_for(exc)


async def _http_exception(request: Request, exc: Exception) -> JSONResponse:
    """Reshape what the framework raises itself: unknown paths and wrong methods."""
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code)
    message = {
        404: f"There is nothing at {request.method} {request.url.path}; see /docs.",
        405: f"{request.url.path} does not accept {request.method}; see /docs.",
    }.get(exc.status_code, str(exc.detail))
    type_ = _INVALID if exc.status_code < 500 else _SERVER
    request.scope[ERROR_CODE] = code or f"http_{exc.status_code}"
    return JSONResponse(error_body(message, type_, None, code), exc.status_code, exc.headers)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    request.scope[ERROR_CODE] = "invalid_value"
    first = exc.errors()[0]
    param = str(first["loc"][-1]) if first.get("loc") else None
    message = f"Invalid value for '{param}': {first['msg']}."
    return JSONResponse(error_body(message, _INVALID, param, "invalid_value"), 400)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` answer in OpenAI's shape."""
    app.add_exception_handler(errors.SpeechError, _speech_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unforeseen)
