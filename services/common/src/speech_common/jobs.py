"""Every transcription is a job: the queue, the workers, cancelling, keeping, and the end of it all.

Owns what becomes of a job and when; `job.py` is one of them, `kept.py` those that are kept for later. Knows no HTTP, no
models and no formats. Results are in memory only. Everything is called on the event loop; each job that runs has a
thread of its own, which ends with it.

| state     | a worker is free | the work returns | it raises          | `cancel`  | `close`, after its grace |
|-----------|------------------|------------------|--------------------|-----------|--------------------------|
| queued    | running          | -                | -                  | cancelled | failed: ShuttingDown     |
| running   | -                | completed        | failed: that error | cancelled | failed: ShuttingDown     |
| (the end) | -                | -                | -                  | -         | -                        |

A job that is cancelled while it runs has ended for all who look at it; its worker is free when its thread has come to
the next `Progress.check`, and until then that counts as running.
"""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from speech_common.errors import (
    JobCancelled,
    QueueFull,
    ShuttingDown,
    SpeechError,
    WorkCrashed,
)
from speech_common.job import Abandoned, Job, JobState, Progress, Work, tell
from speech_common.kept import KeptJobs
from speech_common.transcript import Transcript

__all__ = ["Abandoned", "Job", "JobState", "Jobs", "Progress", "Work"]

_log = logging.getLogger("speech.jobs")
# What is assumed before anything was measured, and of a recording whose length is not known or that is on its way.
_USUAL_SPEED = 5.0
_USUAL_AUDIO_S = 60.0
# How much what was measured before counts beside a new measurement: the models and the options change.
_MEMORY = 0.8
# Told to wait longer, the openai SDK gives up; and some places are free by then.
_LONGEST_RETRY_AFTER_S = 120


class Jobs:
    """The jobs of one process: `workers` run, `queue_limit` wait, first come first served.

    Jobs that are to be kept stay for `keep_s` after their end; the result of one that nobody fetched counts as use for
    `hold_s`. `on_ended` is told of every job that ended. `queue_setting` names `queue_limit` to those who are refused.
    """

    def __init__(
        self,
        workers: int,
        queue_limit: int,
        *,
        keep_s: float = 86_400.0,
        hold_s: float = 3_600.0,
        on_ended: Callable[[Job], None] | None = None,
        queue_setting: str | None = None,
    ) -> None:
        self._workers = workers
        self._queue_limit = queue_limit
        self._queue_setting = queue_setting
        self._hold_s = hold_s
        self.on_ended = on_ended
        self._waiting: deque[Job] = deque()
        self._working: set[Job] = set()  # those with a thread, also after they were cancelled
        self._kept = KeptJobs(keep_s, self.forget)
        self._admissions: set[asyncio.Timeout] = set()
        self._some_ended = asyncio.Event()
        self._audio_s = self._work_s = 0.0
        self.is_closing = False

    @property
    def keep_s(self) -> float:
        """Return how long a result can be asked for, at most."""
        return self._kept.keep_s

    @property
    def waiting(self) -> int:
        """Return how many jobs wait for a worker."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Return how many workers are taken."""
        return len(self._working)

    @property
    def is_busy(self) -> bool:
        """Say whether something would be lost if the process was stopped now: work, results, or a half upload."""
        if self._waiting or self._working or self._admissions:
            return True
        held_since = asyncio.get_running_loop().time() - self._hold_s
        return any(not job.is_fetched and job.ended_at > held_since for job in self._kept)

    @property
    def speed(self) -> float | None:
        """Return the seconds of audio that a worker does a second, lately; None before anything was measured."""
        audio_s, work_s = self._audio_s, self._work_s
        for job in self._working:
            if job.is_counted and job.heard_s and not job.has_ended:
                audio_s += job.heard_s
                work_s += job.worked_s(asyncio.get_running_loop().time())
        return audio_s / max(work_s, 0.001) if audio_s else None

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[None]:
        """Receive and check a request within this context, which keeps a place for it; `submit` right after it.

        Raises QueueFull or ShuttingDown on entering, and ShuttingDown in the middle when `close` is called.
        """
        self._refuse_when_full()
        try:
            async with asyncio.timeout(None) as limit:
                self._admissions.add(limit)
                try:
                    yield
                finally:
                    self._admissions.discard(limit)
        except TimeoutError:
            if limit.expired():
                raise ShuttingDown from None
            raise

    def submit(
        self,
        work: Work,
        *,
        request: object = None,
        owner: str | None = None,
        duration_s: float | None = None,
        keep: bool = False,
        is_counted: bool = True,
        on_end: Callable[[], None] | None = None,
    ) -> Job:
        """Queue `work`. `duration_s` is the audio it has, as far as known; `request` is what the maker notes of it.

        What only looks at the beginning of its audio is not `is_counted`: not as work that takes as long as the audio,
        and not for the measured speed.

        `on_end` is called once, in the job's thread or here, when nothing uses any more what the work was given; not
        so where this raises QueueFull or ShuttingDown. Only with `keep` will `get` find the job, and only for `owner`.
        """
        self._refuse_when_full()
        job = Job(
            work, request=request, owner=owner, duration_s=duration_s, is_counted=is_counted, on_end=on_end
        )
        if keep:
            self._kept.add(job)
        self._waiting.append(job)
        self._start_those_next()
        return job

    def get(self, job_id: str, owner: str | None = None) -> Job:
        """Return a kept job. Raises UnknownJob, also for somebody else's."""
        return self._kept.get(job_id, owner)

    def position(self, job: Job) -> int | None:
        """Return its place in the queue, 1 being the next; None where it does not wait."""
        return self._waiting.index(job) + 1 if job.state is JobState.QUEUED else None

    def time_left_s(self, job: Job) -> float | None:
        """Return when it will be done, as measured; None where nothing was measured, or its length is unknown."""
        speed = self.speed
        if job.has_ended or job.duration_s is None or speed is None:
            return None
        if job.state is JobState.RUNNING:
            return _audio_left_s(job) / speed
        ahead = [*self._working, *list(self._waiting)[: self._waiting.index(job)]]
        ahead_s = sum(_audio_left_s(other) for other in ahead)
        return (ahead_s / self._workers + job.duration_s) / speed

    def cancel(self, job: Job) -> None:
        """End it, if it has not ended. Whoever waits for it gets JobCancelled."""
        self._end_early(job, JobState.CANCELLED, JobCancelled())

    def forget(self, job: Job) -> None:
        """Cancel it if need be, and let nobody find it any more; who follows it sees it to its end."""
        self.cancel(job)
        self._kept.remove(job)

    async def close(self, grace_s: float) -> None:
        """Take no more, let what there is end within `grace_s`, and fail the rest with ShuttingDown.

        Does not wait for threads whose job was cut: each ends at its next check, or with the process.
        """
        self.is_closing = True
        for admission in self._admissions:
            if not admission.expired():
                admission.reschedule(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(grace_s):
                while self._waiting or not all(job.has_ended for job in self._working):
                    await self._some_ended.wait()
        except TimeoutError:
            pass
        for job in [*self._waiting, *self._working]:
            self._end_early(job, JobState.FAILED, ShuttingDown())

    def _refuse_when_full(self) -> None:
        if self.is_closing:
            raise ShuttingDown
        taken = len(self._working) + len(self._waiting) + len(self._admissions)
        if taken >= self._workers + self._queue_limit:
            raise QueueFull(self._retry_after_s(), self._queue_setting)

    def _retry_after_s(self) -> int:
        """Return when all that is here now will be done: earlier, those who come again would only meet each other."""
        audio_s = sum(_audio_left_s(job) for job in (*self._working, *self._waiting))
        audio_s += len(self._admissions) * _USUAL_AUDIO_S
        needed_s = audio_s / (self.speed or _USUAL_SPEED) / self._workers
        return max(1, min(math.ceil(needed_s), _LONGEST_RETRY_AFTER_S))

    def _start_those_next(self) -> None:
        while self._waiting and len(self._working) < self._workers:
            job = self._waiting.popleft()
            loop = asyncio.get_running_loop()
            work = job.begin(loop.time())
            self._working.add(job)
            thread = threading.Thread(target=self._run, args=(loop, job, work), name="job", daemon=True)
            try:
                thread.start()
            except RuntimeError as exc:  # no more threads, or no more memory, for now
                job.let_go()
                loop.call_soon(self._worked, job, _crash(job, exc))

    def _run(self, loop: asyncio.AbstractEventLoop, job: Job, work: Callable[[], Transcript]) -> None:
        """Do the work, in its thread, and hand the outcome over."""
        outcome: Transcript | SpeechError
        try:
            outcome = work()
        except Abandoned:
            outcome = JobCancelled()
        except SpeechError as exc:
            # An error outlives the work, and its frames would hold the audio as long.
            exc.__cause__ = exc.__context__ = None
            outcome = exc.with_traceback(None)
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
            outcome = _crash(job, exc)
        del work
        job.let_go()
        tell(loop, self._worked, job, outcome)

    def _worked(self, job: Job, outcome: Transcript | SpeechError) -> None:
        """Take in what the thread of `job` came to, unless the job was ended before."""
        self._working.discard(job)
        if not job.has_ended:
            state = (
                JobState.COMPLETED
                if isinstance(outcome, Transcript)
                else JobState.CANCELLED
                if isinstance(outcome, JobCancelled)
                else JobState.FAILED
            )
            self._end(job, state, outcome)
            if state is JobState.COMPLETED and job.is_counted:
                self._audio_s = self._audio_s * _MEMORY + job.heard_s
                self._work_s = self._work_s * _MEMORY + job.worked_s(job.ended_at)
        self._start_those_next()

    def _end_early(self, job: Job, state: JobState, error: SpeechError) -> None:
        if job.has_ended:
            return
        if job.state is JobState.QUEUED:
            self._waiting.remove(job)
            job.let_go()
        self._end(job, state, error)

    def _end(self, job: Job, state: JobState, result: Transcript | SpeechError) -> None:
        loop = asyncio.get_running_loop()
        job.end(state, loop.time(), result)
        self._some_ended.set()
        self._some_ended = asyncio.Event()
        if job in self._kept:
            took_s = max(0.0, job.ended_at - job.begun_at) if job.started_s else 0.0
            _log.info(
                "event=job_ended job=%s state=%s audio_s=%.2f duration_s=%.3f",
                job.log_id,
                state,
                job.heard_s,
                took_s,
            )
            self._kept.ended(job)
        if self.on_ended is not None:
            loop.call_soon(self.on_ended, job)  # so that what it raises is its own affair


def _audio_left_s(job: Job) -> float:
    if job.has_ended or not job.is_counted:
        return 0.0
    if job.duration_s is None:
        # What has gone on for an hour will not be over in a second.
        return max(_USUAL_AUDIO_S, job.heard_s)
    return max(0.0, job.duration_s - job.heard_s)


def _crash(job: Job, exc: BaseException) -> WorkCrashed:
    """Log what nobody foresaw. The caller learns only where to look."""
    _log.error("event=job_crashed job=%s", job.log_id, exc_info=exc)
    return WorkCrashed(job.log_id)
