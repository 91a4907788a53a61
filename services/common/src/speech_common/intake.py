"""From a request to its job, and from the job to the answer: at once, as it is said, or later.

Owns the order in which a request is looked at, and who frees its recording. Knows the framework, forms and jobs; what
the fields of a form mean, and the work itself, are the service's.

| asked for              | answered with                     | when the client leaves               |
|------------------------|-----------------------------------|--------------------------------------|
| nothing of these       | the transcript                    | cancelled                            |
| `stream=true`          | its events, as it is said         | cancelled                            |
| `Prefer: respond-async`| 202 and where to find it          | goes on; cancelled while it does not |
|                        |                                   | know yet where, within its `wait=n`  |
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import BinaryIO, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from speech_common.access import note
from speech_common.events import until_begun
from speech_common.forms import STALLED_AFTER_S, Form, read_form
from speech_common.job_routes import Wanted, accepted, result_of, told
from speech_common.jobs import Job, Jobs, Progress
from speech_common.keys import owner_of
from speech_common.prefer import RespondAsync, respond_async
from speech_common.presence import EventStream, in_thread, while_connected
from speech_common.sound.audio import announced_s
from speech_common.transcript import Transcript


class Asked(NamedTuple):
    """What a form asks for. `work` blocks, in a thread of its own, and may use the file until it returns.

    What only looks at the beginning of a recording is not `is_counted`: see `Jobs.submit`.
    """

    work: Callable[[BinaryIO, Progress], Transcript]
    wanted: Wanted
    is_streamed: bool = False
    is_counted: bool = True


Read = Callable[[Form], Asked]
"""Checks every field of a form but the file. Blocks, as it may look at directories. Raises SpeechError."""


class _Checked(NamedTuple):
    asked: Asked
    file: BinaryIO
    announced_s: float | None


class Intake:
    """Where all requests that bring a recording come in."""

    def __init__(
        self,
        jobs: Jobs,
        max_upload_bytes: int,
        max_audio_s: float,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self._jobs = jobs
        self._max_upload_bytes = max_upload_bytes
        self._max_audio_s = max_audio_s
        self._stalled_after_s = stalled_after_s

    async def answer(self, request: Request, read: Read) -> Response:
        """Answer in the way that is asked for. Raises SpeechError, or ClientDisconnect."""
        preference = respond_async(request.headers.getlist("prefer"))
        job, asked = await self._submit(request, read, keep=preference is not None)
        if preference is not None:
            return await self._answer_later(request, job, preference)
        if asked.is_streamed:
            return await self._stream(request, job)
        await self._wait(request, job)
        return await result_of(job)

    async def transcript(self, request: Request, read: Read) -> Transcript:
        """Return the transcript, whatever way is asked for. Raises SpeechError, or ClientDisconnect."""
        job, _ = await self._submit(request, read, keep=False)
        return await self._wait(request, job)

    async def _submit(self, request: Request, read: Read, *, keep: bool) -> tuple[Job, Asked]:
        """Receive a form and queue its work: what is wrong is told now, not after an hour of others' audio."""
        async with AsyncExitStack() as upload:
            async with self._jobs.admission():
                form = await upload.enter_async_context(
                    await read_form(request, self._max_upload_bytes, self._stalled_after_s)
                )
                checked = await while_connected(request, in_thread(partial(self._check, form, read)))
            asked = checked.asked
            job = self._jobs.submit(
                partial(asked.work, checked.file),
                request=asked.wanted,
                owner=owner_of(request.scope),
                duration_s=checked.announced_s,
                keep=keep,
                is_counted=asked.is_counted,
                on_end=checked.file.close,
            )
            upload.pop_all()  # from here on the file is the job's to close
        note(request.scope, model=asked.wanted.model)
        return job, asked

    def _check(self, form: Form, read: Read) -> _Checked:
        asked = read(form)
        file = form.file()
        return _Checked(asked, file, announced_s(file, self._max_audio_s))

    async def _wait(self, request: Request, job: Job) -> Transcript:
        try:
            return await while_connected(request, job.wait())
        finally:
            self._leave(request, job)

    async def _stream(self, request: Request, job: Job) -> Response:
        try:
            await while_connected(request, until_begun(job))
        except BaseException:
            self._leave(request, job)
            raise
        return EventStream(told(job), partial(self._leave, request, job))

    async def _answer_later(self, request: Request, job: Job, preference: RespondAsync) -> Response:
        note(request.scope, job=job.log_id)
        if preference.wait_s:
            try:
                await while_connected(request, _wait_until_ended(job, preference.wait_s))
            except BaseException:
                self._jobs.forget(job)
                raise
            if job.has_ended:
                self._jobs.forget(job)
                self._leave(request, job)
                response = await result_of(job)
                response.headers["preference-applied"] = preference.applied
                return response
        return accepted(self._jobs, job, preference)

    def _leave(self, request: Request, job: Job) -> None:
        """Cancel the job, unless it has ended, and note for the log what came of it."""
        self._jobs.cancel(job)
        if job.transcript is not None:
            took_s = max(job.worked_s(job.ended_at), 0.001)
            note(
                request.scope,
                language=job.transcript.language,
                audio_s=f"{job.transcript.duration_s:.2f}",
                speed=f"{job.transcript.duration_s / took_s:.1f}",
            )


async def _wait_until_ended(job: Job, within_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await job.ended()
