"""Jobs over HTTP: what became of one, its result, its events, its end; and whether the service is busy.

Owns the paths and the JSON of a job. Knows the framework, jobs, formats and the table of errors; no models.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from speech_common.errors import InvalidValue, JobUnfinished, UnknownField
from speech_common.events import events, until_begun
from speech_common.formats import Granularity, ResponseFormat, render
from speech_common.health import add_look
from speech_common.jobs import Job, Jobs
from speech_common.keys import owner_of
from speech_common.prefer import RespondAsync
from speech_common.presence import EventStream, Stream, while_connected
from speech_common.replies import NO_STORE, body_for

_PATH = "/v1/audio/jobs/{job_id}"
_PIECE_BYTES = 65_536


class Wanted(NamedTuple):
    """What a job was asked for: its `request`."""

    model: str
    response_format: ResponseFormat
    granularities: frozenset[Granularity]


def job_body(jobs: Jobs, job: Job) -> dict[str, object]:
    """Return the JSON of a job. Times of the day are Unix seconds, `null` until then; the rest is seconds."""
    left_s = jobs.time_left_s(job)
    return {
        "id": job.id,
        "object": "transcription.job",
        "state": job.state,
        "position": jobs.position(job),
        "percent": job.percent,
        "time_left": None if left_s is None else round(left_s, 1),
        "text": job.text,
        "model": _wanted(job).model,
        "language": job.language,
        "duration": None if job.duration_s is None else round(job.duration_s, 3),
        "created_at": int(job.created_s),
        "started_at": None if job.started_s is None else int(job.started_s),
        "ended_at": None if job.ended_s is None else int(job.ended_s),
        "expires_at": None if job.ended_s is None else int(job.ended_s + jobs.keep_s),
        "error": None if job.error is None else body_for(job.error)["error"],
    }


def accepted(jobs: Jobs, job: Job, preference: RespondAsync) -> JSONResponse:
    """Answer 202: where the job can be asked for from now on (RFC 9110, 15.3.3; RFC 7240, 4.1)."""
    headers = {"location": _PATH.format(job_id=job.id), "preference-applied": preference.applied, **NO_STORE}
    return JSONResponse(job_body(jobs, job), 202, headers)


async def result_of(job: Job, response_format: ResponseFormat | None = None) -> Response:
    """Answer with the transcript, in the format asked for with the job or in another. Raises the job's error."""
    if not job.has_ended:
        raise JobUnfinished
    if job.transcript is None:
        assert job.error is not None
        raise job.error.with_traceback(None)
    wanted = _wanted(job)
    # In a thread: hours of words take a second, and the others would wait.
    body, content_type = await asyncio.to_thread(
        render, job.transcript, response_format or wanted.response_format, wanted.granularities
    )
    return Response(body, headers={"content-type": content_type, **NO_STORE})


def install_job_routes(app: FastAPI, jobs: Jobs, formats: Sequence[ResponseFormat]) -> None:
    """Add the routes. `formats` are those a result can be fetched in."""

    def job_of(request: Request) -> Job:
        return jobs.get(request.path_params["job_id"], owner_of(request.scope))

    async def look(request: Request) -> JSONResponse:
        job = job_of(request)
        # Of a job that failed or was cancelled, this is all there is to fetch.
        job.is_fetched |= job.has_ended and job.transcript is None
        return JSONResponse(job_body(jobs, job), headers=NO_STORE)

    async def result(request: Request) -> Response:
        job = job_of(request)
        response_format = _format_in_query(request, formats)
        job.is_fetched |= job.error is not None  # which `look` tells too, as often as it is asked
        response = await result_of(job, response_format)
        return Stream(_fetched_by(request, job, _cut(bytes(response.body))), headers=response.headers)

    async def follow(request: Request) -> Response:
        job = job_of(request)
        await while_connected(request, until_begun(job, 0))
        return EventStream(_fetched_by(request, job, told(job)))

    async def end(request: Request) -> Response:
        job = job_of(request)
        if job.has_ended:
            jobs.forget(job)
        else:
            jobs.cancel(job)
            job.is_fetched = True
        return Response(status_code=204)

    async def busy() -> JSONResponse:
        return JSONResponse({"busy": jobs.is_busy}, headers=NO_STORE)

    routes: tuple[tuple[str, str, Any, str], ...] = (
        ("GET", "", look, "State, position in the queue, percent, text so far and time left"),
        ("GET", "/result", result, "The finished transcript"),
        ("GET", "/events", follow, "The transcript as server-sent events, from its beginning"),
        ("DELETE", "", end, "Cancel what waits or runs; forget what has ended"),
    )
    for method, path, endpoint, summary in routes:
        app.add_api_route(
            _PATH + path,
            endpoint,
            methods=[method],
            summary=summary,
            tags=["jobs"],
            response_model=None,
            operation_id=f"{endpoint.__name__}_job",
            openapi_extra=_schema_of_result(formats) if endpoint is result else _SCHEMA,
        )
    add_look(app, "/health/busy", busy, "Whether stopping the service now would lose work or results")


def told(job: Job) -> AsyncGenerator[bytes, None]:
    """Tell what a job says as server-sent events, in the kind that was asked for."""
    return events(job, is_diarized=_wanted(job).response_format is ResponseFormat.DIARIZED_JSON)


def _wanted(job: Job) -> Wanted:
    assert isinstance(job.request, Wanted)
    return job.request


def _format_in_query(request: Request, formats: Sequence[ResponseFormat]) -> ResponseFormat | None:
    for name in request.query_params:
        if name != "response_format":
            raise UnknownField(name, ["response_format"])
    value = request.query_params.get("response_format")
    if value and value not in formats:
        raise InvalidValue("response_format", value, ", ".join(formats))
    return ResponseFormat(value) if value else None


async def _fetched_by(
    request: Request, job: Job, pieces: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Pass pieces of an answer on; when they have gone out to a client that is still there, the result was fetched."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    yield b""  # is passed on when there is room for it
    if not await request.is_disconnected():
        job.is_fetched = True


async def _cut(body: bytes) -> AsyncGenerator[bytes, None]:
    """Cut a body in pieces: whether a client took all of a large one would not be known."""
    for first in range(0, len(body), _PIECE_BYTES):
        yield body[first : first + _PIECE_BYTES]


_JOB_ID = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
_SCHEMA: dict[str, Any] = {"parameters": [_JOB_ID]}


def _schema_of_result(formats: Sequence[ResponseFormat]) -> dict[str, Any]:
    wanted = {
        "name": "response_format",
        "in": "query",
        "description": "Left out: the format asked for with the recording",
        "schema": {"type": "string", "enum": list(formats)},
    }
    return {"parameters": [_JOB_ID, wanted]}
