"""The process runtime: a service that is a process of autostart's own, on 127.0.0.1.

Owns when a process is started and ended; how is `process_group`'s. Imports only `errors` and its neighbours.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autostart.errors import PortTaken, RuntimeFailure, StopFailed, TimedOut
from autostart.runtime.base import (
    Change,
    Endpoint,
    HealthResult,
    Listener,
    Observation,
    RunState,
    RuntimeEvent,
    StopMethod,
)
from autostart.runtime.oom import oom_kill_count
from autostart.runtime.output_tail import OutputTail
from autostart.runtime.process_group import ProcessGroup, Spawned, discard, spawn

log = logging.getLogger(__name__)
service_log = logging.getLogger("autostart.service")

_HOST = "127.0.0.1"
_KILL_LIMIT_S = 4.0
"""How long what was killed may take to vanish. Less than what the lifecycle allows a stop beyond its grace."""

_NOT_PASSED_ON = (
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
)
"""What systemd tells autostart alone: a service that answered in its place would end it."""


def _demand_free_port(port: int) -> None:
    """Raise PortTaken where a service could not listen on `port` now."""
    with socket.socket() as probe:
        # What lingers in TIME_WAIT keeps nobody from listening; a listener on any address does (Linux).
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as exc:
            raise PortTaken(port, f"{_HOST}:{port} cannot be bound: {os.strerror(exc.errno or 0)}") from exc


class ProcessRuntime:
    """Runs one command; see `base.Runtime` for what each method promises.

    The process and all that it starts are one process group in a session of their own. They end with a
    `stop`, with `close`, when the process itself ends, and when autostart dies in whatever way. Who leaves
    the group (a daemon) is not followed.

    A start is a task of the runtime's own, so that a caller who leaves does not cut it in half: it goes on,
    and is seen in `observe`.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path | None,
        env: Mapping[str, str],
        port: int,
        *,
        label: str = "",
        close_grace_s: float = 5.0,
        orphan_grace_s: float = 5.0,
        tail_lines: int = 200,
        count_oom_kills: Callable[[], int | None] = oom_kill_count,
    ) -> None:
        """Prepare; nothing is started.

        `cwd` None is autostart's own directory. `env` comes on top of autostart's own environment. `label`
        stands in the log lines (the service's host name; else the program). `close_grace_s` and
        `orphan_grace_s` lie between SIGTERM and SIGKILL on `close` and after autostart's own death.
        """
        self._command = tuple(command)
        self._cwd = cwd
        self._env = dict(env)
        self._endpoint = Endpoint(_HOST, port)
        self._label = label or Path(self._command[0]).name
        self._close_grace_s = close_grace_s
        self._orphan_grace_s = orphan_grace_s
        self._tail_lines = tail_lines
        self._count_oom_kills = count_oom_kills
        self._oom_kills: int | None = None
        self._listener: Listener | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"process-{port}")
        self._tail = OutputTail(tail_lines)
        self._group: ProcessGroup | None = None
        self._starting: asyncio.Task[Endpoint] | None = None
        self._closed = False

    def __repr__(self) -> str:
        doing = "starting" if self._starting is not None else self._group
        return f"<ProcessRuntime {self._label} port={self._endpoint.port} {doing}>"

    def watch(self, listener: Listener) -> None:
        """Call `listener` for every start and death from now on, also for those that were asked for."""
        self._listener = listener

    async def observe(self) -> Observation:
        """Look at the process itself; one that was told to end counts as running until it has ended."""
        group = self._group
        if group is None:
            return Observation(RunState.STOPPED)
        exit_code = group.peek_exit_code()
        if exit_code is not None:
            return Observation(RunState.STOPPED, started_at_s=group.started_at_s, exit_code=exit_code)
        return Observation(RunState.RUNNING, self._endpoint, group.started_at_s)

    async def start(self) -> Endpoint:
        """Start the process unless it runs.

        Waits first for the rest of the previous one. Raises CommandNotFound, PortTaken, TimedOut (the
        previous one does not end) or RuntimeFailure. Cancelled, the start goes on.
        """
        if self._starting is None:
            group = self._group
            if group is not None and not group.ending and group.peek_exit_code() is None:
                return self._endpoint
            self._starting = asyncio.get_running_loop().create_task(self._start(), name=f"run {self._label}")
            self._starting.add_done_callback(self._start_ended)
        return await asyncio.shield(self._starting)

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        """End the process and its group: SIGTERM to all, SIGKILL to who is left after `grace_s`.

        Raises StopFailed when somebody survives that. Cancelled, the end goes on, SIGKILL included.
        """
        if method is not StopMethod.STOP:
            raise RuntimeFailure(f"a process cannot be put to sleep by {method}, only by stop")
        if self._starting is not None:
            await asyncio.wait({self._starting})
        group = self._group
        if group is None:
            return
        group.end(grace_s)
        try:
            async with asyncio.timeout(grace_s + _KILL_LIMIT_S):
                await group.gone.wait()
        except TimeoutError as exc:
            raise StopFailed(
                f"process group {group.pid} still runs {_KILL_LIMIT_S:g} s after SIGKILL",
                log_tail=self._tail.last(self._tail_lines),
                hint=f"see what holds it with `ps -o pid,stat,wchan,args -g {group.pid}`",
            ) from exc

    async def check_health(self) -> HealthResult | None:
        """Return None: a process has no health check of its own."""
        return None

    async def cpu_seconds(self) -> Mapping[str, float]:
        """See `Runtime.cpu_seconds`: by process, those that left the group and still have their parent included."""
        return {} if self._group is None else await self._group.cpu_seconds()

    async def log_tail(self, lines: int) -> list[str]:
        """Return the last lines of the last run, stdout and stderr together."""
        if self._group is not None:
            self._group.read_output()
        return self._tail.last(lines)

    async def close(self) -> None:
        """End the process for good; a start is refused from now on. Idempotent.

        Raises StopFailed when it survives; its guard then goes on trying once autostart is gone.
        """
        self._closed = True
        await self.stop(StopMethod.STOP, self._close_grace_s)
        self._executor.shutdown(wait=False)

    # --- starting ------------------------------------------------------------------------------------

    async def _start(self) -> Endpoint:
        await self._previous_is_gone()
        if self._closed:
            raise RuntimeFailure("autostart is shutting down")
        _demand_free_port(self._endpoint.port)
        self._oom_kills = self._count_oom_kills()
        on_line = self._forward_line if service_log.isEnabledFor(logging.DEBUG) else None
        tail = OutputTail(self._tail_lines, on_line=on_line)
        spawned = await self._spawn()
        self._tail = tail
        self._group = ProcessGroup(spawned, tail, self._executor, self._on_end)
        self._tell(RuntimeEvent(Change.STARTED))
        return self._endpoint

    async def _previous_is_gone(self) -> None:
        group = self._group
        if group is None:
            return
        limit_s = group.kill_in_s + _KILL_LIMIT_S
        try:
            async with asyncio.timeout(limit_s):
                await group.gone.wait()
        except TimeoutError as exc:
            raise TimedOut(
                "the end of the previous process", limit_s, detail=f"process group {group.pid}"
            ) from exc

    async def _spawn(self) -> Spawned:
        env = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON} | self._env
        spawning = asyncio.get_running_loop().run_in_executor(
            self._executor, spawn, self._command, self._cwd, env, self._orphan_grace_s
        )
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:  # the event loop ends; the thread knows nothing of that
            if not spawning.cancelled() and (await asyncio.wait({spawning}))[0] and not spawning.exception():
                discard(spawning.result())
            raise

    def _start_ended(self, task: asyncio.Task[Endpoint]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # those who waited have been told, or have all left

    # --- what happens to the process -----------------------------------------------------------------

    def _on_end(self, group: ProcessGroup) -> None:
        code = group.exit_code
        by_hand = group.ending or code in (-signal.SIGTERM, -signal.SIGINT)
        out_of_memory = code == -signal.SIGKILL and not group.killed and self._oom_killer_was_here()
        self._tell(RuntimeEvent(Change.DIED, code, out_of_memory, by_hand))

    def _oom_killer_was_here(self) -> bool:
        """Say whether the kernel killed somebody of our cgroup since the start; with exit by SIGKILL, it was us."""
        now = self._count_oom_kills()
        return now is not None and self._oom_kills is not None and now > self._oom_kills

    def _tell(self, event: RuntimeEvent) -> None:
        if self._listener is None:
            return
        try:
            self._listener(event)
        except Exception:
            log.exception("a listener failed", extra={"service": self._label, "change": event.change})

    def _forward_line(self, line: str) -> None:
        service_log.debug("%s", line, extra={"service": self._label})
