"""One job: what a worker thread tells of it, and what others see of it.

Owns a job's state and who is told of changes; `jobs.py` decides when it begins and ends. Knows no HTTP, no models, no
formats. A job belongs to the event loop, and is changed and looked at there only; its thread has a `Progress` instead,
whose methods hand over to the loop (`call_soon_threadsafe` keeps their order) and do nothing once that is closed.
"""

import asyncio
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeVarTuple, Unpack

from speech_common.errors import SpeechError
from speech_common.transcript import Segment, Transcript

_log = logging.getLogger("speech.jobs")
Args = TypeVarTuple("Args")

LOGGED_OF_ID = 6
"""How many characters of a job's id a log may show: enough to find it, 16 too few to ask for it."""


class Abandoned(Exception):
    """Nobody waits for the work any more. Raised in its thread by `Progress.check`; let it pass."""


class Progress(Protocol):
    """What a worker thread tells of its work. Every method is thread-safe and cheap."""

    def check(self) -> None:
        """Raise Abandoned once the job was cancelled. To be called at least once a decoded window."""

    def known(self, *, duration_s: float | None = None, language: str | None = None) -> None:
        """Tell the length of the recording or its language (ISO 639-1), as soon as it is known.

        The first thing told, whatever it is, begins the measuring of speed: a model that had to be loaded is none.
        """

    def said(self, segment: Segment) -> None:
        """Tell a finished segment: in order, each once, never to be changed."""

    def heard(self, until_s: float) -> None:
        """Tell that the recording is done up to here, silence included."""


Work = Callable[[Progress], Transcript]
"""Blocks, in a thread of its own. Raises SpeechError or Abandoned. It may say nothing before it returns; what it said
is how its transcript begins."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job:
    """One recording on its way to a transcript.

    To look at: `created_s`, `started_s` and `ended_s` are seconds since 1970, None until then; `begun_at` and `ended_at`
    are the loop's own seconds. What is no transcription is not `is_counted`: its seconds of audio say nothing. The methods
    `begin`, `end` and `let_go` are for `Jobs`.
    """

    def __init__(
        self,
        work: Work,
        *,
        request: object,
        owner: str | None,
        duration_s: float | None,
        is_counted: bool,
        on_end: Callable[[], None] | None,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.request = request
        """What its maker noted of it, such as the format asked for."""
        self.owner = owner
        self.state = JobState.QUEUED
        self.created_s = time.time()
        self.started_s: float | None = None
        self.ended_s: float | None = None
        self.begun_at = self.ended_at = math.inf
        self._told_at = math.inf
        self.is_counted = is_counted
        self.duration_s = duration_s
        self.language: str | None = None
        self.heard_s = 0.0
        self.segments: list[Segment] = []
        self.transcript: Transcript | None = None
        self.error: SpeechError | None = None
        self.is_fetched = False
        """Whether somebody saw how it ended: from then on a kept job keeps nothing up."""
        self._work: Work | None = work
        self._on_end = on_end
        self._gone = threading.Event()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Job {self.log_id} {self.state}>"

    @property
    def log_id(self) -> str:
        """Return what a log may say of the id. The whole of it opens the transcript to whoever reads it."""
        return self.id[:LOGGED_OF_ID]

    @property
    def has_ended(self) -> bool:
        """Say whether nothing will change any more."""
        return self.ended_s is not None

    @property
    def text(self) -> str:
        """Return what was said so far, without surrounding white space."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def percent(self) -> int | None:
        """Return how much of the recording is done: 100 only when completed, None where its length is unknown."""
        if self.state is JobState.COMPLETED:
            return 100
        if self.duration_s is None or self.duration_s <= 0:
            return None
        return min(99, int(100 * self.heard_s / self.duration_s))

    def worked_s(self, now: float) -> float:
        """Return the seconds of work on the recording until `now`, which is the loop's, or until its end."""
        began_at = self._told_at if self._told_at < math.inf else self.begun_at
        return max(0.0, min(now, self.ended_at) - began_at)

    async def changed(self) -> None:
        """Wait for the next change: a segment, or the end. Look at the job before waiting, with no await between."""
        await self._changed.wait()

    async def ended(self) -> None:
        """Wait for the end, well or not."""
        while not self.has_ended:
            await self.changed()

    async def wait(self) -> Transcript:
        """Wait for the transcript. Raises the job's error. Cancelling leaves the job alone."""
        await self.ended()
        if self.transcript is None:
            assert self.error is not None
            raise self.error.with_traceback(None)  # else each waiter's frames are added to the last one's
        return self.transcript

    def begin(self, now: float) -> Callable[[], Transcript]:
        """Make it run. Returns the work, which blocks, for a thread to call; `let_go` is to follow it."""
        assert self._work is not None
        work, self._work = self._work, None
        self.state = JobState.RUNNING
        self.started_s = time.time()
        self.begun_at = now
        progress = _Progress(self, self._gone, asyncio.get_running_loop())
        return lambda: work(progress)

    def end(self, state: JobState, now: float, result: Transcript | SpeechError) -> None:
        """Make it ended, for all who look at it. Its thread is told to abandon what it still does."""
        assert not self.has_ended
        if isinstance(result, Transcript):
            self.transcript = result
            self.segments.extend(result.segments[len(self.segments) :])
            self.duration_s = self.heard_s = result.duration_s
            self.language = result.language
        else:
            self.error = result
        self.state = state
        self.ended_s = time.time()
        self.ended_at = now
        self._gone.set()
        self._tell()

    def let_go(self) -> None:
        """Free what the work was given. Called once, in any thread, when nobody uses it from here on."""
        self._work = None
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            try:
                on_end()
            except Exception:  # noqa: BLE001 -- a file that does not close is no reason to lose the transcript
                _log.exception("event=job_not_freed job=%s", self.log_id)

    def learn(self, duration_s: float | None, language: str | None) -> None:
        """Take in what its thread found out."""
        if not self.has_ended:
            self._begin_measuring()
            self.duration_s = self.duration_s if duration_s is None else duration_s
            self.language = self.language if language is None else language

    def add(self, segment: Segment) -> None:
        """Take in what was said."""
        if not self.has_ended:
            self._begin_measuring()
            self.segments.append(segment)
            self.heard_s = max(self.heard_s, segment.end)
            self._tell()

    def advance(self, until_s: float) -> None:
        """Take in how far its thread has come."""
        if not self.has_ended:
            self._begin_measuring()
            self.heard_s = max(self.heard_s, until_s)

    def _begin_measuring(self) -> None:
        self._told_at = min(self._told_at, asyncio.get_running_loop().time())

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Progress:
    """A thread's side of a job."""

    def __init__(self, job: Job, gone: threading.Event, loop: asyncio.AbstractEventLoop) -> None:
        self._job = job
        self._gone = gone
        self._loop = loop

    def check(self) -> None:
        if self._gone.is_set():
            raise Abandoned

    def known(self, *, duration_s: float | None = None, language: str | None = None) -> None:
        tell(self._loop, self._job.learn, duration_s, language)

    def said(self, segment: Segment) -> None:
        tell(self._loop, self._job.add, segment)

    def heard(self, until_s: float) -> None:
        tell(self._loop, self._job.advance, until_s)


def tell(loop: asyncio.AbstractEventLoop, call: Callable[[Unpack[Args]], None], *args: *Args) -> None:
    """Have `loop` make a call, from any thread; nobody is left to hear of it once the loop is closed."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
