"""The state machine of one service, and its leases.

The one rule: decide synchronously, act asynchronously. No `await` stands between reading a state and
changing it; slow work is one task that the service owns, and those who wait for it do so through a shield.

| state    | a request            | idle tick             | the work ends                 | the thing dies |
|----------|----------------------|-----------------------|-------------------------------|----------------|
| stopped  | begins a start, joins| –                     | –                             | –              |
| starting | joins                | –                     | ready, or failed with a cause | failed         |
| ready    | passes               | no lease and idle long| –                             | stopped; failed|
|          |                      | enough: stopping      |                               | where too soon |
| stopping | waits, then starts   | –                     | stopped; on error: the truth  | –              |
| failed   | refused until the    | –                     | –                             | –              |
|          | hold-off ends        |                       |                               |                |

Where a busy check is configured, an idle tick begins it, and the stop is decided in the very step in which it has
answered "not busy": for this run of the service, with no lease open, and the idle clock run out still.

A death is too soon where nobody asked for it and the start has not proved itself yet: a client that asks again
and again would make it start again and again. What may still run after a stop that failed, or beside what
crashed, is stopped by a later idle tick.

Something found running by itself (`docker compose up` by hand, a restart of autostart) is adopted: it goes
through starting without being started, and if it does not become ready it is left alone. What somebody ends while it is
adopted is stopped: no start has failed, and who waits begins one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from autostart import errors
from autostart.config import Service as ServiceConfig
from autostart.errors import RuntimeFailure
from autostart.lifecycle import events, limits
from autostart.lifecycle.busy import BusyCheck
from autostart.lifecycle.events import Emit, Phases, State, StopReason
from autostart.lifecycle.holdoff import HoldOff
from autostart.lifecycle.readiness import ReadinessCheck
from autostart.lifecycle.snapshot import Snapshot
from autostart.lifecycle.start import StartAttempt, add_log_tail, cause_of_death
from autostart.lifecycle.use import Lease, Use
from autostart.runtime.base import Change, Endpoint, Observation, RunState, Runtime, RuntimeEvent, StopMethod

PROVED_AFTER_S = 60.0
"""A start has worked once the service was ready for so many seconds: what loads with the first request has loaded
by then, and what dies later is started once a minute at most."""


class Service:
    """One service: its state, its leases, and the one task that works on it.

    Made stopped; `adopt` finds out what is true. Lives until `close`. Nothing is looked at or started before
    `after` has ended: another service that had the same containers or the same port.
    """

    __slots__ = (  # there may be a thousand: a dict of more than 30 attributes is 2 kB
        "_asking",
        "_attempt",
        "_before",
        "_busy",
        "_changes",
        "_cleanup",
        "_clock",
        "_closing",
        "_emit",
        "_endpoint",
        "_given_up",
        "_hold_off",
        "_is_outdated",
        "_last_phases",
        "_last_words",
        "_look",
        "_look_later",
        "_may_be_left",
        "_outcome",
        "_readiness",
        "_running_since",
        "_runtime",
        "_since",
        "_started_by",
        "_state",
        "_stop_again",
        "_unhealthy_since_s",
        "_use",
        "_wall",
        "_work",
        "config",
        "host",
    )

    def __init__(
        self,
        host: str,
        config: ServiceConfig,
        runtime: Runtime,
        *,
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        after: asyncio.Task[None] | None = None,
    ) -> None:
        self.host = host
        self.config = config
        self._runtime = runtime
        self._emit = emit
        self._clock = clock
        self._wall = wall
        self._use = Use(clock, wall)
        self._hold_off = HoldOff(clock, wall)
        self._readiness = ReadinessCheck(config.readiness, host)

        self._state = State.STOPPED
        self._since = clock()
        self._changes = 0
        self._endpoint: Endpoint | None = None
        self._outcome: asyncio.Future[Endpoint | RuntimeFailure | None] | None = None
        self._attempt: StartAttempt | None = None
        self._work: asyncio.Task[None] | None = None
        self._given_up: asyncio.Task[None] | None = None
        self._before = after
        self._cleanup: asyncio.Task[None] | None = None
        self._last_words: asyncio.Task[None] | None = None
        self._look: asyncio.Task[None] | None = None
        self._look_later = HoldOff(clock, wall)
        self._stop_again = HoldOff(clock, wall)
        self._may_be_left = False
        self._busy: BusyCheck | None = None
        self._asking: asyncio.Task[None] | None = None

        self._started_by = ""
        self._running_since: float | None = None
        self._last_phases: Phases | None = None
        self._unhealthy_since_s: float | None = None
        self._is_outdated = False
        self._closing = False
        runtime.watch(self._on_event)

    def __repr__(self) -> str:
        return f"<Service {self.host} {self._state.value} leases={len(self._use.leases)}>"

    @property
    def state(self) -> State:
        """The state right now."""
        return self._state

    @property
    def is_in_use(self) -> bool:
        """Say whether requests are open, or wait for it to start."""
        return bool(self._use.leases) and not self._closing

    @property
    def expected_start_s(self) -> float:
        """Seconds that a start takes, by the last one; a guess where there was none."""
        return self._last_phases.total_s if self._last_phases else 10.0

    # --- what requests ask ---------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, by: str, *, counts: bool = True) -> AsyncIterator[Lease]:
        """Hold the service awake for the body of the `with`; starts it and waits until it is ready first.

        `by` says who, for logs and `explain`. With `counts=False` the lease holds off a stop but does not
        move the idle clock. Raises ServiceUnavailable: StartFailed, StartHeldOff, StartTimeout (the start
        itself goes on), ShuttingDown. Cancellation gives the lease back and leaves the start running.
        """
        lease = self._use.take(by, counts=counts)
        try:
            lease.endpoint = await self._until_ready(by)
            yield lease
        finally:
            if self._use.give_back(lease):
                self._was_used()
                self._emit(events.Used(self.host, self._use.last_used_s or 0.0))

    def used(self, lease: Lease) -> None:
        """Take note of a sign of life on a lease, which from here on holds off no stop by merely being open."""
        self._use.used(lease)
        if lease.counts:
            self._was_used()

    def _was_used(self) -> None:
        if self._busy is not None:
            self._busy.used()

    def wake(self, by: str) -> None:
        """Begin a start if the service sleeps, and return at once. Raises StartHeldOff, ShuttingDown."""
        if self._closing:
            raise errors.ShuttingDown(self.host)
        if self._state is State.FAILED and self._hold_off.failure and self._hold_off.left_s:
            raise errors.StartHeldOff(self.host, self._hold_off.failure, self._hold_off.left_s)
        if self._state in {State.STOPPED, State.FAILED}:
            self._begin_start(by)

    async def _until_ready(self, by: str) -> Endpoint:
        begun = self._clock()
        limit_s = self.config.wait_timeout
        while True:
            if self._state is State.READY and self._endpoint is not None and not self._closing:
                return self._endpoint
            self.wake(by)
            starting, outcome = self._state is State.STARTING, self._outcome
            assert outcome is not None, "starting and stopping have an outcome to wait for"
            left_s = None if limit_s is None else begun + limit_s - self._clock()
            try:
                async with asyncio.timeout(left_s):
                    ended = await asyncio.shield(outcome)
            except TimeoutError:
                waited_s = self._clock() - begun
                raise errors.StartTimeout(self.host, waited_s, self.expected_start_s) from None
            # After all else, look again: a stop may have ended in any way, and what was ready may have died.
            if starting and isinstance(ended, RuntimeFailure):
                raise errors.StartFailed(self.host, ended, self._hold_off.left_s)

    # --- what people and the reaper ask --------------------------------------------------------------

    async def start(self, by: str) -> None:
        """Start the service and wait until it is ready; a hold-off is lifted first. Raises like `lease`."""
        self._hold_off.lift()
        async with self.lease(by):
            pass

    async def stop(self, *, force: bool = False) -> None:
        """Stop the service and wait until it has stopped; also ends a start in progress, and what one has left.

        Raises InUse while requests are open, unless forced; StopFailed's cause as RuntimeFailure; ShuttingDown.
        """
        if self._closing:
            raise errors.ShuttingDown(self.host)
        if self._state is State.FAILED or (self._state is State.STOPPED and self._may_be_left):
            self._begin_clean_up()
            if self._cleanup is not None:
                await asyncio.wait({self._cleanup})
            if self._may_be_left and self._stop_again.failure is not None:
                raise self._stop_again.failure
            return
        if self._state in {State.READY, State.STARTING}:
            if self._use.leases and not force:
                raise errors.InUse(self.host, len(self._use.leases))
            self._begin_stop(StopReason.MANUAL)
        if self._state is State.STOPPING and self._outcome is not None:
            ended = await asyncio.shield(self._outcome)
            if isinstance(ended, RuntimeFailure):
                raise ended

    def hold(self, for_s: float) -> None:
        """Keep the service from idle stops for this many seconds from now; 0 releases it."""
        self._use.hold(for_s)
        self._emit(events.Held(self.host, self._wall() + for_s if for_s > 0 else None))

    def stop_if_idle(self) -> bool:
        """Decide on an idle stop, and begin it; the reaper calls this on every tick.

        Where it has to be asked first whether it is busy, only that begins, when it is due, and False is returned.
        A look that failed is taken again here too, and what may be left running is stopped.
        """
        if self._look_later.failure and not self._look_later.left_s and not _is_running(self._look):
            self._look_again()
        is_ready = self._state is State.READY
        if is_ready and self._busy is not None:
            self._ask_if_due(self._busy)
            return False
        if not (is_ready or self._may_be_left) or self._use.is_held or self._idle_in_s() > 0:
            return False
        if is_ready:
            self._begin_stop(StopReason.IDLE)
        elif self._state in {State.STOPPED, State.FAILED}:
            self._begin_clean_up()
        return is_ready

    def _idle_in_s(self) -> float:
        return max(self._use.idle_at(self.config.idle_timeout) - self._clock(), self._stop_again.left_s)

    def _ask_if_due(self, check: BusyCheck) -> None:
        is_free = not self._use.is_held and not _is_running(self._asking)
        if is_free and check.is_due(self._clock() + self._idle_in_s()):
            self._asking = asyncio.get_running_loop().create_task(
                self._ask_whether_busy(check), name=f"ask {self.host} whether it is busy"
            )

    async def _ask_whether_busy(self, check: BusyCheck) -> None:
        assert self._endpoint is not None, "what is ready has one"
        heard = await check.ask(self._endpoint)
        if check is not self._busy or self._closing:
            return  # that was another run, or other questions
        self._asking = None  # it is over, and nothing may cancel what it decides
        if heard is None:
            return
        if heard.failure is not None and check.is_news(heard.failure):
            self._emit(events.RuntimeTrouble(self.host, "busy_check", heard.failure))
        if self._use.is_held:
            return
        if heard.keeps_up:
            self._use.worked()
            if heard.is_busy:
                self._emit(events.Used(self.host, self._wall()))
        elif self._idle_in_s() <= 0:
            self._begin_stop(StopReason.IDLE)

    def _renew_busy_check(self) -> None:
        """Begin a busy check for this run, where it is ready; what is on its way to another one is ignored."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        is_ready = self._state is State.READY
        self._busy = (
            BusyCheck.wanted(self.config, self.host, self._runtime, self._clock) if is_ready else None
        )

    # --- starting ------------------------------------------------------------------------------------

    def _begin_start(self, by: str, adopted: Observation | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._may_be_left = False  # it is this start's from now on
        self._started_by = by
        self._outcome = loop.create_future()
        self._attempt = StartAttempt(
            self.host,
            self.config,
            self._runtime,
            self._readiness,
            clock=self._clock,
            running_at=adopted.endpoint if adopted else None,
        )
        self._enter(State.STARTING)
        self._emit(events.StartBegan(self.host, by, adopted is not None))
        self._work = loop.create_task(self._run_start(by, self._attempt, adopted), name=f"start {self.host}")

    async def _run_start(self, by: str, attempt: StartAttempt, adopted: Observation | None) -> None:
        try:
            async with limits.limited(
                "waiting for what ran before", self.config.start_timeout, "startTimeout"
            ):
                await self._cleaned_up()
            endpoint, phases = await attempt.run()
        except RuntimeFailure as failure:
            if adopted is not None and isinstance(failure, errors.StoppedByHand):
                self._has_stopped(StopReason.EXTERNAL)  # no start has failed
                if attempt.came_up_anew:
                    self._look_again()
            else:
                self._start_failed(by, failure, adopted)
        else:
            self._start_succeeded(by, endpoint, phases, adopted)

    def _start_succeeded(
        self, by: str, endpoint: Endpoint, phases: Phases, adopted: Observation | None
    ) -> None:
        self._endpoint = endpoint
        self._hold_off.succeeded()
        self._stop_again.proved()
        self._running_since = self._clock()
        if adopted is None:
            self._last_phases = phases
            self._use.became_ready()
        else:
            now_s = self._wall()
            started_at_s = adopted.started_at_s or now_s
            self._running_since -= max(0.0, now_s - started_at_s)
            self._use.became_ready(started_at_s)
        self._enter(State.READY)
        waiting = len(self._use.leases)
        self._emit(events.StartSucceeded(self.host, by, adopted is not None, phases, waiting))
        self._finish(endpoint)

    def _start_failed(self, by: str, failure: RuntimeFailure, adopted: Observation | None) -> None:
        self._hold_off.failed(failure)
        self._enter(State.FAILED)
        waiting = len(self._use.leases)
        self._emit(events.StartFailed(self.host, by, failure, waiting, self._hold_off.left_s))
        # What is adopted is somebody's, and what ran before is not over: neither is ours to stop.
        if adopted is not None:
            if self._attempt is not None and self._attempt.came_up_anew:
                self._look_again()
        else:
            self._begin_clean_up()
        self._finish(failure)

    def _begin_clean_up(self) -> None:
        # Until what had the containers before is over, nothing of ours runs, and they are not ours to stop.
        if not _is_running(self._before) and not _is_running(self._cleanup):
            self._cleanup = asyncio.create_task(self._clean_up(), name=f"clean up {self.host}")

    async def _clean_up(self) -> None:
        """Stop what a failed start, a failed stop or a crash has left running."""
        try:
            await limits.stop(self._runtime, StopMethod.STOP, self.config.stop_timeout)
        except RuntimeFailure as failure:
            self._may_be_left = self._state in {State.STOPPED, State.FAILED}
            self._stop_again.failed(failure)
            self._emit(events.RuntimeTrouble(self.host, "clean_up", failure))
        else:
            self._may_be_left = False
            self._stop_again.proved()

    async def _cleaned_up(self) -> None:
        for task in (self._before, self._cleanup):
            if task is not None:
                await asyncio.wait({task})

    # --- stopping ------------------------------------------------------------------------------------

    def _begin_stop(self, reason: StopReason) -> None:
        loop = asyncio.get_running_loop()
        start = self._work if self._state is State.STARTING else None
        waited_for = self._outcome
        self._outcome = loop.create_future()
        self._enter(State.STOPPING)
        self._emit(events.StopBegan(self.host, reason))
        if start is not None and waited_for is not None:
            start.cancel()
            self._given_up = start
            waited_for.set_result(errors.StoppedByHand())
        self._work = loop.create_task(self._run_stop(reason, start), name=f"stop {self.host}")

    async def _run_stop(self, reason: StopReason, start: asyncio.Task[None] | None) -> None:
        if start is not None:
            await asyncio.wait({start})
        try:
            await limits.stop(self._runtime, StopMethod(self.config.stop_method), self.config.stop_timeout)
        except RuntimeFailure as failure:
            changes, seen = -1, None
            while changes != self._changes:  # it may end at last while it is looked at
                changes, seen = self._changes, await self._observe()
            self._stop_failed(reason, failure, seen)
        else:
            self._has_stopped(reason)

    def _stop_failed(self, reason: StopReason, failure: RuntimeFailure, seen: Observation | None) -> None:
        still_running = None if seen is None else seen.state is RunState.RUNNING
        self._emit(events.StopFailed(self.host, reason, failure, still_running))
        if still_running is not False:
            self._stop_again.failed(failure)
            self._finish(failure)
        # What came up anew meanwhile (a look waits for us) is not ready yet: that look adopts it.
        if seen is not None and still_running and self._endpoint is not None and not _is_running(self._look):
            self._endpoint = seen.endpoint or self._endpoint
            self._enter(State.READY)
        else:  # not known: a start is idempotent, and the next resync tells
            self._has_stopped(reason)
            self._may_be_left = seen is None or seen.state is RunState.RUNNING or seen.has_remains

    def _has_stopped(self, reason: StopReason, event: RuntimeEvent | None = None) -> None:
        ran_s = self._clock() - self._running_since if self._running_since is not None else 0.0
        self._endpoint = None
        self._running_since = None
        self._may_be_left = event is not None and event.change is Change.DIED  # what ran beside it
        if event is not None and reason is StopReason.CRASHED and ran_s < PROVED_AFTER_S:
            failure = cause_of_death(self.host, event, ran_s)
            self._hold_off.failed(failure)
            self._last_words = asyncio.create_task(add_log_tail(failure, self._runtime))
            self._enter(State.FAILED)
        else:
            self._hold_off.proved()
            self._enter(State.STOPPED)
        exit_code, out_of_memory = (event.exit_code, event.out_of_memory) if event else (None, False)
        # Those that wait for the stop to end are not cut by it.
        cut = sum(lease.endpoint is not None and lease.holds for lease in self._use.leases)
        held_off_s = self._hold_off.left_s
        self._emit(events.Stopped(self.host, reason, ran_s, cut, exit_code, out_of_memory, held_off_s))
        self._finish(None)

    # --- what the runtime tells ----------------------------------------------------------------------

    def _on_event(self, event: RuntimeEvent) -> None:
        if self._closing:
            return
        match event.change, self._state:
            case ((Change.DIED | Change.PAUSED | Change.STARTED), State.STARTING):
                assert self._attempt is not None, "starting has an attempt"
                self._attempt.on_event(event)
            case ((Change.DIED | Change.PAUSED), State.READY):
                self._has_stopped(StopReason.EXTERNAL if event.is_by_hand else StopReason.CRASHED, event)
            case (Change.STARTED, State.STOPPED | State.FAILED | State.STOPPING) | (Change.RESYNC, _):
                self._look_again()
            case ((Change.UNHEALTHY | Change.HEALTHY), state):
                is_sick = state is State.READY and event.change is Change.UNHEALTHY
                self._unhealthy_since_s = (self._unhealthy_since_s or self._wall()) if is_sick else None
                self._emit(events.RuntimeTrouble(self.host, "health", change=event.change))
            case _:  # what we asked for ourselves; but a look may have seen what was before
                self._changes += 1

    async def adopt(self, last_used_s: float | None = None, held_until_s: float | None = None) -> None:
        """Find out what is true, and take over what runs; for the start of the program and a reload.

        `last_used_s` is the idle clock that was kept, `held_until_s` the end of a hold, in wall-clock seconds.
        Never raises RuntimeFailure: what cannot be known now is found out when the runtime can be asked again.
        """
        self._use.go_on(last_used_s, held_until_s)
        self._look_again()
        if self._look is not None:
            await asyncio.wait({self._look})

    def _look_again(self) -> None:
        if _is_running(self._look):
            self._changes += 1  # what it sees may be older than what we have just been told
        else:
            self._look = asyncio.get_running_loop().create_task(
                self._reconcile(), name=f"look at {self.host}"
            )

    async def _reconcile(self) -> None:
        while True:
            await self._cleaned_up()
            if self._state is State.STOPPING and self._work is not None:
                await asyncio.wait({self._work})
            changes = self._changes
            was_up = self._attempt is not None and self._attempt.is_up
            seen = await self._observe()
            if changes == self._changes or self._closing:
                break  # what was seen is about the state that we are in
        if seen is None or self._closing:
            return
        if isinstance(self._hold_off.failure, errors.EngineUnreachable):
            self._hold_off.lift()  # it answers again
        running = seen.state is RunState.RUNNING
        if running and self._state in {State.STOPPED, State.FAILED}:
            self._begin_start("adopted", seen)
        elif self._state is State.READY and not running:
            self._has_stopped(StopReason.EXTERNAL)
        elif self._state is State.READY and seen.endpoint is not None:
            self._endpoint = seen.endpoint
        elif self._state is State.STARTING and self._attempt is not None and was_up and not running:
            self._attempt.on_event(RuntimeEvent(Change.DIED, seen.exit_code))
        if self._state in {State.STOPPED, State.FAILED} and seen.has_remains and not self._may_be_left:
            self._may_be_left = True
            self._use.became_ready()  # somebody may be about to start the rest

    async def _observe(self) -> Observation | None:
        try:
            seen = await limits.look(self._runtime)
        except RuntimeFailure as failure:
            self._look_later.failed(failure)
            self._emit(events.RuntimeTrouble(self.host, "observe", failure))
            return None
        self._look_later.proved()
        return seen

    # --- the rest ------------------------------------------------------------------------------------

    def _enter(self, new: State) -> None:
        old, self._state = self._state, new
        self._since = self._clock()
        self._changes += 1
        self._unhealthy_since_s = None
        self._renew_busy_check()
        self._emit(events.Transition(self.host, old, new))

    def _finish(self, outcome: Endpoint | RuntimeFailure | None) -> None:
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(outcome)

    def snapshot(self) -> Snapshot:
        """Return what is to be told of the service now."""
        now_s = self._wall()
        idle_in_s = self._idle_in_s()
        sleeps = self._state is State.READY and not self._use.is_held and idle_in_s != float("inf")
        return Snapshot(
            service=self.host,
            name=self.config.name or self.host,
            state=self._state,
            since_s=now_s - (self._clock() - self._since),
            leases=tuple(sorted(self._use.leases, key=lambda lease: lease.since_s)),
            last_used_s=self._use.last_used_s,
            idle_stop_at_s=now_s + max(0.0, idle_in_s) if sleeps else None,
            held_for_s=self._use.held_for_s,
            started_by=self._started_by,
            last_phases=self._last_phases,
            expected_start_s=self.expected_start_s,
            failure=self._hold_off.failure,
            failure_at_s=self._hold_off.failure_at_s,
            held_off_s=self._hold_off.left_s if self._state is State.FAILED else 0.0,
            own_work=self._busy.last if self._busy is not None and not self._use.is_held else None,
            waiting_for=self._readiness.last_answer if self._state is State.STARTING else "",
            endpoint=self._endpoint,
            unhealthy_since_s=self._unhealthy_since_s,
            is_outdated=self._is_outdated,
        )

    def reconfigure(self, config: ServiceConfig, *, is_outdated: bool = False) -> None:
        """Take over a changed configuration, open requests and all; the runtime stays what it is.

        `is_outdated` says that another runtime is wanted, which comes when no request is open.
        """
        self._is_outdated = is_outdated
        if config.readiness != self.config.readiness:
            self._readiness = ReadinessCheck(config.readiness, self.host)
        is_other, self.config = config != self.config, config
        if is_other:
            self._renew_busy_check()

    async def drained(self) -> None:
        """Wait until no lease is open."""
        await self._use.drained()

    async def retire(self) -> None:
        """Close as soon as no lease is open and no stop under way; for one that left the configuration."""
        while self._use.leases or self._state is State.STOPPING or _is_running(self._cleanup):
            await self.drained()
            stop = self._work if self._state is State.STOPPING else self._cleanup
            if stop is not None:
                await asyncio.wait({stop})
        await self.close()

    async def close(self) -> None:
        """Take no new work, end what is under way, and let go of the runtime. Stops no container."""
        self._closing = True
        ours = (
            self._work,
            self._given_up,
            self._look,
            self._before,
            self._cleanup,
            self._last_words,
            self._asking,
        )
        tasks = {task for task in ours if task is not None and not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._finish(None)
        await self._runtime.close()


def _is_running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
