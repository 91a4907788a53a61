"""The jobs that can still be asked for: by whom, for how long, and which goes first where there are too many.

Owns the limits of what is kept in memory, in number and in size; `jobs.py` decides what is kept. Knows jobs only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

from speech_common.errors import UnknownJob
from speech_common.job import Job
from speech_common.transcript import Segment

# Results that nobody fetches or deletes may not fill the memory before they expire.
_MOST = 1000
_MOST_BYTES = 64_000_000
# What Python's objects take, measured and rounded up: of a job, a segment, one of its tokens, a word, a character.
_JOB_BYTES, _SEGMENT_BYTES, _TOKEN_BYTES, _WORD_BYTES, _CHARACTER_BYTES = 4_000, 600, 40, 250, 2


class KeptJobs:
    """Jobs by their id. Those that have ended expire after `keep_s`, or make room before that for newer ones.

    Over `most` of them, or over `most_bytes` as estimated, first those go whose end somebody saw, the oldest before the
    others; then the oldest of the owner who has most. So nobody can push out what another has not fetched, unless it
    was he who filled the room. `forget` is called with a job whose time has come.
    """

    def __init__(
        self,
        keep_s: float,
        forget: Callable[[Job], None],
        *,
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self.keep_s = keep_s
        self._forget = forget
        self._most = most
        self._most_bytes = most_bytes
        self._jobs: dict[str, Job] = {}
        self._expiries: dict[Job, asyncio.TimerHandle] = {}  # of those that ended, in that order
        self._sizes: Counter[Job] = Counter()

    def __contains__(self, job: Job) -> bool:
        return job.id in self._jobs

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def add(self, job: Job) -> None:
        """Keep a job, for as long as it has not ended."""
        self._jobs[job.id] = job

    def get(self, job_id: str, owner: str | None) -> Job:
        """Return a job to its owner. Raises UnknownJob, also for somebody else's."""
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise UnknownJob(job_id)
        return job

    def remove(self, job: Job) -> None:
        """Keep it no longer, if it was kept."""
        self._jobs.pop(job.id, None)
        self._sizes.pop(job, None)
        if (expiry := self._expiries.pop(job, None)) is not None:
            expiry.cancel()

    def ended(self, job: Job) -> None:
        """Begin the time of a kept job that has ended, and make room for it."""
        self._expiries[job] = asyncio.get_running_loop().call_later(self.keep_s, self._forget, job)
        self._sizes[job] = estimated_bytes(job)
        while len(self._expiries) > self._most:
            self._forget(self._next_to_go(dict.fromkeys(self._expiries, 1), job))
        while self._sizes.total() > self._most_bytes and len(self._expiries) > 1:
            self._forget(self._next_to_go(self._sizes, job))

    def _next_to_go(self, shares: dict[Job, int], newest: Job) -> Job:
        """Choose by how much of what is short each job takes."""
        older = [job for job in self._expiries if job is not newest]
        for job in older:
            if job.is_fetched:
                return job
        taken: Counter[str | None] = Counter()
        for job in self._expiries:
            taken[job.owner] += shares[job]
        return max(older, key=lambda job: taken[job.owner])  # the first of the largest, which is the oldest


def estimated_bytes(job: Job) -> int:
    """Return about how much memory a job that has ended takes."""
    return _JOB_BYTES + sum(map(_segment_bytes, job.segments))


def _segment_bytes(segment: Segment) -> int:
    return (
        _SEGMENT_BYTES
        + _CHARACTER_BYTES * len(segment.text)
        + _TOKEN_BYTES * len(segment.tokens)
        + _WORD_BYTES * len(segment.words)
    )
