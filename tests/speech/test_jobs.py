"""The queue and its jobs, without HTTP and with work that does what the test says."""

import asyncio
import functools
import gc
import io
import queue
import threading
import tracemalloc
import weakref

import pytest
from speech_common.errors import (
    EmptyFile,
    JobCancelled,
    QueueFull,
    ShuttingDown,
    UnknownJob,
    UnreadableAudio,
    WorkCrashed,
)
from speech_common.jobs import Abandoned, Job, Jobs, JobState
from speech_common.kept import KeptJobs, estimated_bytes
from speech_common.transcript import Segment, Transcript, Word
from waiting import LIMIT_S, until


def asynchronously(test):
    """Run a coroutine as a test; each ends with all its threads."""

    async def main(*args, **kwargs):
        async with asyncio.timeout(LIMIT_S):
            await test(*args, **kwargs)

    @functools.wraps(test)
    def run(*args, **kwargs):
        before = set(threading.enumerate())
        asyncio.run(main(*args, **kwargs))
        for thread in set(threading.enumerate()) - before:
            thread.join(LIMIT_S)
            assert not thread.is_alive(), thread

    return run


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock a test moves on."""

    skipped_s = 0.0

    def time(self):
        return super().time() + self.skipped_s

    async def skip(self, seconds):
        self.skipped_s += seconds
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def stepped(test):
    """Run a coroutine as a test; it is given the loop."""

    def run():
        with asyncio.Runner(loop_factory=SteppedLoop) as runner:
            runner.run(test(runner.get_loop()))

    return run


def segment(number, text=None):
    return Segment(number, float(number), number + 1.0, f" s{number}" if text is None else text)


def transcript(count, duration_s=None, language="en"):
    segments = tuple(segment(number) for number in range(count))
    return Transcript("transcribe", language, float(count) if duration_s is None else duration_s, segments)


class Said:
    """Work that says, one a step, what the test lets it say."""

    def __init__(self, ends=None):
        self.begun = threading.Event()
        self.thread = None
        self.said = 0
        self._ends = ends
        self._steps = queue.SimpleQueue()

    def __call__(self, progress):
        self.thread = threading.current_thread()
        self.begun.set()
        while self._steps.get(timeout=LIMIT_S):
            progress.check()
            progress.said(segment(self.said))
            self.said += 1
        if self._ends is not None:
            raise self._ends
        return transcript(self.said)

    def say(self, count=1):
        """Let it come to its next check, and say one more, so many times."""
        for _ in range(count):
            self._steps.put(True)

    def end(self):
        self._steps.put(False)


@asynchronously
async def test_job_tells_what_it_says_and_ends_with_its_transcript():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work, duration_s=4.0)
    assert (job.state, job.percent, job.text) == (JobState.RUNNING, 0, "")
    work.say(3)
    await until(lambda: len(job.segments) == 3)
    assert (job.state, job.percent, job.text) == (JobState.RUNNING, 75, "s0 s1 s2")
    work.end()
    assert await job.wait() == transcript(3)
    assert (job.state, job.percent, job.language, job.duration_s) == (JobState.COMPLETED, 100, "en", 3.0)
    assert job.created_s <= job.started_s <= job.ended_s


@asynchronously
async def test_work_may_say_nothing_before_it_returns():
    job = Jobs(1, 1).submit(lambda _: transcript(2))
    assert await collect(job) == ["s0", "s1"]


@asynchronously
async def test_what_a_thread_finds_out_is_seen_before_the_end():
    may_end = threading.Event()

    def work(progress):
        progress.known(duration_s=100.0)
        progress.known(language="fr")
        progress.heard(30.0)
        progress.heard(20.0)
        may_end.wait(LIMIT_S)
        return transcript(1)

    job = Jobs(1, 1).submit(work)
    await until(lambda: job.heard_s)
    assert (job.duration_s, job.language, job.percent) == (100.0, "fr", 30)
    may_end.set()
    await job.wait()


@asynchronously
async def test_percent_never_says_100_before_the_end():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work, duration_s=1.0)
    work.say(3)
    await until(lambda: len(job.segments) == 3)
    assert job.percent == 99
    work.end()
    await job.wait()


@asynchronously
async def test_jobs_run_in_the_order_they_came():
    jobs, began = Jobs(1, 9), []

    def work(number):
        return lambda _: began.append(number) or transcript(1)

    first = Said()
    jobs.submit(first)
    others = [jobs.submit(work(number)) for number in range(5)]
    assert [jobs.position(job) for job in others] == [1, 2, 3, 4, 5]
    first.end()
    await others[-1].wait()
    assert began == [0, 1, 2, 3, 4]


@asynchronously
async def test_no_more_run_than_there_are_workers():
    jobs = Jobs(2, 9)
    works = [Said() for _ in range(4)]
    made = [jobs.submit(work) for work in works]
    assert (jobs.running, jobs.waiting) == (2, 2)
    works[1].end()
    await until(works[2].begun.is_set)
    assert (jobs.running, jobs.waiting, made[3].state) == (2, 1, JobState.QUEUED)
    for work in works:
        work.end()
    await asyncio.gather(*(job.wait() for job in made))
    await until(lambda: jobs.running == 0)


@asynchronously
async def test_full_queue_refuses_and_takes_again_when_one_has_ended():
    jobs = Jobs(1, 2)
    works = [Said() for _ in range(3)]
    made = [jobs.submit(work) for work in works]
    with pytest.raises(QueueFull):
        jobs.submit(Said(), on_end=lambda: pytest.fail("it was not taken"))
    with pytest.raises(QueueFull):
        async with jobs.admission():
            pytest.fail("it would be refused after its upload")
    works[0].end()
    await made[0].wait()
    made.append(jobs.submit(lambda _: transcript(1)))
    for work in works[1:]:
        work.end()
    await asyncio.gather(*(job.wait() for job in made))


@asynchronously
async def test_each_admission_keeps_a_place():
    """Else all who upload at once would be received, and most of them refused afterwards."""
    jobs, work = Jobs(1, 2, queue_setting="LIMIT"), Said()
    running = jobs.submit(work)
    async with jobs.admission(), jobs.admission():
        with pytest.raises(QueueFull, match=r"The queue is full \(set by LIMIT\); try again in 36 s"):
            async with jobs.admission():
                pytest.fail("there is no place left for it")
    async with jobs.admission():
        pass
    waiting = jobs.submit(lambda _: transcript(1))
    work.end()
    await asyncio.gather(running.wait(), waiting.wait())


@asynchronously
async def test_full_queue_says_when_those_who_wait_will_be_done():
    jobs, work = Jobs(1, 1), Said()
    jobs.submit(work, duration_s=50.0)
    job = jobs.submit(lambda _: transcript(1), duration_s=25.0)
    with pytest.raises(QueueFull) as refused:
        jobs.submit(work)
    assert refused.value.retry_after_s == 15  # at 5 times real time, which is assumed
    work.end()
    await job.wait()


@pytest.mark.parametrize(("audio_s", "retry_after_s"), [(0.1, 1), (100.0, 50), (100_000.0, 120)])
def test_full_queue_goes_by_the_measured_speed(audio_s, retry_after_s):
    async def main():
        jobs = Jobs(1, 0)
        jobs._audio_s, jobs._work_s = 200.0, 100.0
        work = Said()
        job = jobs.submit(work, duration_s=audio_s)
        with pytest.raises(QueueFull) as refused:
            jobs.submit(work)
        assert refused.value.retry_after_s == retry_after_s
        work.end()
        await job.wait()

    asyncio.run(main())


@stepped
async def test_speed_is_measured_on_what_was_done_and_on_what_runs(loop):
    jobs = Jobs(1, 4)
    assert jobs.speed is None
    first = Said()
    done = jobs.submit(first)
    first.say(1)
    await until(lambda: done.segments)
    await loop.skip(10.0)
    first.say(39)
    await until(lambda: len(done.segments) == 40)
    assert jobs.speed == pytest.approx(40.0 / (loop.time() - done.begun_at), rel=0.01)
    second = jobs.submit(Said(), duration_s=80.0)
    assert jobs.time_left_s(second) == pytest.approx((60.0 + 80.0) / jobs.speed, rel=0.2)
    first.end()
    await done.wait()
    assert jobs.speed == pytest.approx(4.0, rel=0.2)
    assert jobs.time_left_s(done) is None
    jobs.cancel(second)


@stepped
async def test_loading_a_model_is_no_slowness(loop):
    jobs, may_begin, may_end = Jobs(1, 1), threading.Event(), threading.Event()

    def work(progress):
        may_begin.wait(LIMIT_S)
        progress.known(duration_s=100.0)
        may_end.wait(LIMIT_S)
        return transcript(1, duration_s=100.0)

    job = jobs.submit(work)
    await loop.skip(1000.0)
    may_begin.set()
    await until(lambda: job.duration_s)
    await loop.skip(10.0)
    may_end.set()
    await job.wait()
    assert jobs.speed == pytest.approx(10.0, rel=0.5)
    assert job.worked_s(loop.time() + 5.0) == pytest.approx(10.0, rel=0.5)


@asynchronously
async def test_what_is_no_transcription_says_nothing_of_the_speed_and_takes_no_time():
    jobs, first, second = Jobs(1, 1), Said(), Said()
    looked_at = [jobs.submit(work, duration_s=14_400.0, is_counted=False) for work in (first, second)]
    first.say()
    await until(lambda: looked_at[0].heard_s)
    assert jobs.speed is None
    with pytest.raises(QueueFull) as refused:
        jobs.submit(Said())
    assert refused.value.retry_after_s == 1
    first.end()
    second.end()
    await looked_at[1].wait()
    assert jobs.speed is None


@asynchronously
async def test_recording_of_unknown_length_is_not_taken_to_end_at_once():
    jobs, work = Jobs(1, 0), Said()
    job = jobs.submit(work)
    retries = []
    for heard in (0, 30, 3000):
        work.say(heard - work.said)
        await until(lambda heard=heard: len(job.segments) == heard)
        jobs._audio_s, jobs._work_s = 1e9, 1e9 / 100  # as if 100 times real time was measured
        with pytest.raises(QueueFull) as refused:
            jobs.submit(Said())
        retries.append(refused.value.retry_after_s)
    assert retries == [1, 1, 30]
    work.end()
    await job.wait()


@asynchronously
async def test_cancelled_in_the_queue_leaves_it_at_once():
    jobs, first, closed = Jobs(1, 2), Said(), []
    jobs.submit(first)
    second = jobs.submit(Said(), on_end=lambda: closed.append(2))
    third = jobs.submit(lambda _: transcript(1))
    jobs.cancel(second)
    assert (jobs.waiting, jobs.position(third), closed) == (1, 1, [2])
    with pytest.raises(JobCancelled):
        await second.wait()
    first.end()
    await third.wait()
    assert second.state is JobState.CANCELLED


@asynchronously
async def test_cancelled_while_it_runs_has_ended_at_once_and_frees_the_worker_at_its_next_check():
    jobs, work, closed = Jobs(1, 1), Said(), threading.Event()
    job = jobs.submit(work, on_end=closed.set)
    after = jobs.submit(lambda _: transcript(1))
    await until(work.begun.is_set)
    jobs.cancel(job)
    with pytest.raises(JobCancelled):
        await job.wait()
    assert (job.state, after.state, closed.is_set()) == (JobState.CANCELLED, JobState.QUEUED, False)
    assert jobs.is_busy
    work.say()
    work.end()
    await after.wait()
    assert closed.is_set()
    assert (job.state, job.segments, work.said) == (JobState.CANCELLED, [], 0)


@asynchronously
async def test_work_that_does_not_look_and_returns_all_the_same_stays_cancelled():
    jobs, may_end = Jobs(1, 1), threading.Event()

    def deaf(progress):
        may_end.wait(LIMIT_S)
        progress.known(duration_s=5.0, language="fr")
        progress.said(segment(0))
        progress.heard(1.0)
        return transcript(1)

    job = jobs.submit(deaf)
    jobs.cancel(job)
    jobs.cancel(job)
    may_end.set()
    await until(lambda: jobs.running == 0)
    assert (job.state, job.transcript, job.segments, job.duration_s) == (JobState.CANCELLED, None, [], None)


@asynchronously
async def test_file_is_closed_when_its_thread_is_done_with_it_and_before_the_job_is_seen_to_end():
    jobs, file, seen = Jobs(1, 1), io.BytesIO(b"x"), []
    may_end = threading.Event()

    def work(_):
        may_end.wait(LIMIT_S)
        seen.append(file.read())
        return transcript(1)

    job = jobs.submit(work, on_end=file.close)
    assert not file.closed
    may_end.set()
    await job.wait()
    assert (seen, file.closed) == ([b"x"], True)


@pytest.mark.parametrize(
    ("raised", "error", "state"),
    [
        (EmptyFile(), EmptyFile, JobState.FAILED),
        (UnreadableAudio("it is a picture"), UnreadableAudio, JobState.FAILED),
        (ValueError("no such thing"), WorkCrashed, JobState.FAILED),
        (MemoryError(), WorkCrashed, JobState.FAILED),
        (SystemExit(3), WorkCrashed, JobState.FAILED),
        (KeyboardInterrupt(), WorkCrashed, JobState.FAILED),
        (asyncio.CancelledError(), WorkCrashed, JobState.FAILED),
        (StopIteration(), WorkCrashed, JobState.FAILED),
        (Abandoned(), JobCancelled, JobState.CANCELLED),
    ],
    ids=["foreseen", "with_facts", "value", "memory", "exit", "interrupt", "cancelled", "stop", "abandoned"],
)
@asynchronously
async def test_whatever_the_work_raises_ends_the_job_and_frees_the_worker(raised, error, state):
    jobs, work, closed = Jobs(1, 1), Said(raised), threading.Event()
    job = jobs.submit(work, on_end=closed.set)
    after = jobs.submit(lambda _: transcript(1))
    work.end()
    with pytest.raises(error):
        await job.wait()
    assert job.state is state
    assert await after.wait() == transcript(1)
    assert closed.is_set()


@asynchronously
async def test_file_that_does_not_close_loses_no_transcript():
    def broken():
        raise OSError("disk")

    job = Jobs(1, 1).submit(lambda _: transcript(1), on_end=broken)
    assert await job.wait() == transcript(1)


@asynchronously
async def test_thread_that_cannot_start_fails_its_job_alone(monkeypatch):
    jobs, closed = Jobs(1, 9), threading.Event()
    start = threading.Thread.start

    def refuse(_):
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    job = jobs.submit(lambda _: transcript(1), on_end=closed.set)
    after = jobs.submit(lambda _: transcript(2))
    with pytest.raises(WorkCrashed):
        await job.wait()
    assert closed.is_set()
    assert await after.wait() == transcript(2)


@asynchronously
async def test_error_keeps_no_frame_of_the_work_alive():
    class Samples:
        pass

    kept = []

    def work(_):
        samples = Samples()
        kept.append(weakref.ref(samples))
        try:
            int("x")
        except ValueError as exc:
            raise UnreadableAudio("it is a picture") from exc

    job = Jobs(1, 1).submit(work, keep=True)
    for _ in range(2):
        with pytest.raises(UnreadableAudio):
            await job.wait()
    assert kept[0]() is None


@asynchronously
async def test_every_follower_sees_everything_whenever_it_comes():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work)
    early = asyncio.create_task(collect(job))
    work.say(2)
    await until(lambda: len(job.segments) == 2)
    late = asyncio.create_task(collect(job))
    work.say(1)
    work.end()
    assert await early == await late == await collect(job) == ["s0", "s1", "s2"]


@asynchronously
async def test_follower_that_leaves_disturbs_nobody():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work)
    leaving, staying = (asyncio.create_task(collect(job)) for _ in range(2))
    waiting = asyncio.create_task(job.wait())
    work.say(1)
    await until(lambda: job.segments)
    leaving.cancel()
    waiting.cancel()
    await asyncio.gather(leaving, waiting, return_exceptions=True)
    work.say(1)
    work.end()
    assert await staying == ["s0", "s1"]


@asynchronously
async def test_follower_of_a_cancelled_job_ends():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work)
    following = asyncio.create_task(collect(job))
    work.say(1)
    await until(lambda: job.segments)
    jobs.cancel(job)
    assert await following == ["s0"]
    work.say()


async def said_by(job):
    told = 0
    while True:
        for one in job.segments[told:]:
            told += 1
            yield one.text.strip()
        if job.has_ended:
            return
        await job.changed()


async def collect(job):
    return [text async for text in said_by(job)]


@asynchronously
async def test_only_a_kept_job_is_found_and_only_by_its_owner():
    jobs = Jobs(1, 2)
    kept = jobs.submit(lambda _: transcript(1), owner="a", keep=True)
    passing = jobs.submit(lambda _: transcript(1), owner="a")
    assert jobs.get(kept.id, "a") is kept
    for job_id, owner in ((kept.id, "b"), (kept.id, None), (passing.id, "a"), ("", None)):
        with pytest.raises(UnknownJob):
            jobs.get(job_id, owner)
    await passing.wait()


@asynchronously
async def test_forgotten_job_is_cancelled_and_found_no_more():
    jobs, work = Jobs(1, 1), Said()
    job = jobs.submit(work, keep=True)
    jobs.forget(job)
    jobs.forget(job)
    assert job.state is JobState.CANCELLED
    with pytest.raises(UnknownJob):
        jobs.get(job.id)
    assert list(jobs._kept) == []
    work.say()
    await until(lambda: not jobs.is_busy)


@stepped
async def test_kept_job_expires_and_who_follows_it_sees_its_end(loop):
    jobs = Jobs(1, 1, keep_s=100.0)
    job = jobs.submit(lambda _: transcript(3), keep=True)
    await job.wait()
    following = said_by(job)
    assert await anext(following) == "s0"
    await loop.skip(99.0)
    assert jobs.get(job.id) is job
    await loop.skip(1.1)
    with pytest.raises(UnknownJob):
        jobs.get(job.id)
    assert [text async for text in following] == ["s1", "s2"]


@stepped
async def test_waiting_and_running_jobs_do_not_expire(loop):
    jobs, work = Jobs(1, 1, keep_s=1.0), Said()
    running, waiting = (jobs.submit(work, keep=True) for _ in range(2))
    await loop.skip(50.0)
    assert [jobs.get(job.id) for job in (running, waiting)] == [running, waiting]
    work.end()
    work.end()
    await waiting.wait()


@asynchronously
async def test_of_1001_results_the_first_is_forgotten():
    jobs = Jobs(1, 2000)
    made = [jobs.submit(lambda _: transcript(1), keep=True) for _ in range(1001)]
    await made[999].wait()
    assert jobs.get(made[0].id) is made[0]
    await made[1000].wait()
    assert list(jobs._kept) == made[1:]


def kept_by(owners, sizes, *, most=99, most_bytes=10**9, fetched=()):
    """Return the numbers of the jobs that are kept, after each has ended: their owners, and the words they are long."""

    async def main():
        def forget(job):
            kept.remove(job)

        kept = KeptJobs(3600.0, forget, most=most, most_bytes=most_bytes)
        made = []
        for number, (owner, size) in enumerate(zip(owners, sizes, strict=True)):
            job = Job(
                lambda _: None, request=None, owner=owner, duration_s=None, is_counted=True, on_end=None
            )
            job.segments = [Segment(0, 0.0, 1.0, "", words=(Word(" a", 0.0, 1.0),) * size)]
            job.is_fetched = number in fetched
            made.append(job)
            kept.add(job)
            kept.ended(job)
        numbers = [made.index(job) for job in kept]
        for job in made:
            kept.remove(job)
        assert (list(kept), kept._expiries, kept._sizes) == ([], {}, {})
        return numbers

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("case", "kept"),
    [
        ({"owners": "aaaaa", "most": 3}, [2, 3, 4]),
        ({"owners": "aaaaa", "most": 3, "fetched": {1, 2}}, [0, 3, 4]),
        ({"owners": "aaaaa", "most": 3, "fetched": {4}}, [2, 3, 4]),
        ({"owners": "abbbb", "most": 3}, [0, 3, 4]),
        ({"owners": "bbbba", "most": 3}, [2, 3, 4]),
        ({"owners": "abab", "most": 1}, [3]),
    ],
    ids=["oldest", "fetched", "the-newest-never", "another's", "one's-own", "only-one"],
)
def test_results_that_nobody_fetches_are_limited_in_number(case, kept):
    """What was fetched goes first; then the oldest of who has most, and nobody else's."""
    assert kept_by(sizes=[1] * len(case["owners"]), **case) == kept


@pytest.mark.parametrize(
    ("case", "kept"),
    [
        ({"owners": "aaa", "sizes": [400] * 3}, [1, 2]),
        ({"owners": "abb", "sizes": [400] * 3}, [0, 2]),
        ({"owners": "abbb", "sizes": [700, 1, 1, 300]}, [1, 2, 3]),
        ({"owners": "ab", "sizes": [1, 5000]}, [1]),
        ({"owners": "a", "sizes": [5000]}, [0]),
    ],
    ids=["oldest", "another's", "who-takes-most", "too-long-a-one", "alone"],
)
def test_results_are_limited_in_size(case, kept):
    assert kept_by(most_bytes=250_000, **case) == kept


def test_size_of_a_result_is_estimated_by_what_it_takes():
    """An hour of speech with all its words: 20 tokens and 15 words in 5 s."""

    def spoken():
        return Transcript("transcribe", "en", 3600.0, tuple(spoken_segment(number) for number in range(720)))

    def spoken_segment(number):
        words = tuple(
            Word(f" word{number}{each}", number + each / 100, number + each / 99) for each in range(15)
        )
        tokens = tuple(1000 * number + each for each in range(20))
        return Segment(
            number, number + 0.1, number + 0.2, "".join(w.word for w in words), tokens=tokens, words=words
        )

    async def main():
        tracemalloc.start()
        try:
            job = Jobs(1, 1).submit(lambda _: spoken())
            await job.wait()
            return tracemalloc.get_traced_memory()[0], estimated_bytes(job)
        finally:
            tracemalloc.stop()

    taken, estimated = asyncio.run(main())
    assert taken <= estimated <= 2 * taken


@stepped
async def test_result_that_nobody_fetched_counts_as_use_for_a_while(loop):
    jobs = Jobs(1, 1, keep_s=500.0, hold_s=100.0)
    assert not jobs.is_busy
    fetched, unfetched = (jobs.submit(lambda _: transcript(1), keep=True) for _ in range(2))
    assert jobs.is_busy
    await unfetched.wait()
    await until(lambda: jobs.running == 0)
    fetched.is_fetched = True
    assert jobs.is_busy
    await loop.skip(101.0)
    assert not jobs.is_busy
    assert jobs.get(unfetched.id) is unfetched


@asynchronously
async def test_job_that_is_not_kept_counts_as_use_only_until_it_ends():
    jobs = Jobs(1, 1)
    await jobs.submit(lambda _: transcript(1)).wait()
    assert not jobs.is_busy


@asynchronously
async def test_closing_waits_for_what_there_is_and_takes_no_more():
    jobs, work = Jobs(1, 1), Said()
    running, waiting = jobs.submit(work), jobs.submit(lambda _: transcript(2))
    closing = asyncio.create_task(jobs.close(LIMIT_S))
    await until(lambda: jobs.is_closing)
    with pytest.raises(ShuttingDown):
        jobs.submit(work)
    with pytest.raises(ShuttingDown):
        async with jobs.admission():
            pass
    assert not closing.done()
    work.end()
    await closing
    assert (await running.wait(), await waiting.wait()) == (transcript(0), transcript(2))


@asynchronously
async def test_closing_ends_who_still_waits_and_leaves_no_thread():
    jobs, work, closed = Jobs(1, 1), Said(), []
    running = jobs.submit(work, keep=True)
    waiting = jobs.submit(Said(), on_end=lambda: closed.append(True))
    following = asyncio.create_task(collect(running))
    await jobs.close(0.0)
    for job in (running, waiting):
        with pytest.raises(ShuttingDown):
            await job.wait()
    assert (await following, closed, running.state) == ([], [True], JobState.FAILED)
    work.say()  # its thread ends at its next check: the decorator sees to it


@asynchronously
async def test_closing_does_not_wait_for_threads_whose_job_was_cancelled():
    jobs, work = Jobs(1, 1), Said()
    jobs.cancel(jobs.submit(work))
    await jobs.close(3600.0)
    assert jobs.running == 1
    work.say()


@asynchronously
async def test_closing_cuts_an_upload_short():
    jobs = Jobs(1, 1)
    inside = asyncio.Event()

    async def upload():
        async with jobs.admission():
            inside.set()
            await asyncio.Event().wait()

    uploading = asyncio.create_task(upload())
    await inside.wait()
    await asyncio.gather(jobs.close(0.0), jobs.close(0.0))
    with pytest.raises(ShuttingDown):
        await uploading
    assert jobs._admissions == set()


@asynchronously
async def test_admission_leaves_other_time_limits_alone():
    jobs = Jobs(1, 1)
    with pytest.raises(TimeoutError):
        async with jobs.admission():
            raise TimeoutError


def test_loop_that_has_closed_breaks_no_worker():
    work, closed, raised = Said(), threading.Event(), []

    def watched(progress):
        try:
            return work(progress)
        except BaseException as exc:
            raised.append(exc)
            raise

    async def main():
        Jobs(1, 1).submit(watched, on_end=closed.set)
        await until(work.begun.is_set)

    asyncio.run(main())
    work.say(3)
    work.end()
    work.thread.join(LIMIT_S)
    assert (closed.is_set(), raised) == (True, [])


@asynchronously
async def test_those_who_count_are_told_of_every_end():
    told = []
    jobs = Jobs(1, 9, on_ended=told.append)
    works = [lambda _: transcript(1), Said(EmptyFile()), Said()]
    made = [jobs.submit(work) for work in works]
    jobs.cancel(made[2])
    works[1].end()
    await until(lambda: len(told) == 3)
    assert [job.state for job in made] == [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED]


@asynchronously
async def test_nothing_is_left_of_500_jobs():
    jobs = Jobs(2, 500)
    first = Said()
    blocked = [jobs.submit(first), jobs.submit(first)]
    made = [jobs.submit(lambda _: transcript(1), keep=number % 3 == 0) for number in range(500)]
    followed = [asyncio.create_task(collect(job)) for job in made]
    for job in made[::5]:
        jobs.cancel(job)
    first.end()
    first.end()
    await asyncio.gather(*followed)
    for job in (*made, *blocked):
        await job.wait() if job.error is None else None
        jobs.forget(job)
    await until(lambda: jobs.running == 0)
    alive = weakref.WeakSet(made)
    del made, followed, job, blocked
    await asyncio.sleep(0)
    gc.collect()
    assert list(alive) == []
    assert (list(jobs._kept), len(asyncio.all_tasks())) == ([], 1)
